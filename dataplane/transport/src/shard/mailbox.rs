//! Bounded messages between shards, and from threads that are no shards.

use crate::waiters::{Ticket, Waiters};
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

/// A mailbox for at most `capacity` messages (zero is raised to one): many may send, one receives.
pub fn mailbox<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let shared = Arc::new(Shared {
        capacity: capacity.max(1),
        state: Mutex::new(State { messages: VecDeque::new(), senders: 1, receiver: true }),
        receiver_waits: Waiters::default(),
        senders_wait: Waiters::default(),
    });
    (Sender { shared: Arc::clone(&shared) }, Receiver { shared, ticket: Ticket::default() })
}

struct Shared<T> {
    capacity: usize,
    state: Mutex<State<T>>,
    receiver_waits: Waiters,
    senders_wait: Waiters,
}

struct State<T> {
    messages: VecDeque<T>,
    senders: usize,
    receiver: bool,
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing in the critical sections can panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mailbox's receiver is gone; the message comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendError<T>(pub T);

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the receiver is gone; the message was not delivered")
    }
}

/// Why a message was not taken at once; it comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MailboxFull<T> {
    /// There is no room now.
    Full(T),
    /// The receiver is gone.
    Closed(T),
}

/// Sends to a mailbox, from any thread. Clones send to the same one.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.lock().senders += 1;
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let last = {
            let mut state = self.shared.lock();
            state.senders -= 1;
            state.senders == 0
        };
        if last {
            self.shared.receiver_waits.wake_all();
        }
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T: Send> Sender<T> {
    /// Sends without waiting. Works on any thread, shard or not.
    pub fn try_send(&self, message: T) -> Result<(), MailboxFull<T>> {
        {
            let mut state = self.shared.lock();
            if !state.receiver {
                return Err(MailboxFull::Closed(message));
            }
            if state.messages.len() >= self.shared.capacity {
                return Err(MailboxFull::Full(message));
            }
            state.messages.push_back(message);
        }
        self.shared.receiver_waits.wake_all();
        Ok(())
    }

    /// Sends, waiting for room. Await it on the shard that polls it first.
    pub async fn send(&self, message: T) -> Result<(), SendError<T>> {
        let mut message = Some(message);
        let mut waiting = Leaving { waiters: &self.shared.senders_wait, ticket: Ticket::default() };
        poll_fn(|cx| {
            for enter in [true, false] {
                let Some(held) = message.take() else { return Poll::Ready(Ok(())) };
                match self.try_send(held) {
                    Ok(()) => return Poll::Ready(Ok(())),
                    Err(MailboxFull::Closed(back)) => return Poll::Ready(Err(SendError(back))),
                    Err(MailboxFull::Full(back)) => message = Some(back),
                }
                if enter {
                    // Room may appear between the first look and this; hence the second look.
                    self.shared.senders_wait.enter(&mut waiting.ticket, cx.waker());
                }
            }
            Poll::Pending
        })
        .await
    }
}

struct Leaving<'a> {
    waiters: &'a Waiters,
    ticket: Ticket,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.waiters.leave(&mut self.ticket);
    }
}

/// Receives from a mailbox. It may move to another shard until it first waits; from then on it stays.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    ticket: Ticket,
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl<T> Receiver<T> {
    /// Takes the oldest message, if there is one.
    pub fn try_receive(&mut self) -> Option<T> {
        let message = self.shared.lock().messages.pop_front();
        if message.is_some() {
            self.shared.senders_wait.wake_all();
        }
        message
    }

    /// The next message; `None` once every sender is gone and the mailbox is empty.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        for enter in [true, false] {
            let (message, senders) = {
                let mut state = self.shared.lock();
                (state.messages.pop_front(), state.senders)
            };
            if message.is_some() {
                self.shared.senders_wait.wake_all();
                return Poll::Ready(message);
            }
            if senders == 0 {
                return Poll::Ready(None);
            }
            if enter {
                self.shared.receiver_waits.enter(&mut self.ticket, cx.waker());
            }
        }
        Poll::Pending
    }

    /// The next message; `None` once every sender is gone and the mailbox is empty. Cancelling loses nothing.
    pub async fn receive(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_receive(cx)).await
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receiver_waits.leave(&mut self.ticket);
        let undelivered = {
            let mut state = self.shared.lock();
            state.receiver = false;
            std::mem::take(&mut state.messages)
        };
        // Outside the lock: a message may own another end of this mailbox.
        drop(undelivered);
        self.shared.senders_wait.wake_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{RuntimeConfig, run_shards, testing::on_shard, timeout};
    use std::time::Duration;

    #[test]
    fn messages_cross_shards_in_order_and_within_the_bound() {
        const MESSAGES: u64 = 20_000;
        let (sender, receiver) = mailbox::<u64>(8);
        let ends = Arc::new(Mutex::new((Some(sender), Some(receiver))));
        let shards = run_shards(&RuntimeConfig { shards: 2, ..RuntimeConfig::default() }, move |shard| {
            let ends = Arc::clone(&ends);
            async move {
                if shard.index == 0 {
                    let sender = ends.lock().unwrap().0.take().unwrap();
                    for n in 0..MESSAGES {
                        sender.send(n).await.unwrap();
                    }
                } else {
                    let mut receiver = ends.lock().unwrap().1.take().unwrap();
                    for n in 0..MESSAGES {
                        assert_eq!(receiver.receive().await, Some(n));
                    }
                    assert_eq!(receiver.receive().await, None);
                }
            }
        })
        .unwrap();
        shards.join().unwrap();
    }

    #[test]
    fn a_thread_that_is_no_shard_wakes_a_sleeping_one() {
        on_shard(|| async {
            let (sender, mut receiver) = mailbox(1);
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                sender.try_send(5).unwrap();
                sender
            });
            assert_eq!(timeout(Duration::from_secs(5), receiver.receive()).await, Some(Some(5)));
            let sender = timeout(Duration::from_secs(5), async { thread.join().unwrap() }).await.unwrap();
            sender.try_send(6).unwrap();
            assert_eq!(sender.try_send(7), Err(MailboxFull::Full(7)));
            drop(receiver);
            assert_eq!(sender.send(7).await, Err(SendError(7)));
        });
    }
}
