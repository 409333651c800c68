//! Hypervisors as a gateway sees them: the two ends of a socket, and what is known about the bytes that cross it.

use crate::random::mix;
use bytes::Bytes;

/// What a hypervisor writes on one connection in one direction: every byte is a function of its position, so
/// that whoever holds a position can check a byte without a copy of the stream.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Words without meaning.
    Words(u64),
    /// A stream with a hypervisor's structure.
    Stream(Bytes),
}

impl Content {
    /// The bytes at `position`.
    pub(crate) fn fill(&self, position: u64, out: &mut [u8]) {
        match self {
            Content::Words(key) => {
                let mut at = position;
                let mut rest = out;
                while !rest.is_empty() {
                    let word = mix(key ^ (at / 8)).to_le_bytes();
                    let from = (at % 8) as usize;
                    let count = rest.len().min(8 - from);
                    rest[..count].copy_from_slice(&word[from..from + count]);
                    rest = &mut rest[count..];
                    at += count as u64;
                }
            }
            Content::Stream(bytes) => out.copy_from_slice(&bytes[position as usize..][..out.len()]),
        }
    }

    /// Where `bytes`, said to stand at `position`, first differ from what was written.
    pub(crate) fn difference(&self, position: u64, bytes: &[u8]) -> Option<u64> {
        let mut expected = vec![0; bytes.len()];
        self.fill(position, &mut expected);
        if expected == bytes {
            return None;
        }
        let at = expected.iter().zip(bytes).position(|(a, b)| a != b)?;
        Some(position + at as u64)
    }
}

/// The writing end of a hypervisor's socket, with the socket's buffer.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    pub(crate) content: Content,
    /// Bytes that will be written in all; less where the hypervisor dies before.
    pub(crate) total: u64,
    pub(crate) written: u64,
    pub(crate) closed: bool,
    /// Bytes that the gateway has read.
    pub(crate) read: u64,
    /// What the socket holds.
    pub(crate) capacity: u64,
}

impl Writer {
    pub(crate) fn new(content: Content, total: u64, capacity: u64) -> Self {
        Writer { content, total, written: 0, closed: false, read: 0, capacity }
    }

    /// Bytes that the gateway could read now.
    pub(crate) fn available(&self) -> u64 {
        self.written - self.read
    }

    /// The gateway's read returns 0.
    pub(crate) fn at_eof(&self) -> bool {
        self.closed && self.read == self.written
    }

    /// The hypervisor writes up to `bytes`; returns how many the socket took.
    pub(crate) fn write(&mut self, bytes: u64) -> u64 {
        let taken = bytes.min(self.total - self.written).min(self.capacity - self.available());
        self.written += taken;
        taken
    }
}

/// The reading end of a hypervisor's socket, with the socket's buffer.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(crate) capacity: u64,
    /// Bytes that the gateway has written to the socket.
    pub(crate) delivered: u64,
    /// Bytes that the hypervisor has read.
    pub(crate) taken: u64,
    /// The gateway has closed its side.
    pub(crate) eof: bool,
    /// The hypervisor has closed the socket: what the gateway writes goes nowhere.
    pub(crate) gone: bool,
}

impl Reader {
    pub(crate) fn new(capacity: u64) -> Self {
        Reader { capacity, delivered: 0, taken: 0, eof: false, gone: false }
    }

    /// Bytes that the socket takes now.
    pub(crate) fn room(&self) -> u64 {
        if self.gone { u64::MAX } else { self.capacity - (self.delivered - self.taken) }
    }

    /// The hypervisor reads up to `bytes`.
    pub(crate) fn read(&mut self, bytes: u64) -> u64 {
        let taken = bytes.min(self.delivered - self.taken);
        self.taken += taken;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_a_function_of_position() {
        let content = Content::Words(5);
        let mut whole = [0; 100];
        content.fill(0, &mut whole);
        for from in 0..100 {
            for to in from..100 {
                assert_eq!(content.difference(from as u64, &whole[from..to]), None);
            }
        }
        whole[40] ^= 1;
        assert_eq!(content.difference(30, &whole[30..50]), Some(40));
    }
}
