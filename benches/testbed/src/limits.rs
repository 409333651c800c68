//! Every bound of the testbed in one place. Waits are long because machines are shared and guests emulated: they end
//! a test that hangs, they are no expectation.

use std::time::Duration;

/// From launch to the guest's `READY`, filling its memory or reading its disk included: that takes 20 s on a quiet
/// machine and over a minute on a crowded one.
pub const BOOT_WAIT: Duration = Duration::from_secs(300);
/// For one sweep over a guest's memory.
pub const VERIFY_WAIT: Duration = Duration::from_secs(120);
/// For a short answer of the guest: sixteen that are emulated share two processors.
pub const COMMAND_WAIT: Duration = Duration::from_secs(60);
/// For a heartbeat of a guest that runs.
pub const BEAT_WAIT: Duration = Duration::from_secs(60);
/// For a process to open its socket.
pub const SOCKET_WAIT: Duration = Duration::from_secs(20);
/// For an answer on a QMP or a control socket.
pub const ANSWER_WAIT: Duration = Duration::from_secs(60);
/// For a migration that a test drives.
pub const MIGRATION_WAIT: Duration = Duration::from_secs(180);
/// For a process to end after it was told to, and for what ends with it.
pub const EXIT_WAIT: Duration = Duration::from_secs(45);
/// Between two looks at something that cannot be waited for.
pub const POLL: Duration = Duration::from_millis(2);

/// Heartbeats kept of one serial port: half an hour at 2 ms. The oldest go first.
pub const BEATS_MAX: usize = 1 << 20;
/// Other lines kept of one serial port. The oldest go first.
pub const LINES_MAX: usize = 4096;
/// The longest line taken from a serial port; the rest of it is dropped.
pub const SERIAL_LINE_BYTES_MAX: usize = 4096;
/// The longest line taken from a control socket.
pub const RPC_LINE_BYTES_MAX: u64 = 16 << 20;
/// How much of a log's end goes into an error message.
pub const LOG_TAIL_BYTES: u64 = 4096;
/// The largest frame's payload that a relay between gateways passes on; theirs are smaller.
pub const RELAY_FRAME_BYTES_MAX: usize = 4 << 20;
/// Read from a source at once while its stream is kept: as much as a unix socket holds.
pub const CAPTURE_BUFFER_BYTES: usize = 256 << 10;
/// How often a capture tells how far it is.
pub const CAPTURE_PROGRESS: Duration = Duration::from_millis(200);
