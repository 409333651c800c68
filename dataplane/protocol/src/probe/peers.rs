//! Whom the responder answers: a table that the kernel's program reads as it stands (`ebpf/bpf/probe.h`).

use super::key::{Keys, Secret, Side, keys, tag};
use crate::limits::{PROBE_PEER_REACH, PROBE_PEER_SLOTS, PROBE_PEERS_MAX};

/// Epochs whose keys a place holds: the last one, this one and the next, since clocks differ; the fourth is free.
pub const EPOCHS: usize = 4;

/// One place of the table. Tag 0: free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot {
    /// Names the peer in its probes.
    pub tag: u64,
    /// Where its probes come from: IPv6, or IPv4 mapped into it.
    pub address: [u8; 16],
    /// Epochs of the keys; `epoch[n] % 4 == n`, 0 for none.
    pub epoch: [u32; EPOCHS],
    /// Their keys.
    pub keys: [Keys; EPOCHS],
}

/// Why a peer was not taken. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRefused {
    /// There are as many as there may be.
    Full,
    /// Its places are taken, which a table that is at most half full rarely comes to; another secret has others.
    Crowded,
}

impl std::fmt::Display for PeerRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PeerRefused::Full => write!(f, "{PROBE_PEERS_MAX} peers are answered already; this one is not"),
            PeerRefused::Crowded => write!(f, "no place is free for this peer's tag; make another secret"),
        }
    }
}

impl std::error::Error for PeerRefused {}

/// The table.
#[derive(Clone, Debug)]
pub struct Peers {
    slots: Vec<Slot>,
    secrets: Vec<(usize, Secret, Side)>,
    epoch: u32,
}

impl Peers {
    /// An empty one, at an epoch.
    pub fn new(epoch: u32) -> Self {
        Peers { slots: vec![Slot::default(); PROBE_PEER_SLOTS], secrets: Vec::new(), epoch }
    }

    /// Takes a peer: whoever probes as `prober` from `address` under `secret`. Returns its place, whose content is to be
    /// handed to the kernel. The same secret again changes the address.
    pub fn add(&mut self, secret: &Secret, prober: Side, address: [u8; 16]) -> Result<usize, PeerRefused> {
        let tag = tag(secret, prober);
        if let Some(at) = self.find(tag) {
            self.slots[at].address = address;
            return Ok(at);
        }
        if self.secrets.len() >= PROBE_PEERS_MAX {
            return Err(PeerRefused::Full);
        }
        let at = reach(tag).find(|at| self.slots[*at].tag == 0).ok_or(PeerRefused::Crowded)?;
        self.slots[at] = Slot { tag, address, ..Slot::default() };
        self.secrets.push((at, secret.clone(), prober));
        self.fill(at, secret, prober);
        Ok(at)
    }

    /// Forgets a peer; returns the place that is free now.
    pub fn remove(&mut self, secret: &Secret, prober: Side) -> Option<usize> {
        let at = self.find(tag(secret, prober))?;
        self.slots[at] = Slot::default();
        self.secrets.retain(|(other, ..)| *other != at);
        Some(at)
    }

    /// The epoch is `epoch` from now on. Returns whether keys changed; then every [`Peers::taken`] place did.
    pub fn rotate(&mut self, epoch: u32) -> bool {
        if epoch == self.epoch {
            return false;
        }
        self.epoch = epoch;
        for (at, secret, prober) in self.secrets.clone() {
            self.fill(at, &secret, prober);
        }
        true
    }

    /// Keys of the epochs around the present one. What stays valid is not touched, since the kernel reads meanwhile.
    fn fill(&mut self, at: usize, secret: &Secret, prober: Side) {
        let valid = self.epoch.saturating_sub(1)..=self.epoch.saturating_add(1);
        let slot = &mut self.slots[at];
        for turn in 0..EPOCHS {
            if !valid.contains(&slot.epoch[turn]) {
                (slot.epoch[turn], slot.keys[turn]) = (0, Keys::default());
            }
        }
        for epoch in valid.filter(|epoch| *epoch != 0) {
            let turn = epoch as usize % EPOCHS;
            if slot.epoch[turn] != epoch {
                (slot.epoch[turn], slot.keys[turn]) = (epoch, keys(secret, prober, epoch));
            }
        }
    }

    /// The place of a tag.
    pub fn find(&self, tag: u64) -> Option<usize> {
        if tag == 0 {
            return None;
        }
        reach(tag).find(|at| self.slots[*at].tag == tag)
    }

    /// A place's content.
    pub fn slot(&self, at: usize) -> Slot {
        self.slots.get(at).copied().unwrap_or_default()
    }

    /// Every place that is taken.
    pub fn taken(&self) -> impl Iterator<Item = usize> {
        self.secrets.iter().map(|(at, ..)| *at)
    }
}

fn reach(tag: u64) -> impl Iterator<Item = usize> {
    (0..PROBE_PEER_REACH as u64).map(move |step| (tag.wrapping_add(step) % PROBE_PEER_SLOTS as u64) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(n: u16) -> Secret {
        let mut bytes = [3; 32];
        bytes[..2].copy_from_slice(&n.to_le_bytes());
        Secret::new(bytes)
    }

    #[test]
    fn as_many_as_promised_find_a_place() {
        let mut peers = Peers::new(100);
        let taken =
            (0..PROBE_PEERS_MAX as u16).filter(|n| peers.add(&secret(*n), Side::Dialler, [1; 16]).is_ok());
        assert_eq!(taken.count(), PROBE_PEERS_MAX);
        assert_eq!(peers.add(&secret(60_000), Side::Dialler, [1; 16]), Err(PeerRefused::Full));
        assert!(peers.remove(&secret(5), Side::Dialler).is_some());
        assert!(peers.add(&secret(60_000), Side::Dialler, [1; 16]).is_ok());
        assert_eq!(peers.find(tag(&secret(5), Side::Dialler)), None);
        for n in (0..PROBE_PEERS_MAX as u16).filter(|n| *n != 5) {
            let tag = tag(&secret(n), Side::Dialler);
            assert_eq!(peers.find(tag).map(|at| peers.slot(at).tag), Some(tag));
        }
    }

    /// DWCP-92: the keys of the epoch before, this one and the next are valid, and no others; what stays does not move.
    #[test]
    fn three_epochs_are_valid_and_what_stays_does_not_move() {
        let mut peers = Peers::new(100);
        let at = peers.add(&secret(1), Side::Acceptor, [1; 16]).unwrap();
        for epoch in 100..110 {
            let before = peers.slot(at);
            assert_eq!(peers.rotate(epoch), epoch != 100);
            let slot = peers.slot(at);
            let mut valid: Vec<u32> = slot.epoch.iter().copied().filter(|epoch| *epoch != 0).collect();
            valid.sort_unstable();
            assert_eq!(valid, [epoch - 1, epoch, epoch + 1]);
            for valid in valid {
                let turn = valid as usize % EPOCHS;
                assert_eq!(slot.keys[turn], keys(&secret(1), Side::Acceptor, valid));
                assert!(before.epoch[turn] != valid || before.keys[turn] == slot.keys[turn]);
            }
        }
    }
}
