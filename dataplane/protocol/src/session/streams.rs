//! The streams of a session, and which of them may carry it (DWCP-19).

use super::Ends;
use crate::stream::StreamId;
use std::collections::BTreeMap;

/// What a stream is to carry before anything else of the session. It is made for the stream that takes it, because
/// its proof is good between that stream's ends only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The source's opening, the destination's answer to one.
    Opening,
    /// That this side still waits, which is all that it may say to a peer that has proven nothing.
    Greeting,
}

#[derive(Debug)]
struct Link {
    ends: Ends,
    due: Option<Word>,
    proven: bool,
}

/// The streams of a session.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    links: BTreeMap<StreamId, Link>,
    due: usize,
    proven: usize,
}

impl Streams {
    /// A stream that has proven nothing yet.
    pub(super) fn add(&mut self, stream: StreamId, ends: Ends) {
        self.remove(stream);
        self.links.insert(stream, Link { ends, due: None, proven: false });
    }

    /// Whether the stream was there.
    pub(super) fn remove(&mut self, stream: StreamId) -> bool {
        let Some(link) = self.links.remove(&stream) else { return false };
        self.due -= usize::from(link.due.is_some());
        self.proven -= usize::from(link.proven);
        true
    }

    /// Between whom the stream runs.
    pub(crate) fn ends(&self, stream: StreamId) -> Option<Ends> {
        self.links.get(&stream).map(|link| link.ends)
    }

    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    /// The peer has proven on this stream that it knows the session.
    pub(super) fn prove(&mut self, stream: StreamId) {
        if let Some(link) = self.links.get_mut(&stream) {
            self.proven += usize::from(!link.proven);
            link.proven = true;
        }
    }

    pub(super) fn is_proven(&self, stream: StreamId) -> bool {
        self.links.get(&stream).is_some_and(|link| link.proven)
    }

    pub(super) fn any_proven(&self) -> bool {
        self.proven > 0
    }

    /// Whether what is stuck on one stream could leave on another.
    pub(super) fn several_proven(&self) -> bool {
        self.proven > 1
    }

    /// The stream is to carry this first; an opening goes before a greeting.
    pub(crate) fn say(&mut self, stream: StreamId, word: Word) {
        if let Some(link) = self.links.get_mut(&stream) {
            self.due += usize::from(link.due.is_none());
            if link.due != Some(Word::Opening) {
                link.due = Some(word);
            }
        }
    }

    /// Every stream that has proven nothing is to carry this first.
    pub(crate) fn say_unproven(&mut self, word: Word) {
        let unproven: Vec<StreamId> =
            self.links.iter().filter(|(_, link)| !link.proven).map(|(stream, _)| *stream).collect();
        for stream in unproven {
            self.say(stream, word);
        }
    }

    pub(super) fn any_due(&self) -> bool {
        self.due > 0
    }

    /// What the stream is to carry first.
    pub(super) fn take_due(&mut self, stream: StreamId) -> Option<Word> {
        let word = self.links.get_mut(&stream)?.due.take()?;
        self.due -= 1;
        Some(word)
    }

    /// Nothing is to be said any more.
    pub(super) fn nothing_due(&mut self) {
        for link in self.links.values_mut() {
            link.due = None;
        }
        self.due = 0;
    }
}
