//! Every bound of the benchmark in one place. Waits end a run that hangs; they are no expectation.

use std::time::Duration;

/// Bytes that writers and readers move with one system call: what the relays that we compare with use as well.
pub(crate) const BUFFER_BYTES: usize = 1 << 20;
/// Random bytes generated once and written again and again: far more than any codec here looks back over (a batch,
/// 256 KiB), and more than processor caches hold, so that all contenders read it from memory.
pub(crate) const RANDOM_BYTES: usize = 64 << 20;
/// Of each buffer read, so many bytes are compared with what was written: enough to notice bytes out of place, too
/// few to cost time. Gateways compare everything by digest.
pub(crate) const COMPARED_BYTES: usize = 64;
/// For the other side to connect, and for any progress of a transfer.
pub(crate) const PROGRESS_WAIT: Duration = Duration::from_secs(60);
/// For a session to end after its last byte.
pub(crate) const SESSION_END_WAIT: Duration = Duration::from_secs(20);
/// Between the end of one contender and the start of the next: whatever still runs for it has ended by then.
pub(crate) const SETTLE: Duration = Duration::from_millis(300);
/// A guest's life at its new place before the next move: heartbeats enough to know their interval again.
pub(crate) const BETWEEN_MOVES: Duration = Duration::from_millis(1500);
/// How often resident memory is looked at.
pub(crate) const MEMORY_LOOK: Duration = Duration::from_millis(250);
/// What is promised of a gateway's resident memory.
pub(crate) const RESIDENT_BYTES_GOAL: u64 = 300 << 20;
/// How fast the slow destinations read, bytes a second.
pub(crate) const SLOW_BYTES_PER_S: u64 = 1_000_000;
/// Sessions with slow destinations at once.
pub(crate) const SLOW_SESSIONS: usize = 4;
/// Rate of the lab's link over which TLS is measured, Mbit/s: what a processor's time is promised for.
pub(crate) const TLS_LINK_MBIT: f64 = 1000.0;
/// Its delay, one way, in milliseconds: a metropolitan path.
pub(crate) const TLS_LINK_DELAY_MS: f64 = 1.0;
/// Rate of the link over which sessions are opened, Mbit/s: far more than a handshake needs.
pub(crate) const OPENING_LINK_MBIT: f64 = 500.0;
/// Its delay, one way, in milliseconds: as in the scenarios, so that round trips are all that counts.
pub(crate) const OPENING_LINK_DELAY_MS: f64 = 25.0;
/// Rate of the link over which pauses are compared, Mbit/s.
pub(crate) const PAUSE_LINK_MBIT: f64 = 1000.0;
/// Its delay, one way, in milliseconds.
pub(crate) const PAUSE_LINK_DELAY_MS: f64 = 10.0;
/// Connections of strangers a second that a transfer is promised to bear.
pub(crate) const FLOOD_PER_S: u32 = 1000;
/// Of them, so many stay open at once: more than a gateway waits for.
pub(crate) const FLOOD_HELD_MAX: usize = 256;
/// Most rounds that may be asked for.
pub(crate) const ROUNDS_MAX: u32 = 1000;
/// Bytes of a guest page.
pub(crate) const PAGE_BYTES: usize = 4096;
/// Most rounds with dear codec work: each takes tens of seconds.
pub(crate) const SHARDS_ROUNDS_MAX: u32 = 5;
/// Sessions whose destinations never read, and connections of each.
pub(crate) const STUCK_SESSIONS: usize = 4;
/// What QEMU opens with as many channels, less one.
pub(crate) const STUCK_CONNECTIONS: usize = 8;
/// Gateways that took nothing more of stuck sessions for so long take no more.
pub(crate) const STUCK_QUIET: Duration = Duration::from_millis(500);
/// Most rounds of the choice of the codec: on a virtual clock they differ little.
pub(crate) const CHOICE_ROUNDS_MAX: u32 = 3;
/// What a stream's transport queues in the gateway.
pub(crate) const TRANSPORT_QUEUE_BYTES: f64 = 512.0 * 1024.0;
/// Most steps of a replay: a gigabyte in the smallest batches takes far fewer.
pub(crate) const REPLAY_STEPS_MAX: u64 = 20_000_000;
/// What QEMU may send where control processes are killed, bytes a second: a small guest takes five seconds then.
pub(crate) const GUEST_KILL_RATE: u64 = 20_000_000;
/// Latest moment of the kill, after bytes flow: the guest is on its way still.
pub(crate) const GUEST_KILL_AFTER_MAX: Duration = Duration::from_millis(2500);
/// Longest time that it is away then.
pub(crate) const GUEST_KILL_BACK_MAX: Duration = Duration::from_millis(2000);
/// What is promised of an idle control process's resident memory.
pub(crate) const CONTROL_BYTES_GOAL: u64 = 120 << 20;
/// How long it is watched while it is idle: a hundredth of a core is thirty ticks of its clock then.
pub(crate) const CONTROL_IDLE: Duration = Duration::from_secs(30);
/// Callers that ask it at once.
pub(crate) const CALL_CONNECTIONS: usize = 8;
/// How long they ask.
pub(crate) const CALL_TIME: Duration = Duration::from_secs(5);
/// Times that progress is waited for.
pub(crate) const PROGRESS_SAMPLES: u32 = 40;
/// Trials of a loss side by side: what two processors carry with ease, each a pair of gateways that sends 120 probes a second.
pub(crate) const LOSS_TRIALS_AT_ONCE: usize = 20;
/// Later than this, one frame in a hundred, links are not what was asked for: the machine is too busy.
pub(crate) const LOSS_LATENESS_MAX_MS: f64 = 5.0;

const _: () = assert!(LOSS_TRIALS_AT_ONCE <= novacron_lab::limits::LINKS_MAX);
