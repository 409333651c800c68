//! Every bound of the gateway process that is not the protocol's.

use novacron_control_api::limits as asked;
use novacron_protocol::limits as protocol;
use std::time::Duration;

/// Most sessions at once, expected ones included. A gateway may be told fewer (`--sessions-max`).
pub(crate) const SESSIONS_MAX: usize = 256;

/// Most sessions of one tenant unless `--tenant-sessions-max` says otherwise: half, so that none keeps all others out.
pub(crate) const TENANT_SESSIONS_MAX: usize = SESSIONS_MAX / 2;

/// Most sessions of one hypervisors' host unless `--host-sessions-max` says otherwise. All that meet over unix sockets are of
/// one host, this one.
pub(crate) const HOST_SESSIONS_MAX: usize = SESSIONS_MAX / 2;

/// Most connections that all sessions together may ask for: each is promised [`protocol::PROMISE_BYTES_MIN`] whatever else is.
pub(crate) const CONNECTIONS_MAX: usize = 4096;

/// Most clients of the control socket at once; each is a thread that sleeps.
pub(crate) const CONTROL_CLIENTS_MAX: usize = 64;

/// Most sessions that one control client watches at once.
pub(crate) const WATCHES_MAX: usize = 64;

/// How long a client of the control socket may take to accept an answer.
pub(crate) const CONTROL_WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a shard tells the registry how its sessions stand: progress is visible within this and a watcher's
/// own interval.
pub(crate) const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);

/// Most commands that wait for a shard.
pub(crate) const SHARD_COMMANDS_MAX: usize = 1024;

/// Most messages with codec work that wait for a shard: as many as all sessions may have under way in both directions, if
/// each message held a single job and all were for one shard. So none is ever refused.
pub(crate) const CODEC_ERRANDS_MAX: usize = 2 * SESSIONS_MAX * protocol::JOBS_UNDER_WAY_MAX;

/// Most records that wait to be written to the records file; more are dropped and counted.
pub(crate) const RECORDS_PENDING_MAX: usize = 1024;

/// Most accepted streams whose handshake is not complete; for one more, one of those makes room (`shard/admission.rs`).
pub(crate) const HANDSHAKES_MAX: usize = 64;

/// Addresses whose last turn to begin a handshake is remembered: enough for a flood from as many to get no more turns than one
/// from a single address.
pub(crate) const ORIGINS_REMEMBERED_MAX: usize = 4 * HANDSHAKES_MAX;

/// Lines about refused strangers a second, and how many at once: a flood is to fill counters, and no disks.
pub(crate) const REFUSAL_LINES: (u32, u32) = (10, 50);

/// How long a stream's handshake may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest file of the identity folder, in bytes: some thousand authorities, revoked certificates or rules.
pub(crate) const IDENTITY_FILE_BYTES_MAX: u64 = 4 << 20;

/// TLS handshakes of strangers that begin a second, and how many at once. Each costs about a quarter of a millisecond of the
/// first shard before anybody has shown who it is; a session needs one a stream. Connections that say nothing take none.
pub(crate) const STRANGER_HANDSHAKES: (u32, u32) = (100, 128);

/// How long the streams of a peer that is not believed any more stay open, so that it hears that its sessions have ended.
pub(crate) const NOT_BELIEVED_WAIT: Duration = Duration::from_millis(200);

/// How early the end of the gateway's own certificate is warned about.
pub(crate) const EXPIRY_WARNING: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often a warning that still holds is repeated.
pub(crate) const EXPIRY_REPEAT: Duration = Duration::from_secs(3600);

/// How long dialling a peer or a hypervisor may take.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// First and longest wait between two attempts to reach a peer, before each is made to differ by up to half. The longest leaves
/// two attempts within the time that a stopped guest may wait ([`protocol::OUTAGE_SWITCHOVER`]).
pub(crate) const REDIAL_WAIT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));

/// Most attempts to dial one peer at once: enough for a few hundred streams within seconds, and few enough for the far side's
/// [`HANDSHAKES_MAX`].
pub(crate) const DIALS_MAX: usize = 16;

/// Rounds of attempts that end in the TLS handshake without a word before that is taken for the peer's answer. With
/// [`REDIAL_WAIT`] between them they last about seven seconds, of the ten that an opening may take. Whoever floods a gateway with
/// first words from behind this gateway's own address, ten times as many as it may begin, leaves each attempt a chance of one in
/// ten; of a thousand openings one then finds all four attempts of every round turned away.
pub(crate) const BROKEN_HANDSHAKES_MAX: u32 = 16;

