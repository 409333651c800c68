//! Peers follow the mode of the path to them.
//!
//! ```text
//!  path::Modes ── ModesChanged ──> Shard::follow ──> streams: how many (dial::keep), their congestion control
//!                                                └─> sessions: codec, window, record
//! ```
//!
//! Nothing stops for it: what is under way on a stream stays there, streams that are too many carry what they have to its end,
//! and more of them open beside those that there are.

use super::Shard;
use super::peer::{Peer, Stream};
use crate::path::Current;
use crate::told::UNDECIDED;
use novacron_protocol::mode::Mode;
use novacron_transport::contract::Transport;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Once;

impl Shard {
    /// The mode of the path to a peer, or what stands for it as long as there is none.
    fn mode_of(&self, peer: &Peer) -> Mode {
        peer.mode.borrow().as_ref().map_or(UNDECIDED, |current| current.mode)
    }

    /// Streams to a peer, least and most.
    pub(super) fn stream_bounds(&self, peer: &Peer) -> (usize, usize) {
        self.told.streams(self.mode_of(peer))
    }

    /// The congestion control that a new stream to an address asks for; `None`: the system's.
    pub(super) fn congestion_to(&self, address: IpAddr) -> Option<&'static str> {
        if address.to_canonical().is_loopback() {
            // What paces for a path of unknown width only costs timers on one that has no width.
            return Some("cubic");
        }
        self.told.congestion(self.modes.of(address).map_or(UNDECIDED, |current| current.mode))
    }

    /// A peer is reached, or comes from, there.
    pub(super) fn is_at(&self, peer: &Peer, address: Option<IpAddr>) {
        if peer.address.get().is_none() && address.is_some() {
            peer.address.set(address);
            self.follow(peer);
        }
    }

    /// A stream to a peer is open. The mode may have changed since it was dialled.
    pub(super) fn stream_follows(&self, peer: &Peer, stream: &Stream, address: Option<IpAddr>) {
        self.is_at(peer, address);
        stream.prefer(address.and_then(|address| self.congestion_to(address)));
    }

    /// Some path has another mode.
    pub(super) fn follow_modes(&self) {
        let peers: Vec<Rc<Peer>> =
            self.dialled.borrow().values().chain(self.accepted.borrow().values()).cloned().collect();
        for peer in peers {
            self.follow(&peer);
        }
    }

    /// The peer's streams and sessions get the profile of the path's mode, if it is another than they have.
    fn follow(&self, peer: &Peer) {
        let Some(address) = peer.address.get() else { return };
        let Some(current) = self.modes.of(address) else { return };
        if peer.mode.borrow().as_ref() == Some(&current) {
            return;
        }
        tracing::info!(peer = %peer.name, mode = %current.mode, why = current.change.why, "streams and sessions follow the path's mode");
        *peer.mode.borrow_mut() = Some(current.clone());
        let congestion = self.congestion_to(address);
        for stream in peer.streams() {
            stream.prefer(congestion);
        }
        for running in peer.sessions() {
            running.follow(&current);
        }
        // How many streams there are to be is looked at anew.
        peer.changed.notify();
    }
}

/// Gives a stream the congestion control that it is to have.
pub(super) fn apply<T: Transport>(stream: &Stream, transport: &mut T) {
    let Some(wanted) = stream.congestion_wanted.take() else { return };
    transport.prefer_congestion(wanted);
    stream.congestion_asked.set(Some(wanted));
}

/// Reads back which congestion control a stream has, at first and when it asked for one; another shard may serve it, and tell later.
pub(super) fn see_what_came_of_it<T: Transport>(peer: &Peer, stream: &Stream, transport: &T) {
    let asked = stream.congestion_asked.get();
    if asked.is_none() && !stream.congestion.borrow().is_empty() {
        return;
    }
    let Some(has) = transport.congestion() else { return };
    stream.congestion_asked.set(None);
    if let Some(wanted) = asked {
        tracing::debug!(peer = %peer.name, stream = stream.id.0, wanted, has, "congestion control");
        if has != wanted {
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                tracing::warn!(
                    peer = %peer.name, wanted, has,
                    "the system does not grant streams this congestion control; they go on with what they have. Load its module, and \
                     name it in net.ipv4.tcp_allowed_congestion_control"
                );
            });
        }
    }
    *stream.congestion.borrow_mut() = has;
}

/// The mode under which a session begins, or which its path has from now on.
pub(super) fn followed(record: &mut novacron_control_api::SessionRecord, current: &Current) {
    let mut change = current.change.clone();
    if record.mode.is_none() {
        // For the session it is the first, and begins with it.
        (change.from, change.at) = (None, novacron_control_api::Timestamp::now());
    }
    record.mode = Some(change.to);
    if record.mode_changes.len() >= crate::limits::MODE_CHANGES_MAX {
        record.mode_changes.remove(0);
    }
    record.mode_changes.push(change);
}
