//! Lines in and out, bounded.

use serde::Serialize;

use crate::limits::LINE_BYTES_MAX;

/// A line grew past [`LINE_BYTES_MAX`]. What follows cannot be trusted to start at a line's beginning: answer
/// with a parse error and close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {LINE_BYTES_MAX} bytes")]
pub struct LineTooLong;

/// Collects bytes as a socket delivers them and gives them back line by line.
#[derive(Debug, Default)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    /// Bytes at the front that were already searched for a newline.
    searched: usize,
}

impl LineBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends what was read. Take every line out before feeding more: the buffer is bounded by one line and one
    /// read, not by what a peer likes to send.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line without its newline (`\n` or `\r\n`), or `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`LineTooLong`] when the line, whole or not, exceeds [`LINE_BYTES_MAX`].
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineTooLong> {
        let newline = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = newline.map(|position| self.searched + position) else {
            self.searched = self.bytes.len();
            return if self.bytes.len() > LINE_BYTES_MAX { Err(LineTooLong) } else { Ok(None) };
        };
        if end > LINE_BYTES_MAX {
            return Err(LineTooLong);
        }
        let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
        self.searched = 0;
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Ok(Some(line))
    }
}

/// One object as one line, newline included.
///
/// The types of this crate always serialise; should a caller's own type fail to, the line is empty.
pub fn to_line<T: Serialize>(object: &T) -> Vec<u8> {
    let mut line = serde_json::to_vec(object).unwrap_or_default();
    line.push(b'\n');
    line
}
