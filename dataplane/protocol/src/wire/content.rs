//! What a receiver asks for that was only referred to, and the answer (DWCP-77, DWCP-78).
//!
//! ```text
//!  connection  u16, 6 zero bytes, batch u64     whose part it is, as in a part
//!  lane        u16
//!  count       u16        1 to as many pages as a batch holds
//!  places      count u16  among the part's pages, ascending
//!  bodies      count * 4096 bytes, in a Repair only
//! ```

use super::{Cursor, FrameHeader, Kind, PartFields, WireError, finish_frame, start_frame};
use crate::limits::{BATCH_PAGES_MAX, FRAME_PAYLOAD_MAX, LANES_MAX, PAGE_BYTES};
use bytes::Bytes;

/// Pages of one part: what a [`Kind::Want`] asks for, and what a [`Kind::Repair`] brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Connection and batch of the part.
    pub part: PartFields,
    /// Its page lane.
    pub lane: u16,
    /// Places among its pages, ascending.
    pub places: Vec<u16>,
}

impl Wanted {
    fn put(&self, out: &mut Vec<u8>) {
        start_frame(out);
        self.part.put(out);
        out.extend_from_slice(&self.lane.to_le_bytes());
        // A batch holds fewer pages than 16 bits count (asserted in limits).
        out.extend_from_slice(&(self.places.len() as u16).to_le_bytes());
        for place in &self.places {
            out.extend_from_slice(&place.to_le_bytes());
        }
    }

    /// As a frame that asks for these pages.
    pub fn to_want(&self, session: u64, epoch: u32) -> Bytes {
        let mut out = Vec::with_capacity(64 + 2 * self.places.len());
        self.put(&mut out);
        finish_frame(out, FrameHeader::unordered(Kind::Want, session, epoch))
    }

    /// As a frame that brings them: `bodies`, 4096 bytes each.
    pub fn to_repair(&self, bodies: &[u8], session: u64, epoch: u32) -> Bytes {
        let mut out = Vec::with_capacity(64 + 2 * self.places.len() + bodies.len());
        self.put(&mut out);
        out.extend_from_slice(bodies);
        finish_frame(out, FrameHeader::unordered(Kind::Repair, session, epoch))
    }

    fn take(cursor: &mut Cursor<'_>) -> Result<Wanted, WireError> {
        let part = PartFields::take(cursor)?;
        let lane = cursor.u16()?;
        if lane >= LANES_MAX {
            return Err(WireError::Value("lane"));
        }
        let count = cursor.u16()?;
        if count == 0 || usize::from(count) > BATCH_PAGES_MAX {
            return Err(WireError::Length(u64::from(count)));
        }
        let mut places: Vec<u16> = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let place = cursor.u16()?;
            let rises = places.last().is_none_or(|last| *last < place);
            if usize::from(place) >= BATCH_PAGES_MAX || !rises {
                return Err(WireError::Value("place"));
            }
            places.push(place);
        }
        Ok(Wanted { part, lane, places })
    }

    /// Reads the payload of a [`Kind::Want`].
    pub fn read(payload: &[u8]) -> Result<Wanted, WireError> {
        let mut cursor = Cursor::new(payload);
        let wanted = Wanted::take(&mut cursor)?;
        cursor.end()?;
        Ok(wanted)
    }

    /// Reads the payload of a [`Kind::Repair`]: what it brings, and the pages one after the other.
    pub fn read_repair(payload: &[u8]) -> Result<(Wanted, &[[u8; PAGE_BYTES]]), WireError> {
        let mut cursor = Cursor::new(payload);
        let wanted = Wanted::take(&mut cursor)?;
        let (bodies, left) = cursor.rest().as_chunks();
        if bodies.len() != wanted.places.len() || !left.is_empty() {
            return Err(WireError::Length(cursor.rest().len() as u64));
        }
        Ok((wanted, bodies))
    }
}

const _: () = assert!(20 + BATCH_PAGES_MAX * (2 + PAGE_BYTES) <= FRAME_PAYLOAD_MAX, "a repair is one frame");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::CONNECTIONS_MAX;
    use crate::wire::FRAME_HEADER_BYTES;
    use proptest::prelude::*;

    fn wanted() -> impl Strategy<Value = Wanted> {
        let places = prop::collection::btree_set(0..BATCH_PAGES_MAX as u16, 1..=BATCH_PAGES_MAX);
        (0..CONNECTIONS_MAX, any::<u64>(), 0..LANES_MAX, places).prop_map(
            |(connection, batch, lane, places)| Wanted {
                part: PartFields { connection, batch },
                lane,
                places: places.into_iter().collect(),
            },
        )
    }

    proptest! {
        // DWCP-78
        #[test]
        fn wants_and_repairs_round_trip(wanted in wanted(), byte: u8) {
            let want = wanted.to_want(1, 2);
            prop_assert_eq!(Wanted::read(&want[FRAME_HEADER_BYTES..]), Ok(wanted.clone()));
            let bodies = vec![byte; wanted.places.len() * PAGE_BYTES];
            let repair = wanted.to_repair(&bodies, 1, 2);
            let (read, pages) = Wanted::read_repair(&repair[FRAME_HEADER_BYTES..]).unwrap();
            prop_assert_eq!(&read, &wanted);
            prop_assert_eq!(pages.as_flattened(), &bodies[..]);
            for cut in [FRAME_HEADER_BYTES, want.len() - 1, repair.len() - 1] {
                prop_assert!(Wanted::read_repair(&repair[FRAME_HEADER_BYTES..cut]).is_err());
            }
        }

        /// DWCP-3: readers are total.
        #[test]
        fn total(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Wanted::read(&bytes), Wanted::read_repair(&bytes));
        }
    }

    #[test]
    fn places_that_cannot_be_are_refused() {
        let read = |places: &[u16], lane| {
            let wanted =
                Wanted { part: PartFields { connection: 0, batch: 1 }, lane, places: places.to_vec() };
            Wanted::read(&wanted.to_want(1, 0)[FRAME_HEADER_BYTES..]).map(|_| ())
        };
        assert_eq!(read(&[0, 5], 0), Ok(()));
        assert_eq!(read(&[], 0), Err(WireError::Length(0)));
        assert_eq!(read(&[5, 5], 0), Err(WireError::Value("place")));
        assert_eq!(read(&[5, 4], 0), Err(WireError::Value("place")));
        assert_eq!(read(&[BATCH_PAGES_MAX as u16], 0), Err(WireError::Value("place")));
        assert_eq!(read(&[0], LANES_MAX), Err(WireError::Value("lane")));
        assert_eq!(read(&[0; BATCH_PAGES_MAX + 1], 0), Err(WireError::Length(BATCH_PAGES_MAX as u64 + 1)));
    }
}
