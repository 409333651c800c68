//! Every bound of the protocol in one place, with what it bounds and why that much is enough.
//! Relations between bounds are asserted at compile time, at the end.

use std::time::Duration;

/// Bytes of a guest page, QEMU's `TARGET_PAGE_SIZE` on x86-64 and arm64.
pub const PAGE_BYTES: usize = 4096;

// ---- batches ------------------------------------------------------------------------------------------------

/// Most guest bytes that one ingress read puts into a batch: the unit of verification and acknowledgement.
/// Large enough that a system call, a digest finalisation and an acknowledgement cost under 1 % of moving it;
/// small enough that source, digest and destination work on different batches at the same time.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

/// How long an incomplete record waits for its rest before it is sent as opaque bytes. A hypervisor writes
/// records whole, so the rest of one is on its way; one that is not must not be held back.
pub const CARRY_WAIT: Duration = Duration::from_millis(2);

/// The same while the guest is stopped, and its pause is longer by whatever waits.
pub const CARRY_WAIT_STOPPED: Duration = Duration::from_micros(200);

/// Most bytes that one batch stands for.
pub const BATCH_LEN_MAX: usize = BATCH_BYTES_MAX + CARRY_BYTES_MAX;

// ---- frames -------------------------------------------------------------------------------------------------

/// Most payload bytes of a frame: a batch that did not shrink, with its fields and the codec's own expansion.
pub const FRAME_PAYLOAD_MAX: usize = BATCH_LEN_MAX + BATCH_LEN_MAX / 128 + 2048;

/// Most bytes of a reason's text on the wire.
pub const REASON_TEXT_MAX: usize = 512;

/// Most bytes of a connection's label.
pub const LABEL_MAX: usize = 64;

/// Most bytes of the identity proof that a stream handshake may carry.
pub const HELLO_AUTH_MAX: usize = 4096;

// ---- sessions -----------------------------------------------------------------------------------------------

/// Guest bytes that have crossed the path and wait there behind a missing frame do not count as under way, up to this many
/// windows of them: the recovery of a loss takes a round trip or two, and one that a timer has to notice some more.
pub const HOLE_WINDOWS: u64 = 3;

/// Most frames that are stuck on one stream and wait for another: a hole is a frame and its parts.
pub const REPEATS_WAITING_MAX: usize = LANES_MAX as usize + 1;

/// Of what is sent, one byte in this many may be repeated because it is stuck, beside [`REPEATED_BYTES_FREE`]: where more is
/// stuck the path is at its end, and repetitions would only take more of it.
pub const REPEATED_SHARE: u64 = 20;

/// Bytes that may be repeated whatever was sent: a stall may come first.
pub const REPEATED_BYTES_FREE: u64 = 1024 * 1024;

/// The least time after which a frame that others overtook is stuck: a loaded machine is late by milliseconds.
pub const STUCK_MIN: Duration = Duration::from_millis(20);

/// Most page lanes of a session. Each costs a decoder; more than this many cores share no session.
pub const LANES_MAX: u16 = 64;

/// Page lanes of a session unless its caller says otherwise, or its gateway has more shards. Each more divides what is
/// remembered, and the window above all, and shortens what is compressed at once.
pub const LANES_DEFAULT: u16 = 1;

/// Most connections of a session: QEMU's multifd allows 255 channels; with the main one and a preempt channel.
pub const CONNECTIONS_MAX: u16 = 257;

/// Most connections of a session unless its caller says otherwise: a multifd migration of an ordinary size.
pub const CONNECTIONS_DEFAULT: u16 = 16;

/// Most streams that one session uses at once.
pub const STREAMS_MAX: usize = 512;

/// Guest bytes that a receiver reserves for each connection and direction: what may be under way unverified or
/// unwritten. Covers 1 Gbit/s over 100 ms at a compression ratio of 2.5, or one packet in a hundred lost there: what was sent within
/// two round trips then waits for a repetition, or for the repetition of that.
pub const RECEIVE_WINDOW_BYTES: u64 = 64 * 1024 * 1024;

/// Guest bytes that a receiver promises to each connection whatever else it has promised: a connection without credit
/// would wait for ever, and QEMU's multifd with it.
pub const PROMISE_BYTES_MIN: u64 = 64 * 1024;

/// Bytes that waiting frames may take at a receiver beyond the guest bytes that they stand for, beside a thirty-second of
/// the window: fields of indexes and parts where the window is small.
pub const RECEIVE_SLACK_BYTES: u64 = 4096;

