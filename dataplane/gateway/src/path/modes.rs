//! Which mode the path to each peer has, for the shards that carry sessions there.
//!
//! A peer is known by its address: probes and streams go to the same one, by different ports.

use super::record::api_mode;
use crate::limits::PATHS_MAX;
use crate::shard::{Command, ShardHandle};
use novacron_control_api::{ModeChange, Timestamp};
use novacron_protocol::mode::{Change, Mode, Why};
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A path's mode as it is now, and how it came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) mode: Mode,
    pub(crate) change: ModeChange,
}

impl Current {
    fn new(change: Change) -> Self {
        let from = change.from.map(api_mode);
        let (to, why) = (api_mode(change.to), change.why.name().to_owned());
        Current { mode: change.to, change: ModeChange { at: Timestamp::now(), from, to, why } }
    }
}

/// The modes of all paths.
pub(crate) struct Modes {
    /// Of paths that nobody probes, because somebody said so.
    forced: Option<Current>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    known: HashMap<IpAddr, Current>,
    /// Counts changes.
    version: u64,
    /// Shards, and up to which change each was told.
    shards: Vec<(ShardHandle, u64)>,
}

impl Modes {
    /// No path has a mode yet, unless all have a forced one.
    pub(crate) fn new(forced: Option<Mode>) -> Self {
        let forced = forced.map(|to| Current::new(Change { from: None, to, why: Why::Override }));
        Modes { forced, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here is ever half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whom to tell of changes.
    pub(super) fn announce_to(&self, shards: &[ShardHandle]) {
        self.state().shards = shards.iter().map(|shard| (shard.clone(), 0)).collect();
    }

    /// The mode of the path to an address; `None`: none was decided.
    pub(crate) fn of(&self, address: IpAddr) -> Option<Current> {
        self.state().known.get(&address.to_canonical()).cloned().or_else(|| self.forced.clone())
    }

    /// The path to an address has another mode.
    pub(super) fn set(&self, address: IpAddr, change: Change) {
        let mut state = self.state();
        let address = address.to_canonical();
        if state.known.len() < PATHS_MAX || state.known.contains_key(&address) {
            state.known.insert(address, Current::new(change));
            state.version += 1;
        }
    }

    /// Tells the shards that have not heard of the last change. One that takes no more commands now is told the next time.
    pub(super) fn tell(&self) {
        let mut state = self.state();
        let version = state.version;
        for (shard, told) in &mut state.shards {
            if *told != version && shard.send(Command::ModesChanged).is_ok() {
                *told = version;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_mode_that_was_set_or_the_forced_one() {
        let peer: IpAddr = "192.0.2.1".parse().unwrap();
        let mapped: IpAddr = "::ffff:192.0.2.1".parse().unwrap();
        let modes = Modes::new(None);
        assert_eq!(modes.of(peer), None);
        modes.set(peer, Change { from: None, to: Mode::Datacenter, why: Why::Measured });
        assert_eq!(modes.of(mapped).map(|current| current.mode), Some(Mode::Datacenter));
        let forced = Modes::new(Some(Mode::Internet));
        assert_eq!(forced.of(peer).map(|current| current.change.why), Some("override".to_owned()));
        // What one path is told by name is for it alone.
        forced.set(peer, Change { from: Some(Mode::Internet), to: Mode::Hybrid, why: Why::Override });
        assert_eq!(forced.of(peer).map(|current| current.mode), Some(Mode::Hybrid));
        assert_eq!(forced.of("192.0.2.2".parse().unwrap()).map(|current| current.mode), Some(Mode::Internet));
    }

    #[test]
    fn there_are_at_most_as_many_as_paths() {
        let modes = Modes::new(None);
        for host in 0..=PATHS_MAX as u32 {
            let address = IpAddr::V4((0xc000_0200 + host).into());
            modes.set(address, Change { from: None, to: Mode::Hybrid, why: Why::Measured });
        }
        assert_eq!(modes.state().known.len(), PATHS_MAX);
    }

    #[test]
    fn shards_are_told_once_of_each_change_also_when_they_were_busy() {
        let modes = Modes::new(None);
        let (shard, _mailboxes) = ShardHandle::new();
        modes.announce_to(std::slice::from_ref(&shard));
        modes.tell();
        assert_eq!(modes.state().shards[0].1, 0, "there was nothing to tell");
        modes.set([192, 0, 2, 1].into(), Change { from: None, to: Mode::Hybrid, why: Why::Measured });
        while shard.send(Command::TrustChanged).is_ok() {}
        modes.tell();
        assert_eq!(modes.state().shards[0].1, 0, "its mailbox was full");
        let (shard, _mailboxes) = ShardHandle::new();
        modes.announce_to(&[shard]);
        modes.tell();
        assert_eq!(modes.state().shards[0].1, 1);
    }
}
