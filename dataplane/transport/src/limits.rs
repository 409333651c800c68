//! Every bound of this crate in one place, with what it bounds and why that much is enough.
//! Relations between bounds are asserted at compile time.

use std::time::Duration;

/// Bytes at the start of each frame that this crate looks at: its first four are the little-endian length of the
/// payload that follows the header.
pub const FRAME_HEADER_BYTES: usize = 32;

/// Largest payload that a configuration may allow, in bytes: what fits the largest buffer class.
pub const FRAME_PAYLOAD_BYTES_CEILING: usize = POOL_CLASS_BYTES[POOL_CLASSES - 1] - FRAME_HEADER_BYTES;

/// Number of buffer sizes in a pool.
pub const POOL_CLASSES: usize = 4;

/// Buffer sizes in a pool, in bytes: small frames, medium ones, a 256 KiB batch with room for headers and for
/// incompressible growth, and the same for 1 MiB.
pub const POOL_CLASS_BYTES: [usize; POOL_CLASSES] = [4096, 64 * 1024, (256 + 16) * 1024, (1024 + 64) * 1024];

/// Frames up to this many bytes that arrive together with others are copied into memory of their own, outside the
/// pool: an acknowledgement must get through when every pool buffer waits for acknowledgements.
pub const SMALL_FRAME_BYTES_MAX: usize = 1024;

/// Small frames whose memory a stream makes the next ones in: as many as are looked at by their session before more come. Whoever
/// holds others longer has them in memory of their own, so that a stream never keeps more than this many kilobytes.
pub const SMALL_FRAMES_KEPT: usize = 32;

/// Bytes read ahead of the frame boundary when frames are small.
pub const STAGING_BYTES: usize = 64 * 1024;

/// Bytes read ahead while a large payload goes straight into its own buffer. Little, because what is read ahead of a
/// large frame is copied once more; not nothing, because the next header then costs no system call of its own.
pub const STAGING_BYTES_BESIDE_PAYLOAD: usize = 4096;

/// Frames handed to one `sendmsg`. Linux refuses more than 1024 (UIO_MAXIOV).
pub const FRAMES_PER_SEND_MAX: usize = 64;

/// System calls of one direction within one `poll`, before others on the shard get their turn.
pub const SYSCALLS_PER_POLL_MAX: usize = 8;

/// Bytes that one stream seals before it asks the socket to take them: four full records, which stay in a core's own cache
/// between sealing and sending.
pub const TLS_SEAL_BYTES: usize = 64 * 1024;

/// Bytes of one receive under TLS, and of incomplete records.
pub const TLS_RECEIVE_BYTES: usize = 128 * 1024;

/// Bytes that a peer may send before its handshake is complete. A hello with a post-quantum share is 1.5 KiB, a chain of
/// certificates a few more; whatever arrives directly behind it counts as well.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 32 * 1024;

/// Certificates that a gateway shows: its own and what stands between that and an authority.
pub const CHAIN_MAX: usize = 8;

/// Authorities that a gateway believes: one a site that it is paired with, two while one succeeds another.
pub const AUTHORITIES_MAX: usize = 2048;

/// Unaccepted connections that the kernel holds for a listener.
pub const LISTEN_BACKLOG: i32 = 128;

/// Addresses of one name that `connect` tries.
pub const RESOLVED_ADDRESSES_MAX: usize = 8;

/// Shards that one process may start.
pub const SHARDS_MAX: usize = 256;

/// Batches that wait between a relayed stream's two shards, in each direction: one that is taken, one that is made, and as many
/// for a shard that is late.
pub const RELAY_BATCHES_MAX: usize = 4;

/// Bytes received that make a batch: few enough to be in the cache still when they are read.
pub const RELAY_BATCH_BYTES: usize = 128 * 1024;

/// Frames received that make a batch, however small.
pub const RELAY_BATCH_FRAMES: usize = 256;

/// Events of a relayed stream within one `poll`, before others on its shard get their turn.
pub const RELAY_STEPS_PER_POLL: usize = 64;

/// How often it is asked how a stream stands, at most; each time costs two system calls.
pub const STREAM_LOOK_MIN: Duration = Duration::from_millis(1);

/// How soon that is asked of a stream with something under way although nothing happened: an eighth of its round trip within this.
/// Many streams take turns: what one does not notice, others do.
pub const STREAM_LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));

/// Locked memory that glommio's rings need, in bytes (glommio `sys/uring.rs`, `MIN_MEMLOCK_LIMIT`).
pub const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

const _: () = assert!(SMALL_FRAME_BYTES_MAX >= FRAME_HEADER_BYTES);
const _: () = assert!(SMALL_FRAME_BYTES_MAX <= POOL_CLASS_BYTES[0]);
const _: () = assert!(STAGING_BYTES_BESIDE_PAYLOAD <= STAGING_BYTES);
const _: () = assert!(STAGING_BYTES_BESIDE_PAYLOAD >= FRAME_HEADER_BYTES);
const _: () = assert!(STREAM_LOOK_MIN.as_nanos() < STREAM_LOOK.0.as_nanos());
const _: () = assert!(FRAMES_PER_SEND_MAX <= 1024);
const _: () = assert!(FRAME_PAYLOAD_BYTES_CEILING <= u32::MAX as usize);