/// Fewest guest bytes that a batch is cut to where the path is slow.
pub const BATCH_BYTES_MIN: u64 = 16 * 1024;

/// Guest bytes of a batch before anything was measured. A stream carries ten segments in its first round trip, and a frame that takes
/// five of them keeps the hypervisor waiting, and the promise from growing, until the last has come.
pub const BATCH_BYTES_FIRST: u64 = 32 * 1024;

/// Most guest bytes that a receiver promises to a connection at first, where it has plenty: what streams that begin slowly carry
/// before the first of it has been taken, and the promise grows.
pub const PROMISE_BYTES_FIRST: u64 = 2 * 1024 * 1024;

/// Guest bytes that a sender puts under way before it has measured anything.
pub const SEND_WINDOW_BYTES_START: u64 = 1024 * 1024;

/// Most sequenced frames of a connection under way, however small they are.
pub const BATCHES_UNDER_WAY_MAX: usize = 1024;

/// Most frames of one page lane that wait at the receiver for an earlier one.
pub const LANE_PENDING_FRAMES_MAX: usize = BATCHES_UNDER_WAY_MAX * 2;

/// Sizes of the buffers that frames and assembled batches are made in: powers of two, so that at most half of one stands empty, up
/// to the largest frame.
pub const SPARE_CLASS_BYTES: [usize; SPARE_CLASSES] = [
    256,
    512,
    1 << 10,
    1 << 11,
    1 << 12,
    1 << 13,
    1 << 14,
    1 << 15,
    1 << 16,
    1 << 17,
    1 << 18,
    SPARE_LARGEST_BYTES,
];

/// How many sizes these are.
pub const SPARE_CLASSES: usize = 12;

/// The largest of them: a frame, and hence a batch.
const SPARE_LARGEST_BYTES: usize = 32 + FRAME_PAYLOAD_MAX;

/// Bytes of such buffers that are kept for reuse by all that share them: what a path of 1 Gbit/s and 100 ms has under way. Those of
/// a faster one come from the allocator in part, which is not where its time goes.
pub const SPARE_BYTES_MAX: usize = 12 * 1024 * 1024;

/// Frames that say how far connections are and that a session looks at again: as many as wait for their streams at once.
pub const SAID_FRAMES_MAX: usize = 32;

/// Most entries of one progress frame; more connections than this take turns.
pub const PROGRESS_ENTRIES_MAX: usize = 64;

/// Most codec workers of one session: shards of one machine.
pub const CODEC_WORKERS_MAX: u16 = 256;

/// Most batches of a session whose encoding is handed out. As much as several windows on a fast path; one worker is busy with
/// that for tens of milliseconds, so that more of them would only wait.
pub const ENCODING_BATCHES_MAX: usize = 64;

/// Most codec jobs of a session under way in each direction; further ones wait in the session, where they are counted.
pub const JOBS_UNDER_WAY_MAX: usize = 128;

// ---- waits --------------------------------------------------------------------------------------------------

/// How long a source gateway waits for its peer to accept a session.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// How often an unanswered opening is said again.
pub const OPEN_REPEAT: Duration = Duration::from_secs(1);

/// How long a destination gateway waits for its peer to open a session that it was told to expect.
pub const EXPECT_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a session lives without any stream while the guest runs.
pub const OUTAGE_RUNNING: Duration = Duration::from_secs(60);

/// How long a session lives without any stream while the guest is stopped for switchover.
pub const OUTAGE_SWITCHOVER: Duration = Duration::from_secs(2);

/// How long a session waits for its first byte after the first connection came, unless its caller says otherwise.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(30);

/// The least time that what was sent may stay unverified while there are streams; more where the caller allows longer
/// outages. Far above any path's round trip and any pause of a loaded machine: a session that comes to this is stuck.
pub const STALL_MIN: Duration = Duration::from_secs(10);

/// How long what was verified may wait for its hypervisor to take it before the sender hears of it all the same.
pub const REPORT_WAIT: Duration = Duration::from_secs(1);

/// How long a session waits, once every connection has ended on this side, for the far side's last word.
pub const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(5);

