//! A bounded queue between tasks of one shard.

use super::Notify;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

/// First in, first out, at most `capacity` items; clones are the same queue. Closing it lets what is inside be taken.
#[derive(Debug)]
pub struct LocalQueue<T> {
    inner: Rc<Inner<T>>,
}

#[derive(Debug)]
struct Inner<T> {
    items: RefCell<VecDeque<T>>,
    capacity: usize,
    closed: Cell<bool>,
    changed: Notify,
}

/// The item was not taken, and comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushError<T> {
    /// There is no room now.
    Full(T),
    /// The queue was closed: there never will be.
    Closed(T),
}

impl<T> fmt::Display for PushError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "the queue is full",
            Self::Closed(_) => "the queue was closed",
        })
    }
}

impl<T> Clone for LocalQueue<T> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl<T> LocalQueue<T> {
    /// An empty queue; a capacity of zero is raised to one.
    pub fn new(capacity: usize) -> Self {
        let inner = Inner {
            items: RefCell::default(),
            capacity: capacity.max(1),
            closed: Cell::new(false),
            changed: Notify::new(),
        };
        Self { inner: Rc::new(inner) }
    }

    /// Adds `item` if there is room.
    pub fn try_push(&self, item: T) -> Result<(), PushError<T>> {
        if self.inner.closed.get() {
            return Err(PushError::Closed(item));
        }
        let mut items = self.inner.items.borrow_mut();
        if items.len() >= self.inner.capacity {
            return Err(PushError::Full(item));
        }
        items.push_back(item);
        drop(items);
        self.inner.changed.notify();
        Ok(())
    }

    /// Adds `item`, waiting for room. The item comes back if the queue is closed.
    pub async fn push(&self, mut item: T) -> Result<(), PushError<T>> {
        loop {
            match self.try_push(item) {
                Err(PushError::Full(back)) => item = back,
                done => return done,
            }
            self.inner.changed.notified().await;
        }
    }

    /// Takes the oldest item, if there is one.
    pub fn try_pop(&self) -> Option<T> {
        let item = self.inner.items.borrow_mut().pop_front();
        if item.is_some() {
            self.inner.changed.notify();
        }
        item
    }

    /// Takes the oldest item, waiting for one; `None` once the queue is closed and empty.
    pub async fn pop(&self) -> Option<T> {
        loop {
            if let Some(item) = self.try_pop() {
                return Some(item);
            }
            if self.inner.closed.get() {
                return None;
            }
            self.inner.changed.notified().await;
        }
    }

    /// Refuses further items.
    pub fn close(&self) {
        self.inner.closed.set(true);
        self.inner.changed.notify();
    }

    /// Items inside.
    pub fn len(&self) -> usize {
        self.inner.items.borrow().len()
    }

    /// Whether nothing is inside.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{spawn, testing::on_shard};

    #[test]
    fn keeps_order_and_bound_and_drains_after_close() {
        on_shard(|| async {
            let queue = LocalQueue::new(2);
            let producer = queue.clone();
            let task = spawn(async move {
                for n in 0..100 {
                    producer.push(n).await.unwrap();
                    assert!(producer.len() <= 2);
                }
                producer.close();
                assert_eq!(producer.try_push(0), Err(PushError::Closed(0)));
            });
            let mut taken = Vec::new();
            while let Some(n) = queue.pop().await {
                taken.push(n);
            }
            task.await;
            assert_eq!(taken, (0..100).collect::<Vec<_>>());
        });
    }

    #[test]
    fn a_full_queue_refuses() {
        let queue = LocalQueue::new(1);
        queue.try_push(1).unwrap();
        assert_eq!(queue.try_push(2), Err(PushError::Full(2)));
        assert_eq!(queue.try_pop(), Some(1));
    }
}
