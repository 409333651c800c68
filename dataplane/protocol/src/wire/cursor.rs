//! Reading and writing fields.

/// Why bytes from a peer are not what they should be. Nothing was changed by reading them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The payload ends inside a field.
    Short,
    /// Bytes are left over after the last field.
    Long,
    /// The header's check value does not fit: the stream is not DWCP, or was damaged.
    Check,
    /// A frame kind that this version does not have.
    Kind(u8),
    /// Flags that this version does not have (sealed frames among them).
    Flags(u8),
    /// A length beyond what this side accepts.
    Length(u64),
    /// A field whose value cannot be.
    Value(&'static str),
    /// The handshake's magic is missing.
    Magic,
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WireError::Short => write!(f, "a frame ends inside a field"),
            WireError::Long => write!(f, "a frame has bytes after its last field"),
            WireError::Check => {
                write!(f, "a frame header's check value does not fit: not DWCP, or damaged on the way")
            }
            WireError::Kind(kind) => write!(f, "unknown frame kind {kind}"),
            WireError::Flags(flags) => write!(f, "unknown frame flags {flags:#04x}"),
            WireError::Length(length) => write!(f, "a length of {length} is beyond this gateway's bound"),
            WireError::Value(field) => write!(f, "field `{field}` has a value that cannot be"),
            WireError::Magic => write!(f, "the peer does not speak DWCP"),
        }
    }
}

impl std::error::Error for WireError {}

/// A position in a payload that is being read.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

macro_rules! integers {
    ($($name:ident $type:ty),*) => {$(
        #[doc = concat!("The next little-endian `", stringify!($type), "`.")]
        pub fn $name(&mut self) -> Result<$type, WireError> {
            let (bytes, rest) = self.rest.split_first_chunk().ok_or(WireError::Short)?;
            self.rest = rest;
            Ok(<$type>::from_le_bytes(*bytes))
        }
    )*};
}

impl<'a> Cursor<'a> {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Cursor { rest: bytes }
    }

    integers!(u8 u8, u16 u16, u32 u32, u64 u64);

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(*bytes)
    }

    /// The next `length` bytes.
    pub fn bytes(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(WireError::Short)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// A text: `u16` length, at most `max` bytes. Bytes that are not UTF-8 are replaced: texts are for people.
    pub fn text(&mut self, max: usize) -> Result<String, WireError> {
        let length = usize::from(self.u16()?);
        if length > max {
            return Err(WireError::Length(length as u64));
        }
        Ok(String::from_utf8_lossy(self.bytes(length)?).into_owned())
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Checks that everything has been read.
    pub fn end(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Long) }
    }
}

/// Writes a text as [`Cursor::text`] reads it, cut at a character's edge to at most `max` bytes.
pub(super) fn put_text(out: &mut Vec<u8>, text: &str, max: usize) {
    let mut end = text.len().min(max).min(usize::from(u16::MAX));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // `end` fits: it was capped at `u16::MAX` above.
    out.extend_from_slice(&(end as u16).to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..end]);
}