const _: () = {
    assert!(CARRY_BYTES_MAX < BATCH_BYTES_MAX);
    assert!(FRAME_PAYLOAD_MAX > BATCH_LEN_MAX + 1024);
    // What the transport's buffers for a batch hold, header included.
    assert!(FRAME_PAYLOAD_MAX + 32 <= 272 * 1024);
    assert!(2 * BATCH_LEN_MAX as u64 <= SEND_WINDOW_BYTES_START);
    assert!(SEND_WINDOW_BYTES_START <= RECEIVE_WINDOW_BYTES);
    assert!(SEND_WINDOW_BYTES_START <= PROMISE_BYTES_FIRST && PROMISE_BYTES_FIRST <= RECEIVE_WINDOW_BYTES);
    assert!(PROMISE_BYTES_MIN <= SEND_WINDOW_BYTES_START && 4 * BATCH_BYTES_MIN <= PROMISE_BYTES_MIN);
    assert!(CONNECTIONS_DEFAULT <= CONNECTIONS_MAX && LANES_DEFAULT <= LANES_MAX);
    assert!(CONNECTIONS_MAX < 0x4000);
    assert!(LANES_MAX < 0x4000);
    assert!(OUTAGE_SWITCHOVER.as_millis() < OUTAGE_RUNNING.as_millis());
    assert!(2 * REPORT_WAIT.as_millis() < STALL_MIN.as_millis());
    assert!(ENCODING_BATCHES_MAX <= BATCHES_UNDER_WAY_MAX && ENCODING_BATCHES_MAX <= JOBS_UNDER_WAY_MAX);
    assert!(BATCH_BYTES_MIN < BATCH_BYTES_MAX as u64);
};

/// Most bytes that the hypervisor parser may leave unconsumed for the caller to put in front of the next buffer.
/// The longest record that it wants whole is a RAM record with its page (`8 + 1 + 255 + 4096` bytes).
pub const CARRY_BYTES_MAX: usize = 2 * PAGE_BYTES;

/// Most RAM blocks that the parser tells apart on one connection. QEMU has a few tens; past this the connection
/// is carried as opaque bytes.
pub const RAM_BLOCKS_MAX: usize = 1024;

/// Most bytes of a RAM block's name: QEMU sends its length in one byte.
pub const RAM_BLOCK_NAME_BYTES_MAX: usize = 255;

/// Most bytes of a machine type's name; QEMU's longest has about 30.
pub const MACHINE_NAME_BYTES_MAX: usize = 255;

/// Most capabilities that a stream's configuration section may list; QEMU 10 has 25.
pub const CAPABILITIES_MAX: u32 = 256;

/// Pages in a full multifd packet: QEMU's `MULTIFD_PACKET_SIZE` (512 KiB) in pages.
pub const MULTIFD_PACKET_PAGES: usize = 128;

/// Bytes that come before the pages of a multifd packet: the fixed part and one offset a page.
pub const MULTIFD_PACKET_HEADER_BYTES: usize = 320 + 8 * MULTIFD_PACKET_PAGES;

const _: () = assert!(8 + 1 + RAM_BLOCK_NAME_BYTES_MAX + PAGE_BYTES < CARRY_BYTES_MAX);
const _: () = assert!(MULTIFD_PACKET_HEADER_BYTES < CARRY_BYTES_MAX);
const _: () = assert!(1 + 4 + MACHINE_NAME_BYTES_MAX < CARRY_BYTES_MAX);
const _: () = assert!(CARRY_BYTES_MAX < BATCH_BYTES_MAX);
const _: () = assert!(RAM_BLOCKS_MAX <= u16::MAX as usize + 1);

// ---- Page codec ------------------------------------------------------------------------------------------

/// Most pages in one batch, hence most bodies in one lane's part of it.
pub const BATCH_PAGES_MAX: usize = BATCH_LEN_MAX / PAGE_BYTES;

/// Largest zstd window, as a power of two: what an encoder asks for and what a decoder admits. A block is at most
/// a batch, so a wider window would find nothing and only cost memory.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 20;

/// Weakest zstd level that a caller may ask for; below it lz4 is faster and as strong.
pub const ZSTD_LEVEL_MIN: i32 = -5;

/// zstd's level unless a caller says otherwise.
pub const ZSTD_LEVEL_DEFAULT: i32 = 3;

/// Strongest zstd level that a caller may ask for: zstd's own. From 20 on they only widen the window, which
/// [`ZSTD_WINDOW_LOG_MAX`] holds, so they cost no more memory than 19 does.
pub const ZSTD_LEVEL_MAX: i32 = 22;

/// Most memory of a compressor, at any level: its tables are as large as a batch makes them.
pub const ZSTD_COMPRESSOR_BYTES_MAX: usize = 24 * 1024 * 1024;

