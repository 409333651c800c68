//! Every bound of `novactl`, in one place.

use std::time::Duration;

/// Events kept while an answer is awaited; older ones are dropped, because states are always queried again.
pub(crate) const QMP_EVENTS_MAX: usize = 256;
/// Time for QEMU's greeting. A second client of a QMP socket waits in the backlog and gets none.
pub(crate) const QMP_GREETING: Duration = Duration::from_secs(5);
/// Time for the answer to any QMP command. QEMU answers from its main loop, which a busy guest can delay; while it sends the
/// last pages of a guest, it does not answer at all, and this is how long the session may stand still meanwhile.
pub(crate) const QMP_ANSWER: Duration = Duration::from_secs(15);

/// How long a QEMU that hangs up on whoever looks at it is looked at again: it is ending, and will be gone.
pub(crate) const HANG_UP_WAIT: Duration = Duration::from_secs(2);

/// Looks at a changing hypervisor before its last state is taken as it is.
pub(crate) const LOOKS_MAX: u32 = 4;

/// Time to connect to and be answered by a gateway, for calls without a deadline of their own.
pub(crate) const RPC_ANSWER: Duration = Duration::from_secs(5);
/// Time for a node to follow its whole audit log: a million entries, from a database that others use too.
pub(crate) const AUDIT_VERIFY: Duration = Duration::from_secs(120);
/// Time a gateway may take beyond `open_timeout_ms` to answer `session.open`.
pub(crate) const RPC_OPEN_MARGIN: Duration = Duration::from_secs(5);
/// Tries to find a lost gateway's control socket again, one [`WATCH_RETRY_PAUSE`] apart.
pub(crate) const WATCH_RETRIES: u32 = 5;
/// Pause between two of those tries.
pub(crate) const WATCH_RETRY_PAUSE: Duration = Duration::from_millis(400);
/// How long a gateway may say nothing of a watched session. It speaks every [`WATCH_INTERVAL_MS`]; one that does not
/// hangs, and a guest that it carries may stand still.
pub(crate) const WATCH_SILENCE: Duration = Duration::from_secs(10);
/// Interval of `session.watch`, in milliseconds.
pub(crate) const WATCH_INTERVAL_MS: u64 = 250;

/// Between two `query-migrate` when no event says that something changed.
pub(crate) const POLL: Duration = Duration::from_millis(200);
/// Between two looks at something that is about to change.
pub(crate) const POLL_SHORT: Duration = Duration::from_millis(5);
/// How long the destination may take to leave `inmigrate` after the source completed.
pub(crate) const LOADED_WAIT: Duration = Duration::from_secs(10);
/// How long a started guest may take to be reported running, and a failed source to run again.
pub(crate) const RUNNING_WAIT: Duration = Duration::from_secs(5);
/// How long a source whose session is over may take to notice by itself.
pub(crate) const FREED_WAIT: Duration = Duration::from_secs(1);
/// How long a QEMU may refuse a migration because it cleans up after one that failed.
pub(crate) const CLEANED_UP_WAIT: Duration = Duration::from_secs(5);
/// How long a cancelled migration may take to reach its final state.
pub(crate) const CANCEL_WAIT: Duration = Duration::from_secs(30);
/// How long a QEMU may take to be gone after `quit`.
pub(crate) const QUIT_WAIT: Duration = Duration::from_secs(10);
/// How long the other gateway may take to say why a migration failed.
pub(crate) const REASON_WAIT: Duration = Duration::from_millis(500);
/// How long the gateways may take to close their books after the guest runs.
pub(crate) const RECORD_WAIT: Duration = Duration::from_secs(3);

/// How long it is tried to tell a control process how a migration ended: one that was killed is back by then.
pub(crate) const OUTCOME_TOLD: Duration = Duration::from_secs(6);
/// Between two of these tries.
pub(crate) const OUTCOME_AGAIN: Duration = Duration::from_millis(250);

/// Longest journal that is read, in bytes: a header and about ten steps.
pub(crate) const JOURNAL_BYTES_MAX: u64 = 64 << 10;
/// Journals of settled migrations that are kept; the oldest go first.
pub(crate) const JOURNALS_KEPT: usize = 64;
/// Journals looked at in one directory.
pub(crate) const JOURNALS_MAX: usize = 10_000;

/// Between two plain progress lines when stderr is no terminal.
pub(crate) const PROGRESS_LINE: Duration = Duration::from_secs(2);

/// Between two tries to open a session at a peer that does not know it yet.
pub(crate) const OPEN_AGAIN_PAUSE: Duration = Duration::from_secs(1);
/// Longest token file that is read, in bytes: 64 digits and white space around them.
pub(crate) const TOKEN_FILE_BYTES_MAX: u64 = 1024;

/// Time to reach a node on another host and to shake hands with it, for each of its addresses.
pub(crate) const REMOTE_CONNECT: Duration = Duration::from_secs(5);

/// Time to reach a site that pairs, and for it to take a message.
pub(crate) const PAIR_CONNECT: Duration = Duration::from_secs(10);
/// Time for a message of a pairing for which nobody is asked: a scanner that says nothing keeps others waiting so long.
pub(crate) const PAIR_ANSWER: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried: a name with more is not a gateway's.
pub(crate) const ADDRESSES_MAX: usize = 8;

/// Time for a gateway's port to answer: a path of half a second a round trip passes.
pub(crate) const DOCTOR_ANSWER: Duration = Duration::from_secs(5);
/// Time for a TLS handshake: less than the five seconds that a gateway grants, so that this side sees silence first, and
/// tells a path that loses full segments from a peer that hangs up.
pub(crate) const DOCTOR_HANDSHAKE: Duration = Duration::from_secs(4);
/// How long a peer that took the handshake may take to refuse it: TLS 1.3 tells the dialling side nothing when its
/// certificate is accepted, only when it is not.
pub(crate) const DOCTOR_REFUSAL: Duration = Duration::from_millis(1500);
/// Bytes of certificates that the probe shows: several full segments at the common sizes, one and a half of 9,000 bytes;
/// gateways read handshakes of 32 KiB.
pub(crate) const DOCTOR_PROBE_BYTES: usize = 14 << 10;
/// Most certificates in which these bytes come.
pub(crate) const DOCTOR_PROBE_CERTIFICATES_MAX: usize = 64;
/// Segment size of the second try, when full ones seem to get lost: with headers 1,200 bytes, less than any tunnel leaves.
pub(crate) const DOCTOR_SMALL_SEGMENT: u32 = 1160;
/// Clocks that differ more are worth a warning, in milliseconds: logs of both sites no longer line up.
pub(crate) const SKEW_MS_WARN: u64 = 2_000;
/// Clocks that differ more make new certificates invalid, in milliseconds: they are backdated by an hour.
pub(crate) const SKEW_MS_MAX: u64 = 3_600_000;
