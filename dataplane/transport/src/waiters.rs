//! Wakers that other threads may call but never own.
//!
//! A glommio task's waker may be *called* from any thread, yet dropping its last clone on a foreign thread races with the
//! task's destruction on its own (glommio `task/raw.rs`, `drop_waker`). So wakers stay here, foreign threads call them by
//! reference, and only the task that registered one replaces or removes it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// A set of waiting tasks. Its size is bounded by the number of living [`Ticket`]s.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    ticket: u64,
    waker: Waker,
    woken: bool,
}

/// Identifies one waiting task within a set; give it back with [`Waiters::leave`], on the task's own thread.
#[derive(Debug, Default)]
pub(crate) struct Ticket(Option<u64>);

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panic cannot leave the list half changed: every change is one push, remove or assignment.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `waker` at the next wake, once. The caller looks at its condition again *after* this.
    pub(crate) fn enter(&self, ticket: &mut Ticket, waker: &Waker) {
        let mut waiting = self.lock();
        if let Some(id) = ticket.0
            && let Some(entry) = waiting.entries.iter_mut().find(|e| e.ticket == id)
        {
            entry.woken = false;
            if !entry.waker.will_wake(waker) {
                entry.waker = waker.clone();
            }
            return;
        }
        let id = waiting.next;
        waiting.next += 1;
        waiting.entries.push(Entry { ticket: id, waker: waker.clone(), woken: false });
        ticket.0 = Some(id);
    }

    /// Stops waiting.
    pub(crate) fn leave(&self, ticket: &mut Ticket) {
        if let Some(id) = ticket.0.take() {
            self.lock().entries.retain(|e| e.ticket != id);
        }
    }

    /// Wakes everybody who waits. Safe from any thread.
    pub(crate) fn wake_all(&self) {
        for entry in &mut self.lock().entries {
            if !entry.woken {
                entry.woken = true;
                entry.waker.wake_by_ref();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn wakes_once_per_enter_and_never_after_leave() {
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&count));
        let waiters = Waiters::default();
        let mut ticket = Ticket::default();
        waiters.enter(&mut ticket, &waker);
        waiters.enter(&mut ticket, &waker);
        waiters.wake_all();
        waiters.wake_all();
        assert_eq!(count.0.load(Ordering::SeqCst), 1);
        waiters.enter(&mut ticket, &waker);
        waiters.wake_all();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        waiters.leave(&mut ticket);
        waiters.wake_all();
        assert_eq!(count.0.load(Ordering::SeqCst), 2);
        assert!(waiters.lock().entries.is_empty());
    }
}
