//! Every bound of the harness in one place. Waits end a run that hangs; they are no expectation.

use std::time::Duration;

/// Most repetitions that may be asked for: a day of the shortest runs.
pub const REPETITIONS_MAX: u32 = 1000;
/// Longest time limit of a scenario, s.
pub const TIME_LIMIT_S_MAX: u64 = 3600;
/// Largest guest that is started, MiB; a typing mistake must not take the machine down.
pub const MEMORY_MIB_MAX: u32 = 64 << 10;
/// A void run is tried again so often: what made it void may have been the machine's other work.
pub const VOID_RETRIES: u32 = 1;
/// Void runs that are tried again in one scenario: a machine that is too slow for it will not become faster.
pub const VOID_RETRIES_PER_SCENARIO: u32 = 3;
/// A run is void when the guest did less than this share of the work it was set.
pub const WORK_SHARE_MIN: f64 = 0.9;
/// A run is void when the lab was later than this at one frame of a hundred, ms ...
pub const LATENESS_P99_MS_MAX: f64 = 2.0;
/// ... or than this share of the round-trip time, where that is more.
pub const LATENESS_SHARE_MAX: f64 = 0.05;
/// A guest's life at its place before it is moved: heartbeats enough to know their interval, and work at its rate.
pub const BEFORE_MOVE: Duration = Duration::from_millis(1500);
/// How often counters are looked at during a run.
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);
/// Points of throughput kept of one run; at the end of long ones fewer are kept, each of a longer time.
pub const SAMPLES_MAX: usize = 2048;
/// For a connection over a link without load: many round trips of the longest one.
pub const CONNECT_WAIT: Duration = Duration::from_secs(20);
/// For a relay or a server to listen.
pub const LISTEN_WAIT: Duration = Duration::from_secs(20);
/// For something that was told to end.
pub const END_WAIT: Duration = Duration::from_secs(20);
/// For novactl to say what came of a migration, after its own time limit has passed.
pub const REPORT_WAIT: Duration = Duration::from_secs(60);
/// Bytes that socat moves with one system call: what an operator who wants speed would ask for.
pub const SOCAT_BUFFER_BYTES: u32 = 1 << 20;
/// How long iperf3 fills the link, after a second that does not count.
pub const IPERF3_TIME: Duration = Duration::from_secs(5);
/// Connections of iperf3: enough that no single one's congestion control is what is measured.
pub const IPERF3_STREAMS: u32 = 16;
/// Bytes read and written at a time by a stream's own ends.
pub const STREAM_BUFFER_BYTES: usize = 1 << 20;
/// How long a cut by ctrl-C may take to put things away before the process ends all the same.
pub const INTERRUPT_WAIT: Duration = Duration::from_secs(10);