// ---- What lanes remember -----------------------------------------------------------------------------------

/// What each side of a session may spend on remembering, unless its caller says otherwise: the pages that a busy guest of a few
/// gibibytes changes between two passes, and a window of 64 MiB on a single lane.
pub const MEMORY_BYTES_DEFAULT: u64 = 256 * 1024 * 1024;

/// Most that a session may ask for.
pub const MEMORY_BYTES_MAX: u64 = 1 << 40;

/// What a remembered page costs: itself, and its entries in tables that double as they grow.
pub const MEMORY_PAGE_BYTES: u64 = PAGE_BYTES as u64 + 96;

/// A lane with a smaller share remembers pages only: half of it would go into the window's tables.
pub const MEMORY_WINDOW_LANE_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// Smallest and largest window, as powers of two: a quarter of the least share, and what zstd itself decodes without being asked.
pub const WINDOW_LOG_MIN: u32 = 22;
/// The largest.
pub const WINDOW_LOG_MAX: u32 = 27;

/// What zstd takes beside its window and the table of long matches, at any level and on either side.
pub const WINDOW_TABLES_BYTES: u64 = 6 * 1024 * 1024;

/// Weakest zstd level that uses a lane's window. Looking for long matches halves the speed of a weaker one, and what such a level is
/// asked for is speed: versions of a page are found by comparing them all the same.
pub const WINDOW_LEVEL_MIN: i32 = 2;

/// Parts in a row that ask for another level before a window is given up for it.
pub const WINDOW_LEVEL_PATIENCE: u32 = 32;

/// Most decoded bytes of a part for each of its pages: the page, its number, its kind.
pub const PART_PAGE_BYTES_MAX: usize = PAGE_BYTES + 32;

/// Most decoded bytes of a part.
pub const PART_BYTES_MAX: usize = BATCH_PAGES_MAX * PART_PAGE_BYTES_MAX;

// ---- Content that the far side has -----------------------------------------------------------------------

/// What a page in a content store costs: itself, and its entries in tables that double as they grow.
pub const CONTENT_PAGE_BYTES: u64 = PAGE_BYTES as u64 + 128;

/// Most pages that a sender keeps track of for one store: 16 MiB of fingerprints, for 4 GiB of content.
pub const KNOWN_PAGES_MAX: u64 = 1 << 20;

/// Most stores of one tenant that a sender keeps track of: shards of a few far gateways. The one that was met first is forgotten.
pub const KNOWN_STORES_MAX: usize = 8;

/// References that may fail before their share counts: a store that was emptied is noticed by its misses.
pub const REPAIRS_FREE: u64 = 1024;

/// Of all references, one in this many may fail. A repair costs a round trip, which a page that is compressed does not.
pub const REPAIRS_SHARE: u64 = 16;

const _: () = assert!(PART_BYTES_MAX + 256 <= FRAME_PAYLOAD_MAX, "a part that does not shrink is a frame");
const _: () = assert!(1 << WINDOW_LOG_MIN == MEMORY_WINDOW_LANE_BYTES_MIN / 4);
const _: () = assert!(MEMORY_WINDOW_LANE_BYTES_MIN > (1 << WINDOW_LOG_MIN) * 9 / 8 + WINDOW_TABLES_BYTES);

const _: () = assert!(BATCH_LEN_MAX <= 1 << ZSTD_WINDOW_LOG_MAX, "a window covers a batch");
const _: () = assert!(BATCH_PAGES_MAX <= u16::MAX as usize, "a part counts its pages in 16 bits");
const _: () = assert!(BATCH_LEN_MAX <= i32::MAX as usize / 2, "lz4 counts bytes in an int");

// ---- Probes ----------------------------------------------------------------------------------------------

/// Most bytes of a probe's datagram: what fits an Ethernet frame of 1500 bytes over IPv4. A larger one would be fragmented
/// on most paths, and fragments are not answered.
pub const PROBE_BYTES_MAX: usize = 1472;

/// Places of the responder's table of peers. Four for each peer, so that its reach is hardly ever full.
pub const PROBE_PEER_SLOTS: usize = 1024;

/// Most peers that a responder answers: as many as a gateway has streams' secrets of.
pub const PROBE_PEERS_MAX: usize = 256;

/// Places that a tag may stand at. The kernel looks at no more for each probe, known or not; in a table that is a quarter full
/// runs of taken places are shorter.
pub const PROBE_PEER_REACH: usize = 16;

