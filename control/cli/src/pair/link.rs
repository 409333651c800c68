//! The messages of a pairing over TCP: a length of four bytes, then as many bytes; a deadline for each.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use novacron_control_api::Endpoint;
use novacron_keys::limits::PAIRING_MESSAGE_BYTES_MAX;

use crate::limits::PAIR_CONNECT;

/// A connection on which messages are exchanged.
pub(super) struct Link {
    stream: TcpStream,
}

/// Why a message did not come or go.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// It took too long.
    #[error("the other side says nothing")]
    Late,
    /// It is gone.
    #[error("the other side closed the connection")]
    Closed,
    /// It is too long.
    #[error("the other side announces a message of {0} bytes; at most {PAIRING_MESSAGE_BYTES_MAX} are taken")]
    Long(usize),
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Socket(std::io::Error),
}

impl From<std::io::Error> for LinkError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Late,
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Socket(error),
        }
    }
}

impl Link {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream }
    }

    /// Dials every address of an endpoint until one answers.
    pub(super) fn dial(endpoint: &Endpoint) -> Result<Self, String> {
        let Endpoint::Tcp { host, port } = endpoint else { return Err("sites meet over tcp".into()) };
        let addresses =
            (host.as_str(), *port).to_socket_addrs().map_err(|why| format!("{host} is not known: {why}"))?;
        let mut last = format!("{host} has no address");
        for address in addresses.take(crate::limits::ADDRESSES_MAX) {
            match TcpStream::connect_timeout(&address, PAIR_CONNECT) {
                Ok(stream) => return Ok(Self::new(stream)),
                Err(why) => last = format!("{address}: {why}"),
            }
        }
        Err(last)
    }

    pub(super) fn send(&mut self, message: &[u8]) -> Result<(), LinkError> {
        self.stream.set_write_timeout(Some(PAIR_CONNECT))?;
        let length = u32::try_from(message.len()).map_err(|_| LinkError::Long(message.len()))?;
        self.stream.write_all(&length.to_be_bytes())?;
        Ok(self.stream.write_all(message)?)
    }

    /// The next message; all of it within `wait`, however slowly its bytes come.
    pub(super) fn receive(&mut self, wait: Duration) -> Result<Vec<u8>, LinkError> {
        let deadline = Instant::now() + wait;
        let mut length = [0; 4];
        self.fill(&mut length, deadline)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > PAIRING_MESSAGE_BYTES_MAX {
            return Err(LinkError::Long(length));
        }
        let mut message = vec![0; length];
        self.fill(&mut message, deadline)?;
        Ok(message)
    }

    fn fill(&mut self, mut room: &mut [u8], deadline: Instant) -> Result<(), LinkError> {
        while !room.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left < Duration::from_micros(1) {
                return Err(LinkError::Late);
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(room) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(count) => room = &mut room[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