/// How often it is looked whether a peer has as many streams as help.
pub(crate) const COUNT_LOOK: Duration = Duration::from_millis(50);

/// Most streams of one peer at one shard.
pub(crate) const PEER_STREAMS_MAX: usize = 512;

/// Most accepted streams at one shard whose peers have no session: what a stranger may hold who introduces itself and says no
/// more. Far fewer than there may be peers, so that strangers alone never keep a peer out.
pub(crate) const STRANGER_STREAMS_MAX: usize = PEERS_MAX / 4;

/// Most peers at one shard.
pub(crate) const PEERS_MAX: usize = 1024;

/// How long streams to a peer stay open once no session uses them.
pub(crate) const PEER_IDLE: Duration = Duration::from_secs(10);

/// How long a failed session's last word may take to leave before its streams forget it.
pub(crate) const LAST_WORD_WAIT: Duration = Duration::from_secs(2);

/// How long sent bytes may stay unacknowledged by the peer's kernel before their stream counts as dead and they
/// leave on another.
pub(crate) const STREAM_SILENCE_MAX: Duration = Duration::from_secs(10);

/// Bytes that one stream's transport queues before it takes no more frames, where its path is fast: what fills the pipe is the
/// kernel's buffer; what waits here cannot move to another stream. Slower paths get less (`shard/load.rs`).
pub(crate) const STREAM_QUEUE_BYTES: usize = 512 * 1024;

/// The least that a stream may queue, here and unsent in the kernel: a few segments, so that it is busy while it is looked at.
pub(crate) const STREAM_QUEUE_BYTES_MIN: usize = 16 * 1024;

/// Most bytes that wait unsent in the kernel where a stream's rate bounds them: what Linux lets a socket buffer (`tcp_wmem`).
pub(crate) const UNSENT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How much sooner another stream must deliver a frame for it to be left to it: less is not worth waking it.
pub(crate) const SOONER_MIN: Duration = Duration::from_millis(2);

/// A stream that needs so many times as long for what it carries as another would for a usual frame, and a round trip and
/// [`CRAWLS_MIN`], is not waited for: its frames leave again elsewhere.
pub(crate) const CRAWLS: u32 = 3;

/// And so much longer: on a short path all of that is less than a busy machine is late by.
pub(crate) const CRAWLS_MIN: Duration = Duration::from_millis(50);

/// How long a stream that could carry nothing of what waited is passed over.
pub(crate) const FRUITLESS_WAIT: Duration = Duration::from_millis(10);

const _: () = assert!(STREAM_QUEUE_BYTES_MIN < STREAM_QUEUE_BYTES);
const _: () = assert!(DIALS_MAX * 2 <= HANDSHAKES_MAX && protocol::STREAMS_MAX <= PEER_STREAMS_MAX);
const _: () = assert!(REDIAL_WAIT.1.as_millis() * 3 <= protocol::OUTAGE_SWITCHOVER.as_millis());
const _: () = assert!(REDIAL_WAIT.0.as_millis() < REDIAL_WAIT.1.as_millis());

/// Memory for frames of all shards together, for sending and the same again for receiving. Sessions are held far
/// below it by their windows; this is what holds when a peer ignores them.
pub(crate) const POOL_BYTES: usize = 192 * 1024 * 1024;

/// That share of it is kept beside it of the memory that frames and batches were made in, for the next ones: more than a path of
/// 1 Gbit/s and 100 ms has under way once, and little enough that it need not be asked for back.
pub(crate) const SPARE_SHARE: usize = 16;

/// Of it, what all sessions together promise to peers as credit; the rest is for frames on their way in. Beyond it each
/// connection has [`protocol::PROMISE_BYTES_MIN`], in memory of its own.
pub(crate) const PROMISED_BYTES: usize = POOL_BYTES / 3 * 2;

/// What all sessions together spend on remembering what they carried, unless `--delta-memory` says otherwise: three sessions find
/// most of what they would take alone.
pub(crate) const DELTA_MEMORY_BYTES: u64 = 1024 * 1024 * 1024;

/// What all content stores together spend on pages that were received, unless `--content-memory` says otherwise: the first tenant and
/// peer find 128 MiB, the page caches of some guests.
pub(crate) const CONTENT_MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// Most content stores of a shard, and tenants whose peers' stores are kept track of. Who comes after them does without.
pub(crate) const CONTENT_STORES_MAX: usize = 64;

