//! Every bound of reading a configuration, in one place.

/// Largest configuration file, in bytes: every key with its description is 20 kB.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Deepest nesting that is read: the deepest key has three parts, a list in it makes four.
pub const DEPTH_MAX: usize = 8;
/// Most mistakes told of one file: the rest follow from them, or wait for the next look.
pub const MISTAKES_MAX: usize = 32;
