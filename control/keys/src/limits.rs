//! Every bound of keys, certificates and pairing, in one place.

use std::time::Duration;

/// Longest site name, in bytes: a DNS name of a few labels fits, a terminal's line and a table column hold it.
pub const SITE_BYTES_MAX: usize = 63;
/// Longest gateway or caller name, in bytes: one DNS label (RFC 1035, section 2.3.4).
pub const NAME_BYTES_MAX: usize = 63;
/// Longest identity as text, in bytes: `novacron://`, a site, `/gateway/` (the longest role is `authority`), a name.
pub const IDENTITY_BYTES_MAX: usize = 11 + SITE_BYTES_MAX + 11 + NAME_BYTES_MAX;

/// Days that a certificate is valid unless told otherwise: long enough for monthly renewal with a week's notice,
/// short enough that a key nobody knows to be stolen is worth little.
pub const CERTIFICATE_DAYS: u32 = 45;
/// Most days that a certificate may be asked to be valid: renewal must stay a habit.
pub const CERTIFICATE_DAYS_MAX: u32 = 825;
/// Days that an authority is valid unless told otherwise: five years, because replacing one means pairing anew.
pub const AUTHORITY_DAYS: u32 = 5 * 365;
/// Most days that an authority may be asked to be valid.
pub const AUTHORITY_DAYS_MAX: u32 = 20 * 365;
/// Days after which a revocation list counts as old. Each issue, rotation and revocation writes a new one.
pub const REVOCATION_LIST_DAYS: u32 = 90;
/// How far before now a certificate's validity begins, so that a peer whose clock is behind takes it at once.
pub const BACKDATED: Duration = Duration::from_secs(3600);
/// Certificates are said to expire when fewer days are left, unless told otherwise: two weeks to act.
pub const EXPIRING_DAYS: u32 = 14;

/// Largest file that is read as keys, certificates or revocation lists, in bytes: a thousand revocations are 40 kB.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most PEM blocks read from one file.
pub const PEM_BLOCKS_MAX: usize = 4096;
/// Most certificates that one authority's folder may hold; listing parses them all.
pub const ISSUED_MAX: usize = 65_536;
/// Most authorities in one bundle: two each (one old, one new) of a few dozen paired sites.
pub const AUTHORITIES_MAX: usize = 128;
/// Most authorities that one site shows another: the one in use, its successor, and as many again.
pub const BUNDLE_AUTHORITIES_MAX: usize = 4;
/// Longest passphrase, in bytes: what scrypt takes is hashed first, more is a mistaken file.
pub const PASSPHRASE_BYTES_MAX: usize = 1024;
/// Shortest passphrase, in bytes: scrypt slows guessing, but not enough for a word.
pub const PASSPHRASE_BYTES_MIN: usize = 12;

/// Wrong codes after which an offer ends. No number of tries finds 128 bits: the bound is for logs and for people, who
/// should ask who is trying.
pub const PAIRING_TRIES_MAX: u32 = 16;
/// How long a code can be used unless told otherwise: a telephone call.
pub const PAIRING_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// Longest life of a code that may be asked for: it is for two people who are there.
pub const PAIRING_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// Largest message of a pairing, in bytes: a bundle with the longest revocation lists that are read.
pub const PAIRING_MESSAGE_BYTES_MAX: usize = 1 << 20;

const _: () = assert!(PAIRING_LIFETIME.as_secs() <= PAIRING_LIFETIME_MAX.as_secs());
const _: () = assert!(PAIRING_MESSAGE_BYTES_MAX as u64 <= FILE_BYTES_MAX);
const _: () = assert!(CERTIFICATE_DAYS <= CERTIFICATE_DAYS_MAX && AUTHORITY_DAYS <= AUTHORITY_DAYS_MAX);
const _: () = assert!(EXPIRING_DAYS < CERTIFICATE_DAYS && CERTIFICATE_DAYS_MAX < AUTHORITY_DAYS);
const _: () = assert!(PASSPHRASE_BYTES_MIN < PASSPHRASE_BYTES_MAX);
