//! Every bound of the lab in one place.

use std::time::Duration;

/// Frames inside one direction of a link, waiting or under way: 3 Gbit/s for 400 ms in whole frames. More are dropped,
/// and counted as dropped by the queue.
pub const FRAMES_MAX: usize = 100_000;
/// Memory for the frames inside one direction; each takes a whole frame's, however small it is. So jumbo frames are
/// fewer than [`FRAMES_MAX`].
pub const FRAME_MEMORY_BYTES: usize = 160 << 20;
/// Frame buffers that one direction keeps for reuse: what 2 Gbit/s need for 50 ms. More go back to the allocator, so
/// that a lab that was busy once does not hold the memory for ever.
pub const SPARE_BUFFERS_MAX: usize = 8_192;
/// Frames read or written before a direction looks at the other half of its work.
pub const BURST_FRAMES: usize = 64;
/// How long a direction that is busy rests between two passes, and so by how much a frame may be late: a fifth of what
/// a round trip may be off by. At 1 Gbit/s eight whole frames come in this time; to wake for each costs more than the
/// frame itself.
pub const REST: Duration = Duration::from_micros(100);
/// A direction is busy if it had something to do again within this time; a lone frame is not kept waiting.
pub const BUSY: Duration = Duration::from_micros(400);
/// Frames that a TAP device holds until they are read: 8 ms of 64-byte frames at 1 Gbit/s, 50 ms of whole ones. The
/// kernel drops those beyond; they are counted as overrun.
pub const DEVICE_QUEUE_FRAMES: u32 = 4_096;

/// Least room of a queue that nobody sized: forty whole frames, what a burst of a sender needs at any rate.
pub const QUEUE_BYTES_MIN: u64 = 64_000;
/// Least time that a queue that nobody sized can hold: switches have about so much.
pub const QUEUE_MS_MIN: f64 = 10.0;

/// Longest delay that can be asked for, one way.
pub const DELAY_MS_MAX: f64 = 10_000.0;
/// Highest rate that can be asked for; far beyond what is reached, and small enough that a frame takes a nanosecond.
pub const RATE_MBIT_MAX: f64 = 400_000.0;
/// Lowest rate that can be asked for: a whole frame then takes 12 s.
pub const RATE_MBIT_MIN: f64 = 0.001;
/// Largest queue that can be asked for; [`FRAMES_MAX`] holds all the same.
pub const QUEUE_KB_MAX: f64 = 1_000_000.0;
/// Least frames' payload of a link: IPv6 asks for it.
pub const MTU_MIN: u16 = 1280;
/// Most: jumbo frames.
pub const MTU_MAX: u16 = 9000;

/// Sites and links of one topology: addresses have a byte for each.
pub const SITES_MAX: usize = 16;
/// Links of one topology.
pub const LINKS_MAX: usize = 32;
/// Characters of a site's or link's name: a device's name has 15, a namespace's is cut by nobody.
pub const NAME_CHARS_MAX: usize = 12;
/// The largest topology file that is read.
pub const TOPOLOGY_BYTES_MAX: u64 = 1 << 20;

/// One line of a control socket.
pub const LINE_BYTES_MAX: u64 = 1 << 20;
/// Clients of one control socket at once; further ones wait.
pub const CLIENTS_MAX: usize = 16;
/// A client that says nothing for so long makes room for others.
pub const CLIENT_SILENCE: Duration = Duration::from_secs(24 * 3600);
/// For an answer on a control socket.
pub const ANSWER_WAIT: Duration = Duration::from_secs(20);
/// For a lab to come up: a few dozen runs of `ip` on a machine that is busy.
pub const START_WAIT: Duration = Duration::from_secs(60);
/// For a lab to remove itself after it was told to.
pub const STOP_WAIT: Duration = Duration::from_secs(20);
/// Between two looks at something that cannot be waited for.
pub const POLL: Duration = Duration::from_millis(5);

/// Lateness beyond this is counted as this much.
pub const LATENESS_MAX: Duration = Duration::from_secs(60);

/// Packets over which a loss is measured.
pub const CHECK_PACKETS: u64 = 1_000_000;
/// Of these so many under way: half of what a device holds.
pub const CHECK_WINDOW_PACKETS: u64 = DEVICE_QUEUE_FRAMES as u64 / 2;
/// Room of a socket that must lose nothing: all that a link holds for a few hundred milliseconds.
pub const CHECK_SOCKET_BYTES: usize = 64 << 20;
/// Nothing more comes after so long a silence; the longest round trip that is checked is a fifth of it.
pub const CHECK_SILENCE: Duration = Duration::from_secs(1);
/// Lateness, as the 99th percentile, that is no fault on any link.
pub const LATENESS_MS_ALLOWED: f64 = 2.0;

const _: () =
    assert!(FRAMES_MAX * (1500 + 18) <= FRAME_MEMORY_BYTES, "frames of an MTU of 1500 find their memory");
