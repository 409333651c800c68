//! Every bound of the control process, in one place.

use std::time::Duration;

/// Time for what comes before components, as the owner's specification has it.
pub(crate) const PRE_INIT: Duration = Duration::from_secs(10);
/// Time for a phase of components, tries included.
pub(crate) const PHASE: Duration = Duration::from_secs(20);
/// Time for what comes after components.
pub(crate) const POST_INIT: Duration = Duration::from_secs(10);
/// Pauses before a component is tried again after a passing fault; there are as many tries more.
pub(crate) const RETRY_PAUSES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// How long one component may take to say how it is.
pub(crate) const CHECK_WAIT: Duration = Duration::from_secs(2);
/// How long what a component said is taken for true: probes of several watchers cost one look.
pub(crate) const HEALTH_KEPT: Duration = Duration::from_millis(500);
/// Longest checkpoint file that is read, in bytes: one start leaves a dozen lines.
pub(crate) const CHECKPOINT_BYTES_MAX: u64 = 64 << 10;

/// Time for a gateway that was started to answer.
pub(crate) const GATEWAY_UP: Duration = Duration::from_secs(10);
/// Between two looks for that answer.
pub(crate) const GATEWAY_LOOK: Duration = Duration::from_millis(20);
/// Time for any quick answer of the gateway.
pub(crate) const GATEWAY_ANSWER: Duration = Duration::from_secs(5);
/// Time beyond what a slow call itself allows.
pub(crate) const GATEWAY_MARGIN: Duration = Duration::from_secs(6);
/// Slow calls on the gateway at once: it serves 64 clients, and others want some of them.
pub(crate) const GATEWAY_SLOW_CALLS_MAX: usize = 32;
/// Pauses before a gateway that ended is started again; the last one repeats.
pub(crate) const RESTART_PAUSES: [Duration; 6] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];
/// A gateway that ran so long starts with the first pause again.
pub(crate) const RESTART_FORGIVEN: Duration = Duration::from_secs(60);
/// Between two looks at the gateway's sessions: half of what its progress may lag behind.
pub(crate) const SESSIONS_LOOK: Duration = Duration::from_millis(250);
/// Between two looks at the gateway itself.
pub(crate) const GATEWAY_INFO_LOOK: Duration = Duration::from_secs(1);
/// Records of ended sessions that are kept in memory; the gateway keeps 64.
pub(crate) const ENDED_KEPT: usize = 1024;

/// Between two records of a session whose state stays: what a crash of this process may lose of its progress, while the
/// gateway still has it.
pub(crate) const PROGRESS_RECORDED: Duration = Duration::from_secs(5);
/// Pause before sessions that could not be recorded are tried again.
pub(crate) const RECORD_AGAIN: Duration = Duration::from_secs(1);
/// Time for what is not recorded yet, when this process stops.
pub(crate) const RECORD_LAST: Duration = Duration::from_secs(2);
/// Between two samples of paths: thirty peers fill what is kept of samples in eleven days.
pub(crate) const PATHS_SAMPLED: Duration = Duration::from_secs(30);
/// Between two looks at paths for metrics: more often than anybody scrapes them.
pub(crate) const PATHS_MEASURED: Duration = Duration::from_secs(5);
/// Between two rounds of letting go of what is old.
pub(crate) const PRUNED: Duration = Duration::from_secs(3600);
/// How long a start waits for the audit log to be followed; a longer log is followed while the node works.
pub(crate) const VERIFY_AT_START: Duration = Duration::from_millis(1500);
/// Time for the database to say that it is there, within a component's time for its health.
pub(crate) const DATABASE_LOOK: Duration = Duration::from_secs(1);
/// Most items of a page of records, and of heads to look for.
pub(crate) const HISTORY_ITEMS_MAX: u32 = 500;
/// Longest answer with a page of records, in bytes: half of the longest line, for what frames it.
pub(crate) const HISTORY_ANSWER_BYTES_MAX: usize = novacron_control_api::limits::LINE_BYTES_MAX / 2;

