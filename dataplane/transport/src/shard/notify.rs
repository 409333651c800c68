//! Waking tasks of the same shard.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// Tells tasks of one shard that something changed. Clones are the same notification. What changed is for the woken to
/// look up: `loop { if condition() { break } notify.notified().await }` misses nothing, because tasks of one shard cannot
/// change the condition between the look and the wait.
#[derive(Debug, Clone, Default)]
pub struct Notify {
    state: Rc<RefCell<State>>,
}

#[derive(Debug, Default)]
struct State {
    generation: u64,
    next: u64,
    waiting: Vec<(u64, Waker)>,
}

impl Notify {
    /// A notification that nobody waits for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes everybody who waits now.
    pub fn notify(&self) {
        let woken = {
            let mut state = self.state.borrow_mut();
            state.generation += 1;
            std::mem::take(&mut state.waiting)
        };
        for (_, waker) in woken {
            waker.wake();
        }
    }

    /// Completes at the first [`Notify::notify`] after this call.
    pub fn notified(&self) -> Notified {
        let mut state = self.state.borrow_mut();
        let id = state.next;
        state.next += 1;
        Notified { generation: state.generation, state: Rc::clone(&self.state), id }
    }
}

/// See [`Notify::notified`].
#[derive(Debug)]
#[must_use = "nothing waits until it is awaited"]
pub struct Notified {
    state: Rc<RefCell<State>>,
    generation: u64,
    id: u64,
}

impl Future for Notified {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        if state.generation != self.generation {
            return Poll::Ready(());
        }
        let id = self.id;
        match state.waiting.iter_mut().find(|(waiting, _)| *waiting == id) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => state.waiting.push((id, cx.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Notified {
    fn drop(&mut self) {
        self.state.borrow_mut().waiting.retain(|(id, _)| *id != self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{race, sleep, spawn, testing::on_shard, yield_now};
    use std::cell::Cell;
    use std::time::Duration;

    #[test]
    fn wakes_all_who_wait_and_forgets_who_left() {
        on_shard(|| async {
            let notify = Notify::new();
            let woken = Rc::new(Cell::new(0));
            for _ in 0..3 {
                let (notify, woken) = (notify.clone(), Rc::clone(&woken));
                spawn(async move {
                    notify.notified().await;
                    woken.set(woken.get() + 1);
                })
                .detach();
            }
            yield_now().await;
            assert_eq!(woken.get(), 0);
            notify.notify();
            sleep(Duration::from_millis(5)).await;
            assert_eq!(woken.get(), 3);

            race(notify.notified(), sleep(Duration::from_millis(1))).await;
            assert!(notify.state.borrow().waiting.is_empty());
        });
    }

    #[test]
    fn a_notification_between_the_call_and_the_wait_counts() {
        on_shard(|| async {
            let notify = Notify::new();
            let notified = notify.notified();
            notify.notify();
            notified.await;
        });
    }
}