/// Sequence numbers below the highest that are told apart from replays; a word of 64 is kept free. More than a train, so that
/// reordering within one is no replay.
pub const PROBE_REPLAY_BITS: usize = 1024;

/// Time that one probe of a peer is worth, in nanoseconds: 10,000 a second on average. A prober that keeps to 1 % of a path
/// comes to that at 12 Gbit/s.
pub const PROBE_COST_NS: u64 = 100_000;

/// How far ahead of that a peer may be, in nanoseconds: two of the longest trains at once.
pub const PROBE_BURST_NS: u64 = 204_800_000;

const _: () = assert!(PROBE_PEERS_MAX * 4 <= PROBE_PEER_SLOTS && PROBE_REPLAY_BITS.is_multiple_of(64));
const _: () = assert!(PROBE_BYTES_MAX + 8 + 20 <= 1500);

/// How often a path is asked for its round trip. Fifty a second tell a loss of 0.1 % from none within a minute, and cost a path
/// of 50 Mbit/s a thousandth.
pub const SINGLE_INTERVAL: Duration = Duration::from_millis(20);

/// After so many answers to evenly spaced probes some follow up: twice a second.
pub const FOLLOW_UPS_EVERY: u32 = 25;

/// How many follow up, one after another, each as soon as the one before is answered. They make single probes a fifth more.
/// The first still finds the far side's processor as it was; those after it find all of them awake.
pub const FOLLOW_UPS: u32 = 5;

/// Round trips of follow-ups that are remembered: those of the window.
pub const FOLLOW_UP_SAMPLES_MAX: usize = 768;

/// How far back estimates reach: long enough for rare losses, short enough to follow a path that changed.
pub const PROBE_WINDOW: Duration = Duration::from_secs(60);

/// Single probes that are remembered: those of the window, and some.
pub const PROBE_SAMPLES_MAX: usize = 4096;

/// How long an answer may take. Twice the longest round trip of a path by satellite, queues included.
pub const PROBE_ANSWER_WAIT: Duration = Duration::from_secs(2);

/// How long the answers to a train may take after its last probe: one such round trip. The next train waits for them.
pub const TRAIN_ANSWER_WAIT: Duration = Duration::from_secs(1);

/// How long a train is to take on the path, so that what disturbs a receiver for a fraction of a millisecond does not matter.
pub const TRAIN_SPAN: Duration = Duration::from_millis(8);

/// Fewest probes of a train: below it a single late one is the result.
pub const TRAIN_PROBES_MIN: u16 = 32;

/// Most probes of a train: 6 ms at 1 Gbit/s. Longer ones fill queues that others need.
pub const TRAIN_PROBES_MAX: u16 = 512;

/// Probes of trains a second, on average: about half of the hundredth of a core that probing may take.
pub const TRAIN_PROBES_A_SECOND: f64 = 250.0;

/// Results of trains that are remembered: those of the window at two a second.
pub const TRAIN_RESULTS_MAX: usize = 128;

const _: () = assert!((TRAIN_PROBES_MAX as usize) < PROBE_REPLAY_BITS - 64);
const _: () = assert!(2 * TRAIN_PROBES_MAX as u64 * PROBE_COST_NS < PROBE_BURST_NS);
const _: () = assert!(PROBE_WINDOW.as_millis() / SINGLE_INTERVAL.as_millis() < PROBE_SAMPLES_MAX as u128);
const _: () = assert!(
    (PROBE_WINDOW.as_millis() / SINGLE_INTERVAL.as_millis()) * FOLLOW_UPS as u128
        / (FOLLOW_UPS_EVERY as u128)
        < FOLLOW_UP_SAMPLES_MAX as u128
);

// ---- Mode --------------------------------------------------------------------------------------------------

/// How long the first decision of a path's mode waits for what is not measured yet. Two seconds are promised.
pub const MODE_FIRST_DECISION: Duration = Duration::from_millis(1800);

/// How far beyond a threshold a path has to be to change sides, as a share of it: more than measuring strays by.
pub const MODE_MARGIN: f64 = 0.2;

/// How long a mode stays after it changed, unless the path changes sharply.
pub const MODE_REST: Duration = Duration::from_secs(300);

/// By what factor round trip or bandwidth change sharply. A path that strays from a threshold by less than a factor of two
/// to either side does not.
pub const MODE_SHARP: f64 = 4.0;

const _: () = assert!(MODE_SHARP >= 4.0 && MODE_MARGIN < 1.0);
