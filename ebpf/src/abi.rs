//! What the program and its loader share, as `bpf/probe.h` has it. A test reads that file and compares.

/// Places of the table of peers.
pub const PEER_SLOTS: usize = 1024;

/// Epochs whose keys a place holds.
pub const EPOCHS: usize = 4;

/// Kinds of outcomes that are counted, in this order: answered, bad cookie, unknown peer, truncated, fragmented, rate
/// limited, oversize, replayed, malformed.
pub const COUNTS: usize = 9;

/// SipHash keys of an epoch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Of probes.
    pub probe: [u64; 2],
    /// Of answers.
    pub answer: [u64; 2],
}

/// A peer; tag 0: none. `struct probe_peer`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Names it in its probes.
    pub tag: u64,
    /// Where its probes come from: IPv6, or IPv4 mapped into it.
    pub address: [u8; 16],
    /// Epochs of the keys, 0 for none.
    pub epoch: [u32; EPOCHS],
    /// Their keys.
    pub keys: [Keys; EPOCHS],
}

/// A processor's counters. `struct probe_counters`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessorCounters {
    /// One of each kind; the rest is room.
    pub count: [u64; 16],
}

const _: () = {
    assert!(size_of::<Keys>() == 32);
    assert!(size_of::<Peer>() == 168 && align_of::<Peer>() == 8);
    assert!(size_of::<ProcessorCounters>() == 128);
    assert!(COUNTS <= 16);
};

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> &'static str {
        include_str!("../bpf/probe.h")
    }

    fn defined(name: &str) -> u64 {
        let line = header().lines().find(|line| line.split_whitespace().nth(1) == Some(name)).unwrap();
        let value = line.split_whitespace().nth(2).unwrap();
        value.trim_end_matches("ULL").parse().unwrap()
    }

    #[test]
    fn the_header_says_the_same() {
        assert_eq!(defined("PEER_SLOTS"), PEER_SLOTS as u64);
        assert_eq!(defined("PEER_EPOCHS"), EPOCHS as u64);
        for (name, bytes) in
            [("probe_peer", size_of::<Peer>()), ("probe_counters", size_of::<ProcessorCounters>())]
        {
            let asserted = format!("sizeof(struct {name}) == {bytes}");
            assert!(header().contains(&asserted), "{asserted}");
        }
        let kinds = header().split("enum probe_count {").nth(1).unwrap().split("COUNT_KINDS").next().unwrap();
        assert_eq!(kinds.matches("COUNT_").count(), COUNTS);
    }

    #[test]
    fn the_protocol_says_the_same() {
        use novacron_protocol::limits;
        assert_eq!(defined("PEER_SLOTS"), limits::PROBE_PEER_SLOTS as u64);
        assert_eq!(defined("PEER_REACH"), limits::PROBE_PEER_REACH as u64);
        assert_eq!(defined("PROBE_BYTES_MAX"), limits::PROBE_BYTES_MAX as u64);
        assert_eq!(64 * defined("REPLAY_WORDS"), limits::PROBE_REPLAY_BITS as u64);
        assert_eq!(defined("RATE_COST_NS"), limits::PROBE_COST_NS);
        assert_eq!(defined("RATE_BURST_NS"), limits::PROBE_BURST_NS);
    }
}
