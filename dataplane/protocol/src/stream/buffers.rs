//! Memory that frames and verified bytes stood in, for the next ones: what is steady allocates nothing.

use crate::limits::{SPARE_BYTES_MAX, SPARE_CLASS_BYTES, SPARE_CLASSES};
use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::rc::Rc;

/// Memory to be used again. Clones share it, and so may sessions of one thread: who carries much takes what others do not need now.
#[derive(Clone)]
pub struct Buffers {
    shared: Rc<RefCell<Spares>>,
    bytes_max: usize,
}

#[derive(Default)]
struct Spares {
    /// For frames and assembled batches, which others come to share.
    shared: Classes<BytesMut>,
    /// For decoded pages. They keep their length: what is overwritten need not be filled with zeros first.
    own: Classes<Vec<u8>>,
    bytes: usize,
}

/// Buffers by the class of their capacity.
type Classes<B> = [Vec<B>; SPARE_CLASSES];

/// The class of buffers with room for so many bytes; beyond the largest there is none, and nothing is sent.
fn class_for(bytes: usize) -> Option<usize> {
    SPARE_CLASS_BYTES.iter().position(|class| *class >= bytes)
}

/// The class that a buffer serves which has room for so many.
fn class_of(capacity: usize) -> Option<usize> {
    SPARE_CLASS_BYTES.iter().rposition(|class| *class <= capacity)
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new(SPARE_BYTES_MAX)
    }
}

impl Buffers {
    /// At most `bytes_max` bytes are kept while nobody uses them.
    pub fn new(bytes_max: usize) -> Self {
        Buffers { shared: Rc::default(), bytes_max }
    }

    /// An empty buffer with room for `bytes`. One that is frozen can be given back when it is needed no more.
    pub(crate) fn take(&self, bytes: usize) -> BytesMut {
        self.spare(bytes, |spares| &mut spares.shared).unwrap_or_else(|capacity| {
            let mut buffer = BytesMut::with_capacity(capacity);
            // Once it was split it counts its users, wherever they are: freezing it and taking it back allocate nothing.
            drop(buffer.split_off(buffer.capacity()));
            buffer
        })
    }

    /// A buffer of anybody's bytes, with room for `bytes`.
    pub(crate) fn take_own(&self, bytes: usize) -> Vec<u8> {
        self.spare(bytes, |spares| &mut spares.own).unwrap_or_else(Vec::with_capacity)
    }

    /// Bytes that are needed no more. Where somebody else still holds them, or their memory is of another kind, they are let go.
    pub(crate) fn give_back(&self, bytes: Bytes) {
        let Ok(mut buffer) = bytes.try_into_mut() else { return };
        buffer.clear();
        self.keep(buffer.capacity(), buffer, |spares| &mut spares.shared);
    }

    /// A buffer that is needed no more.
    pub(crate) fn give_back_own(&self, buffer: Vec<u8>) {
        self.keep(buffer.capacity(), buffer, |spares| &mut spares.own);
    }

    /// A buffer that is kept; an error: how large the new one is to be.
    fn spare<B>(&self, bytes: usize, of: impl Fn(&mut Spares) -> &mut Classes<B>) -> Result<B, usize> {
        let Some(class) = class_for(bytes) else { return Err(bytes) };
        let mut spares = self.shared.borrow_mut();
        // One of the next class will do: sizes waver about the bounds of classes.
        let there =
            (class..SPARE_CLASSES).take(2).find_map(|class| Some((class, of(&mut spares)[class].pop()?)));
        let (class, buffer) = there.ok_or(SPARE_CLASS_BYTES[class])?;
        spares.bytes -= SPARE_CLASS_BYTES[class];
        Ok(buffer)
    }

    fn keep<B>(&self, capacity: usize, buffer: B, of: impl Fn(&mut Spares) -> &mut Classes<B>) {
        let Some(class) = class_of(capacity) else { return };
        let mut spares = self.shared.borrow_mut();
        if spares.bytes + SPARE_CLASS_BYTES[class] <= self.bytes_max {
            spares.bytes += SPARE_CLASS_BYTES[class];
            of(&mut spares)[class].push(buffer);
        }
    }
}

/// Guest bytes stay out of logs.
impl std::fmt::Debug for Buffers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buffers").field("kept_bytes", &self.shared.borrow_mut().bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(buffers: &Buffers, bytes: usize) -> Bytes {
        let mut buffer = buffers.take(bytes);
        buffer.resize(bytes, 7);
        buffer.freeze()
    }

    #[test]
    fn memory_is_used_again_once_nobody_holds_it() {
        let buffers = Buffers::default();
        let bytes = filled(&buffers, 5000);
        let (place, held) = (bytes.as_ptr(), bytes.clone());
        buffers.give_back(bytes);
        assert_ne!(filled(&buffers, 5000).as_ptr(), place, "somebody reads it");
        buffers.give_back(held);
        assert_eq!(filled(&buffers, 6000).as_ptr(), place, "of the same class");
    }

    #[test]
    fn no_more_is_kept_than_was_asked_for() {
        let buffers = Buffers::new(SPARE_CLASS_BYTES[3] + SPARE_CLASS_BYTES[0]);
        let all = [3, 3, 0, 0].map(|class| filled(&buffers, SPARE_CLASS_BYTES[class]));
        all.into_iter().for_each(|bytes| buffers.give_back(bytes));
        let kept = buffers.shared.borrow();
        assert_eq!(kept.shared.each_ref().map(Vec::len)[..4], [1, 0, 0, 1]);
        assert_eq!(kept.bytes, SPARE_CLASS_BYTES[3] + SPARE_CLASS_BYTES[0]);
    }

    #[test]
    fn what_is_of_no_class_is_made_and_let_go() {
        let buffers = Buffers::default();
        let largest = SPARE_CLASS_BYTES[SPARE_CLASSES - 1];
        assert!(buffers.take(largest + 1).capacity() > largest);
        buffers.give_back(Bytes::from_static(b"foreign"));
        buffers.give_back(Bytes::copy_from_slice(b"too small"));
        assert_eq!(buffers.shared.borrow().bytes, 0);
    }
}