/// Of the memory for sending, one session may fill one part in this many of what is left with frames that its peer has not
/// verified.
pub(crate) const SEND_SHARE: u64 = 2;

/// What a session may have unverified however little is left: a batch on its way and one that is made.
pub(crate) const SEND_BYTES_MIN: u64 = 2 * protocol::FRAME_PAYLOAD_MAX as u64;

/// How soon a session that found its share spent looks again.
pub(crate) const SHARE_LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Frames received are moved out of their pool while this much of it is used, as one in so many: who does not read then
/// holds memory of its own session, and streams go on receiving for the others.
pub(crate) const RECEIVE_POOL_BUSY: usize = 2;

/// Most paths that one gateway probes: its thread sends and sorts for each, and a hundredth of a core is what it may take.
pub(crate) const PATHS_MAX: usize = 64;

/// Mode changes of a path that are remembered.
pub(crate) const MODE_CHANGES_MAX: usize = 64;

/// Samples of a path that are remembered: an hour, one a second.
pub(crate) const PATH_SAMPLES_MAX: usize = 3600;

/// Datagrams that are sent before answers are read: fewer than a socket's buffer holds answers to.
pub(crate) const PROBE_SENDS_MAX: usize = 32;

/// Longest time between looks at epochs, modes and whether to end.
pub(crate) const PROBE_LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How long the thread that answers probes waits for one before it looks whether there are new peers: less than the round trips
/// that their first probes are to be measured by.
pub(crate) const ANSWERS_LOOK_INTERVAL: Duration = Duration::from_millis(40);

/// From agreeing on a secret to the first probe under it: the peer's thread has looked by then.
pub(crate) const PAIR_FIRST_PROBE: Duration = Duration::from_millis(120);

/// How old the secret of a pair of gateways may become before a new stream replaces it. Its keys change every hour in any case.
pub(crate) const PAIR_SECRET_AGE: Duration = Duration::from_secs(3600);

/// How long an offer waits for its answer, and a peer may be silent, before another stream says a new half.
pub(crate) const PAIR_CLAIM: Duration = Duration::from_secs(6);

/// How long probes under a replaced secret are answered: what was under way has arrived by then.
pub(crate) const PAIR_OLD_SECRET: Duration = Duration::from_secs(10);

/// After so long without an answer, a peer that is known by its streams is not probed any more; its next stream says who it is.
pub(crate) const PATH_FORGOTTEN: Duration = Duration::from_secs(600);

const _: () = {
    assert!(TENANT_SESSIONS_MAX >= 64 && HOST_SESSIONS_MAX >= 64);
    assert!(
        PROMISED_BYTES as u64 >= 2 * protocol::RECEIVE_WINDOW_BYTES,
        "an idle gateway grants a whole window"
    );
    assert!(SESSIONS_MAX as u64 * SEND_BYTES_MIN <= 2 * POOL_BYTES as u64);
};

// What a caller may ask for is exactly what the protocol can do; neither of the two knows the other.
const _: () = {
    assert!(asked::CONNECTIONS_MAX == protocol::CONNECTIONS_MAX as u32);
    assert!(asked::LANES_MAX == protocol::LANES_MAX as u32);
    assert!(asked::STREAMS_MAX as usize == protocol::STREAMS_MAX);
    assert!(asked::LEVEL_MAX as i32 == protocol::ZSTD_LEVEL_MAX);
    assert!(PEER_STREAMS_MAX >= protocol::STREAMS_MAX);
};

#[cfg(test)]
mod tests {
    use novacron_control_api::SessionOptions;
    use novacron_protocol::limits as protocol;
    use novacron_protocol::session::{Role, SessionConfig, Token};
    use std::time::Duration;

    /// A caller that says nothing gets what the protocol would have taken by itself.
    #[test]
    fn defaults_of_the_api_are_those_of_the_protocol() {
        let asked = SessionOptions::default();
        let taken = SessionConfig::new(Role::Source, 1, Token::new([1; 32]));
        assert_eq!((asked.lanes, asked.connections_max), (taken.lanes.into(), taken.connections_max.into()));
        assert_eq!(asked.digest, taken.digest);
        assert_eq!(asked.level as i32, protocol::ZSTD_LEVEL_DEFAULT);
        assert_eq!(Duration::from_millis(asked.outage_ms), taken.outage);
        assert_eq!(Duration::from_millis(asked.open_timeout_ms), taken.open_timeout);
        assert_eq!(asked.destination_may_start, taken.destination_may_start);
        assert!(asked.enable_delta && taken.memory_bytes > 0);
    }
}
