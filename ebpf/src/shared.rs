//! An array map of the program as memory of this process.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// Types that any bytes are a value of, and that are as long as a map's entries: the program's.
///
/// # Safety
/// `#[repr(C)]`, without padding, a multiple of 8 bytes long and aligned to 8 at most.
pub(crate) unsafe trait Entry: Copy {}

// SAFETY: sizes are asserted in `abi`, where all fields are integers.
unsafe impl Entry for crate::abi::Peer {}
// SAFETY: as above.
unsafe impl Entry for crate::abi::ProcessorCounters {}

/// The entries of an array map made with `BPF_F_MMAPABLE`.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    first: NonNull<u64>,
    entries: usize,
    bytes: usize,
    entry: PhantomData<T>,
}

// SAFETY: the memory is the kernel's, is reached by volatile accesses only, and stays until the mapping is dropped.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T: Entry> Shared<T> {
    /// Maps the entries of an array.
    pub(crate) fn map(map: BorrowedFd<'_>, entries: usize) -> io::Result<Self> {
        let bytes = entries * size_of::<T>();
        // SAFETY: a new mapping at an address that the kernel chooses; the map is at least this long, rounded up to pages.
        let at = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), bytes, access, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let first = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("a map at address 0"))?;
        Ok(Shared { first, entries, bytes, entry: PhantomData })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries
    }

    /// An entry; `None` beyond the last. The program may be writing it: each word of eight bytes is whole.
    pub(crate) fn get(&self, at: usize) -> Option<T> {
        (at < self.entries).then(|| {
            // SAFETY: within the mapping, aligned to 8 since entries are a multiple of that; any bytes are a `T`.
            unsafe { self.first.cast::<T>().add(at).read_volatile() }
        })
    }

    /// Writes an entry, word by word; beyond the last nothing is written.
    pub(crate) fn set(&mut self, at: usize, entry: &T) {
        if at >= self.entries {
            return;
        }
        let words = size_of::<T>() / 8;
        for word in 0..words {
            // SAFETY: both within a `T`, which is a multiple of 8 bytes long; the mapping's entries are aligned to 8, and the
            // source is read without asking for that.
            unsafe {
                let from = std::ptr::from_ref(entry).cast::<u64>().add(word).read_unaligned();
                let to = self.first.add(at * words + word);
                // Words that did not change are not written: the program reads meanwhile.
                if to.read_volatile() != from {
                    to.write_volatile(from);
                }
            }
        }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: what `map` mapped, once; nothing borrows from it.
        unsafe { libc::munmap(self.first.as_ptr().cast(), self.bytes) };
    }
}
