//! Memory of small frames, which is not the pool's.

use crate::limits::{SMALL_FRAME_BYTES_MAX, SMALL_FRAMES_KEPT};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Copies small frames into memory of earlier ones, where nobody holds those any more.
#[derive(Default)]
pub(super) struct SmallFrames {
    /// Those in memory that is kept, the oldest first.
    kept: VecDeque<Bytes>,
}

impl SmallFrames {
    /// `frame`, of at most [`SMALL_FRAME_BYTES_MAX`] bytes, in memory of its own.
    pub(super) fn copy(&mut self, frame: &[u8]) -> Bytes {
        let Some(mut memory) = self.memory() else { return Bytes::copy_from_slice(frame) };
        memory.extend_from_slice(frame);
        let frame = memory.freeze();
        self.kept.push_back(frame.clone());
        frame
    }

    /// Empty, with room for any small frame; `None`: all that may be kept is in use.
    fn memory(&mut self) -> Option<BytesMut> {
        match self.kept.pop_front().map(Bytes::try_into_mut) {
            Some(Ok(mut memory)) => {
                memory.clear();
                return Some(memory);
            }
            // Somebody waits with it; the next one may be free sooner.
            Some(Err(held)) => self.kept.push_back(held),
            None => {}
        }
        (self.kept.len() < SMALL_FRAMES_KEPT).then(|| {
            let mut memory = BytesMut::with_capacity(SMALL_FRAME_BYTES_MAX);
            // Once it was split it counts its users: freezing it and taking it back allocate nothing.
            drop(memory.split_off(memory.capacity()));
            memory
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_used_again_and_never_while_it_is_read() {
        let mut small = SmallFrames::default();
        let place = small.copy(b"first").as_ptr();
        let again = small.copy(&[7; SMALL_FRAME_BYTES_MAX]);
        assert_eq!(again.as_ptr(), place);
        let other = small.copy(b"other");
        assert_eq!((&again[..], &other[..]), (&[7; SMALL_FRAME_BYTES_MAX][..], &b"other"[..]));
    }

    #[test]
    fn who_holds_frames_does_not_make_a_stream_keep_more() {
        let mut small = SmallFrames::default();
        let held: Vec<_> = (0..200u8).map(|number| small.copy(&[number; 10])).collect();
        assert_eq!(small.kept.len(), SMALL_FRAMES_KEPT);
        assert!(held.iter().zip(0u8..).all(|(frame, number)| frame[..] == [number; 10]));
    }
}
