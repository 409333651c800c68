//! Pages that were only referred to: found in the content store, or asked for (DWCP-75 to DWCP-78).

use super::parts::HeldPart;
use super::{Inbound, Receipt, violation};
use crate::page::content::put;
use crate::page::{ContentKey, ContentMemory, ReceivedContent};
use crate::wire::{PartFields, Reason, ReasonCode, Wanted};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a receiving half has to do with content.
#[derive(Default)]
pub(super) struct Contents {
    store: Option<ContentMemory>,
    /// Parts whose missing pages the peer is to be asked for: connection, batch and lane.
    unasked: BTreeSet<(u16, u64, u16)>,
    /// Pages asked for so far.
    asked_pages: u64,
}

impl Contents {
    /// Another store, or none any more; what was asked for stays counted.
    pub(super) fn exchange(&mut self, store: Option<ContentMemory>) {
        self.unasked.clear();
        self.store = store;
    }

    pub(super) fn key(&self) -> Option<Arc<ContentKey>> {
        self.store.as_ref().map(|store| Arc::new(store.key()))
    }

    /// Puts in what is here, and notes what is not.
    pub(super) fn fill(
        &mut self,
        held: &mut HeldPart,
        mut bodies: Vec<u8>,
        content: ReceivedContent,
    ) -> bool {
        let ReceivedContent { whole, holes } = content;
        held.missing = match &self.store {
            Some(store) if !holes.is_empty() => store.fill(holes, &mut bodies),
            _ => holes,
        };
        self.asked_pages += held.missing.len() as u64;
        (held.bodies, held.whole) = (Some(bodies), whole);
        !held.missing.is_empty()
    }

    /// Verified bodies of a part: what came whole is kept.
    pub(super) fn keep(&self, bodies: &[u8], whole: &[(u16, u64)]) {
        if let Some(store) = self.store.as_ref().filter(|_| !whole.is_empty()) {
            store.keep(bodies, whole);
        }
    }
}

impl Inbound {
    /// Whether the peer is to be asked for pages.
    pub fn has_wants(&self) -> bool {
        !self.contents.unasked.is_empty()
    }

    /// The next pages to ask the peer for.
    pub fn take_want(&mut self) -> Option<Wanted> {
        while let Some((connection, batch, lane)) = self.contents.unasked.pop_first() {
            let receiving = self.connections.get(&connection);
            let held = receiving.and_then(|receiving| receiving.parts.get(&(batch, lane)));
            // What is there by now is not asked for, and keeps no other question back.
            let Some(held) = held else { continue };
            let places: Vec<u16> = held.missing.iter().map(|hole| hole.place).collect();
            if !places.is_empty() {
                return Some(Wanted { part: PartFields { connection, batch }, lane, places });
            }
        }
        None
    }

    /// The peer is to be asked for what is missing of a part.
    pub(super) fn ask_for(&mut self, part: &PartFields, lane: u16) {
        self.contents.unasked.insert((part.connection, part.batch, lane));
    }

    /// A stream was lost, and with it perhaps a question: all are asked again.
    pub(super) fn ask_again(&mut self) {
        for (connection, receiving) in &self.connections {
            let missing = receiving.parts.iter().filter(|(_, held)| !held.missing.is_empty());
            self.contents.unasked.extend(missing.map(|((batch, lane), _)| (*connection, *batch, *lane)));
        }
    }

    /// The peer sends what was asked for. What came already is dropped: a question may be said twice.
    pub fn repaired(
        &mut self,
        wanted: &Wanted,
        pages: &[[u8; 4096]],
        receipt: &mut Receipt,
    ) -> Result<(), Reason> {
        let PartFields { connection, batch } = wanted.part;
        let Some(store) = &self.contents.store else {
            return Err(violation("a repair came, and this session has no content store"));
        };
        let key = store.key();
        let Some(receiving) = self.connections.get_mut(&connection) else {
            return Err(violation(format!("a repair came for connection {connection}, which is not open")));
        };
        if batch < receiving.verified_frames {
            return Ok(());
        }
        let held = receiving.parts.get_mut(&(batch, wanted.lane));
        let Some(HeldPart { bodies: Some(bodies), missing, .. }) = held else {
            let text =
                format!("a repair of batch {batch} of connection {connection} came that nobody asked for");
            return Err(violation(text));
        };
        for (place, page) in wanted.places.iter().zip(pages) {
            let Some(at) = missing.iter().position(|hole| hole.place == *place) else { continue };
            if key.hash(page) != missing[at].hash {
                let text = format!(
                    "page {place} of the part of batch {batch} of connection {connection} on page lane {} is not what was referred \
                     to: its hash does not fit",
                    wanted.lane
                );
                return Err(Reason::new(ReasonCode::Decode, text));
            }
            put(bodies, &missing.swap_remove(at), page);
        }
        if missing.is_empty() {
            self.advance(connection, receipt)?;
        }
        Ok(())
    }

    /// Pages that were referred to, were not here, and were asked for.
    pub fn asked_pages(&self) -> u64 {
        self.contents.asked_pages
    }

    /// Bytes that the content store holds, which other sessions may share, and the most that it may; zeros: there is none.
    pub fn content_bytes(&self) -> (u64, u64) {
        self.contents.store.as_ref().map_or((0, 0), ContentMemory::bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::Hole;

    #[test]
    fn a_question_that_is_no_longer_open_keeps_no_other_back() {
        let mut inbound = Inbound::new(true, 1, 1 << 20, 2, true);
        inbound.open(1);
        let hole = Hole { place: 3, fingerprint: 9, hash: [7; 32] };
        let held =
            HeldPart { bytes: 4096, bodies: Some(vec![0; 4096]), whole: Vec::new(), missing: vec![hole] };
        inbound.connections.get_mut(&1).unwrap().parts.insert((5, 0), held);
        // Connection 0 is gone with its part.
        for connection in [0, 1] {
            inbound.ask_for(&PartFields { connection, batch: 5 }, 0);
        }
        let wanted = inbound.take_want().unwrap();
        assert_eq!((wanted.part.connection, wanted.places), (1, vec![3]));
        assert!(!inbound.has_wants() && inbound.take_want().is_none());
    }
}
