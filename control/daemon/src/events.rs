//! What happens: numbered, kept a while, told to whoever asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use novacron_control_api::Timestamp;
use novacron_control_api::control::Event;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::limits::{EVENTS_KEPT, EVENTS_QUEUED_MAX};

/// All events of this run. Telling never waits: a subscriber that is slow loses events, alone.
pub(crate) struct Events {
    kept: Mutex<VecDeque<Arc<Event>>>,
    sender: broadcast::Sender<Arc<Event>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { kept: Mutex::new(VecDeque::new()), sender: broadcast::Sender::new(EVENTS_QUEUED_MAX) }
    }

    pub(crate) fn tell(&self, kind: &str, subject: &str, text: String, data: Value) {
        // Numbered and sent under one lock, so that numbers ascend for everybody.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let number = kept.back().map_or(1, |event| event.number + 1);
        let (kind, subject) = (kind.to_owned(), subject.to_owned());
        let event = Arc::new(Event { number, at: Timestamp::now(), kind, subject, text, data });
        if kept.len() >= EVENTS_KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::clone(&event));
        // Nobody listens: then nobody is told.
        let _ = self.sender.send(event);
    }

    /// The last events, and what comes after them.
    pub(crate) fn subscribe(&self) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.iter().cloned().collect(), self.sender.subscribe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_gaps_and_a_slow_subscriber_loses_alone() {
        let events = Events::new();
        let (kept, mut slow) = events.subscribe();
        assert!(kept.is_empty());
        let count = EVENTS_QUEUED_MAX as u64 + 5;
        for at in 0..count {
            events.tell("k", "s", at.to_string(), Value::Null);
        }
        let (kept, _) = events.subscribe();
        assert_eq!(kept.len(), EVENTS_KEPT);
        assert_eq!(kept.last().unwrap().number, count);
        assert!(kept.windows(2).all(|pair| pair[1].number == pair[0].number + 1));
        assert_eq!(slow.try_recv().unwrap_err(), broadcast::error::TryRecvError::Lagged(5));
        assert_eq!(slow.try_recv().unwrap().number, 6);
    }
}
