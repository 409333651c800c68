//! Keys of a pair of gateways, derived from one secret of 32 bytes that both hold (DWCP-92).
//!
//! Each direction has its own tag and its own keys, and so do probes and answers: nothing that was seen on the way can be
//! sent back as something else. Keys change with the epoch.

use super::packet::Key;

/// What both gateways of a pair know, and nobody else: from halves that they said to each other on a stream whose ends are
/// proven, or from a file in a laboratory. Printing it shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes the secret.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Secret(bytes)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Which of the two gateways probes. Both ends agree on who is who: of a TLS stream the client is the dialler; with a
/// secret of a file the lower address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The one that connected.
    Dialler,
    /// The one that was connected to.
    Acceptor,
}

impl Side {
    /// The other one.
    pub const fn other(self) -> Side {
        match self {
            Side::Dialler => Side::Acceptor,
            Side::Acceptor => Side::Dialler,
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Side::Dialler => 1,
            Side::Acceptor => 2,
        }
    }
}

/// An address and port, IPv4 mapped into IPv6.
pub type Name = ([u8; 16], u16);

/// The secret of a pair of gateways whose operators share one for all of them, as in a laboratory, and which side `own` is of it
/// (DWCP-92).
pub fn pair(shared: &[u8; 32], own: Name, peer: Name) -> (Secret, Side) {
    let (lower, higher) = if own < peer { (own, peer) } else { (peer, own) };
    let mut hasher = blake3::Hasher::new_derive_key("NovaCron probe 1: pair");
    hasher.update(shared);
    for (address, port) in [lower, higher] {
        hasher.update(&address).update(&port.to_le_bytes());
    }
    let mut secret = [0; 32];
    hasher.finalize_xof().fill(&mut secret);
    (Secret(secret), if own < peer { Side::Dialler } else { Side::Acceptor })
}

/// The secret of a pair of gateways that have said a half each in the handshake of a stream, inside of TLS (DWCP-100).
pub fn agreed(dialler: &[u8; 32], acceptor: &[u8; 32]) -> Secret {
    let mut hasher = blake3::Hasher::new_derive_key("NovaCron probe 1: halves");
    hasher.update(dialler).update(acceptor);
    let mut secret = [0; 32];
    hasher.finalize_xof().fill(&mut secret);
    Secret(secret)
}

/// Keys of one direction in one epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Of probes.
    pub probe: Key,
    /// Of answers.
    pub answer: Key,
}

/// The tag of the probes that `prober` sends; never 0.
pub fn tag(secret: &Secret, prober: Side) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("NovaCron probe 1: tag");
    hasher.update(&secret.0).update(&[prober.byte()]);
    let mut tag = [0; 8];
    hasher.finalize_xof().fill(&mut tag);
    u64::from_le_bytes(tag).max(1)
}

/// The keys of the probes that `prober` sends in `epoch`.
pub fn keys(secret: &Secret, prober: Side, epoch: u32) -> Keys {
    let mut hasher = blake3::Hasher::new_derive_key("NovaCron probe 1: keys");
    hasher.update(&secret.0).update(&[prober.byte()]).update(&epoch.to_le_bytes());
    let mut bytes = [0; 32];
    hasher.finalize_xof().fill(&mut bytes);
    let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
    Keys { probe: [word(0), word(8)], answer: [word(16), word(24)] }
}

/// The epoch at a time of day, in seconds since 1970; an hour each, and never 0.
pub fn epoch_at(unix_s: u64) -> u32 {
    u32::try_from(unix_s / 3600).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shared_between_directions_epochs_and_secrets() {
        let secrets = [Secret::new([7; 32]), Secret::new([8; 32])];
        let mut seen = std::collections::BTreeSet::new();
        for secret in &secrets {
            for side in [Side::Dialler, Side::Acceptor] {
                assert!(seen.insert([tag(secret, side), 0]));
                for epoch in [1, 2, 3] {
                    let Keys { probe, answer } = keys(secret, side, epoch);
                    assert!(seen.insert(probe) && seen.insert(answer));
                }
            }
        }
    }

    #[test]
    fn both_ends_of_a_pair_find_the_same_secret() {
        let (a, b, c) = (([1; 16], 5), ([1; 16], 6), ([2; 16], 5));
        let (secret, side) = pair(&[4; 32], a, b);
        assert_eq!(pair(&[4; 32], b, a), (secret.clone(), side.other()));
        assert_ne!(pair(&[4; 32], a, c).0, secret);
        assert_ne!(pair(&[5; 32], a, b).0, secret);
    }

    /// DWCP-100: both halves make the secret, and their order tells dialler and acceptor apart.
    #[test]
    fn both_halves_make_the_secret() {
        let secret = agreed(&[1; 32], &[2; 32]);
        assert_ne!(secret, agreed(&[1; 32], &[3; 32]));
        assert_ne!(secret, agreed(&[3; 32], &[2; 32]));
        assert_ne!(secret, agreed(&[2; 32], &[1; 32]));
    }

    #[test]
    fn an_hour_is_an_epoch() {
        assert_eq!(epoch_at(0), 1);
        assert_eq!(epoch_at(3600 * 480_000), 480_000);
        assert_eq!(epoch_at(3600 * 480_000 + 3599), 480_000);
        assert_eq!(epoch_at(u64::MAX), u32::MAX);
    }

    #[test]
    fn a_secret_is_not_printed() {
        assert_eq!(format!("{:?}", Secret::new([0x41; 32])), "Secret(..)");
    }
}
