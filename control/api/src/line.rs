//! Lines in and out, bounded.

use serde::Serialize;

use crate::limits::LINE_BYTES_MAX;

/// A line grew past its bound, here in bytes. What follows cannot be trusted to start at a line's beginning: answer
/// with a parse error and close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a line is longer than {0} bytes")]
pub struct LineTooLong(pub usize);

/// Collects bytes as a socket delivers them and gives them back line by line.
#[derive(Debug)]
pub struct LineBuffer {
    bytes: Vec<u8>,
    /// Bytes at the front that were already searched for a newline.
    searched: usize,
    /// Longest line, in bytes.
    line_bytes_max: usize,
}

impl Default for LineBuffer {
    fn default() -> Self {
        Self::bounded(LINE_BYTES_MAX)
    }
}

impl LineBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer that takes shorter lines than [`LINE_BYTES_MAX`]: where many are connected, memory is theirs
    /// times this.
    pub fn bounded(line_bytes_max: usize) -> Self {
        Self { bytes: Vec::new(), searched: 0, line_bytes_max: line_bytes_max.min(LINE_BYTES_MAX) }
    }

    /// Appends what was read. Take every line out before feeding more: the buffer is bounded by one line and one
    /// read, not by what a peer likes to send.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole line without its newline (`\n` or `\r\n`), or `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`LineTooLong`] when the line, whole or not, exceeds the buffer's bound.
    pub fn next_line(&mut self) -> Result<Option<Vec<u8>>, LineTooLong> {
        let newline = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n');
        let Some(end) = newline.map(|position| self.searched + position) else {
            self.searched = self.bytes.len();
            return if self.bytes.len() > self.line_bytes_max {
                Err(LineTooLong(self.line_bytes_max))
            } else {
                Ok(None)
            };
        };
        if end > self.line_bytes_max {
            return Err(LineTooLong(self.line_bytes_max));
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
