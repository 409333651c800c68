//! Every bound of the control socket, in one place.

/// Longest line either side accepts, newline not counted, in bytes. A full `session.list` (64 ended and a few
/// dozen live records of up to [`CONNECTIONS_MAX`] connections) fits; nothing a caller sends comes near.
pub const LINE_BYTES_MAX: usize = 4 << 20;
/// Longest path of a unix socket in bytes: `sun_path` is 108 bytes with its terminator (`unix(7)`).
pub const UNIX_PATH_BYTES_MAX: usize = 107;
/// Longest host name in bytes (RFC 1035, section 2.3.4).
pub const HOST_BYTES_MAX: usize = 253;
/// Longest label or reason a caller may attach, in bytes.
pub const TEXT_BYTES_MAX: usize = 512;
/// Longest string accepted as a request's `id`, in bytes: it is echoed, so it is bounded.
pub const ID_BYTES_MAX: usize = 128;

/// What this build of the control socket's types is called in `gateway.info`; each has a line in ADR 0009.
pub const API_VERSION: u32 = 2;
/// Longest tenant's name in bytes.
pub const TENANT_BYTES_MAX: usize = 64;
/// Longest label of a connection in bytes: what the wire carries (DWCP-23).
pub const LABEL_BYTES_MAX: usize = 64;
/// Most labelled endpoints of a session: each is a listening socket of the source's gateway. A guest has a few disks.
pub const LABELLED_MAX: usize = 32;
/// Most origins that a session may name: a host's addresses and the users that run hypervisors there.
pub const ORIGINS_MAX: usize = 16;
/// Longest name of a gateway that is repeated in a message, in bytes: two parts of 63 and what is between them.
pub const IDENTITY_BYTES_MAX: usize = 192;
/// Most rules of `peers.toml`: far more than sites that know each other; each stream is compared with all of them.
pub const PEERS_MAX: usize = 1024;
/// Most rules of `callers.toml`: users of one host that command its gateway; each connection is compared with all of them.
pub const CALLERS_MAX: usize = 1024;
/// Most tenants in one rule.
pub const TENANTS_MAX: usize = 1024;

/// Most entries of a list in the configuration: peers and callers of one node are far fewer.
pub const LIST_ENTRIES_MAX: usize = 256;

/// Longest idempotency key, in bytes: a UUID is 36.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// Longest code of a reason that is reported, in bytes: the longest of ours is 20.
pub const REASON_CODE_BYTES_MAX: usize = 64;
/// Longest message of a reason that is reported, in bytes: two errors, each with a path in it.
pub const REASON_MESSAGE_BYTES_MAX: usize = 2048;

/// Longest time that an old token is taken beside its successor, in milliseconds: 90 days, a certificate's life.
pub const TOKEN_OVERLAP_MS_MAX: u64 = 90 * 86_400_000;

/// Most lanes a session may ask for.
pub const LANES_MAX: u32 = 64;
/// Largest weight of a session: a thousand times the least.
pub const WEIGHT_MAX: u32 = 1000;
/// Least and most bytes a second that a session may be limited to: 1 Mbit/s, at which a stopped guest's last pages take seconds
/// already, and 1 Tbit/s.
pub const RATE_LIMIT_BYTES_PER_S: std::ops::RangeInclusive<u64> = 125_000..=125_000_000_000;

/// Most streams a session may ask for.
pub const STREAMS_MAX: u32 = 512;
/// Most hypervisor connections a session may ask for: QEMU's 255 multifd channels, the main one and a preempt one.
pub const CONNECTIONS_MAX: u32 = 257;
/// Highest compression level (zstd's `ZSTD_maxCLevel()`).
pub const LEVEL_MAX: u32 = 22;
/// Longest time any option may name, in milliseconds: one day.
pub const TIME_MS_MAX: u64 = 86_400_000;
/// Shortest interval between two progress notifications, in milliseconds.
pub const WATCH_INTERVAL_MS_MIN: u64 = 10;
/// Ended sessions a gateway keeps for `session.list`.
pub const ENDED_SESSIONS_MAX: usize = 64;

const _: () = assert!(TEXT_BYTES_MAX < LINE_BYTES_MAX && ID_BYTES_MAX < LINE_BYTES_MAX);
// About 256 bytes a connection record: the list of ended sessions with an ordinary number of connections fits.
const _: () = assert!(ENDED_SESSIONS_MAX * 32 * 512 < LINE_BYTES_MAX);