/// Longest request on the control socket, in bytes: `session.open` with every field filled is 20 kB.
pub(crate) const REQUEST_BYTES_MAX: usize = 256 << 10;
/// Bytes that are read from a caller at once.
pub(crate) const READ_BYTES: usize = 4 << 10;
/// How long a caller may take to read an answer; then it is cut off, because what waits for it is memory.
pub(crate) const WRITE_WAIT: Duration = Duration::from_secs(5);
/// Sessions that one caller's connection may watch.
pub(crate) const WATCHES_MAX: usize = 64;
/// Events kept for a subscriber that is slow; what it misses beyond is counted, and told.
pub(crate) const EVENTS_QUEUED_MAX: usize = 1024;
/// Events kept for `events.recent`.
pub(crate) const EVENTS_KEPT: usize = 256;
/// Kinds that a subscription may name.
pub(crate) const KINDS_MAX: usize = 32;
/// Time for a TLS handshake of a remote caller.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes of remote callers at once: each is a signature, and who makes many is no caller yet.
pub(crate) const HANDSHAKES_MAX: usize = 64;
/// How long a call waits for others' keys to be looked up: a database that hangs must not gather all calls there.
pub(crate) const CLAIM_WAIT: Duration = Duration::from_secs(5);
/// Idempotency keys that are remembered as claimed for calls that were not begun; beyond it they stay taken for a day.
pub(crate) const UNBEGUN_KEPT: usize = 10_000;
/// Largest file of tokens that is read, in bytes: a thousand lines.
pub(crate) const TOKEN_FILE_BYTES_MAX: u64 = 128 << 10;
/// Shortest token, in bytes: 16 random bytes in hex are 32.
pub(crate) const TOKEN_BYTES_MIN: usize = 32;
/// Tokens of one name that are taken at once: the one to use, and those before it whose time has not come.
pub(crate) const TOKENS_OF_NAME_MAX: usize = 4;
/// Wrong tokens after which a connection ends.
pub(crate) const TOKEN_TRIES_MAX: u32 = 3;

/// Spans that wait for the collector; more are dropped: at half a kilobyte each, a megabyte.
pub(crate) const TRACES_QUEUED_MAX: usize = 2048;
/// Spans of one export.
pub(crate) const TRACES_BATCH_MAX: usize = 256;
/// Longest time that a span waits for others to go with it.
pub(crate) const TRACES_PAUSE: Duration = Duration::from_secs(1);
/// Time for the collector to take a batch.
pub(crate) const TRACES_EXPORT: Duration = Duration::from_secs(5);
/// Time for what is not exported yet, when this process stops.
pub(crate) const TRACES_LAST: Duration = Duration::from_secs(2);
/// Calls that only look, of which a span is made, a second: status calls come by the thousand, and must not crowd out what
/// changes something.
pub(crate) const TRACED_LOOKS_PER_S: u64 = 50;
/// Longest answer of a collector that is read, in bytes: it says at most how many spans it refused, and why.
pub(crate) const TRACE_ANSWER_BYTES_MAX: usize = 64 << 10;

/// HTTP connections at once: probes and scrapers are a handful.
pub(crate) const HTTP_CONNECTIONS_MAX: usize = 64;
/// How long an HTTP connection may live: a probe takes milliseconds.
pub(crate) const HTTP_CONNECTION: Duration = Duration::from_secs(30);
/// How long an HTTP client may take to send its request's head.
pub(crate) const HTTP_HEAD: Duration = Duration::from_secs(5);

/// Between two looks at the configuration file: a kill switch acts within five seconds.
pub(crate) const FILE_LOOK: Duration = Duration::from_secs(1);
/// Time for a peer to take a connection, when health asks whether it is there.
pub(crate) const PEER_CONNECT: Duration = Duration::from_secs(1);
/// Between two rounds of asking all peers.
pub(crate) const PEERS_LOOK: Duration = Duration::from_secs(10);

const _: () = assert!(
    RETRY_PAUSES[0].as_secs() + RETRY_PAUSES[1].as_secs() + RETRY_PAUSES[2].as_secs() < PHASE.as_secs()
);
const _: () = assert!(VERIFY_AT_START.as_millis() * 4 < PHASE.as_millis());
const _: () = assert!(DATABASE_LOOK.as_millis() < CHECK_WAIT.as_millis());
const _: () = assert!(SESSIONS_LOOK.as_millis() * 2 <= 500 && FILE_LOOK.as_secs() < 5);
const _: () = assert!(REQUEST_BYTES_MAX < novacron_control_api::limits::LINE_BYTES_MAX);
const _: () = assert!(TRACES_BATCH_MAX < TRACES_QUEUED_MAX && TRACED_LOOKS_PER_S < 1 << 16);
