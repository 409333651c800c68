//! A path between two gateways that goes wrong when a test wants it to.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::limits::RELAY_FRAME_BYTES_MAX;

/// Bytes of a frame's header; its first four are the payload's length, little-endian (docs/spec/dwcp.md, DWCP-1).
const HEADER_BYTES: usize = 32;

/// Bytes of a TLS record's header; its last two are the record's length, big-endian (RFC 8446, section 5.1).
const TLS_HEADER_BYTES: usize = 5;

/// How a TLS stream begins: a handshake record of version 3.
const TLS_HANDSHAKE: [u8; 2] = [22, 3];

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the gateway that dialled: the source's.
    There,
    /// To it.
    Back,
}

/// A frame on its way; on an encrypted stream a record of TLS, whose kind and payload say nothing.
#[derive(Debug)]
pub struct Passing {
    /// The stream it travels on, counted from 0 over the relay's life.
    pub stream: usize,
    /// Which way it goes.
    pub way: Way,
    /// Header and payload; a test may change them.
    pub bytes: Vec<u8>,
}

impl Passing {
    /// What kind of frame it is: byte 4 of its header.
    pub fn kind(&self) -> u8 {
        self.bytes[4]
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Turns one bit of the frame over; bit 0 is the lowest of its first byte.
    pub fn flip(&mut self, bit: usize) {
        self.bytes[bit / 8] ^= 1 << (bit % 8);
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Passes,
    /// This many of its bytes go on, then its stream is cut.
    Cut(usize),
    /// It vanishes with every stream, and no new one gets through.
    EndsAll,
}

type Fault = Box<dyn FnMut(&mut Passing) -> Fate + Send>;

struct Shared {
    to: SocketAddr,
    fault: Mutex<Fault>,
    /// Bytes a second that all streams together may move; 0: no limit. Takes effect at once.
    rate: AtomicUsize,
    closed: AtomicBool,
    /// New streams do not get through for now.
    dark: AtomicBool,
    streams: AtomicUsize,
    /// Both of each stream.
    sockets: Mutex<Vec<[TcpStream; 2]>>,
}

/// Relays TCP streams to a gateway, frame by frame. It ends, with its streams, when this is dropped.
pub struct Relay {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

impl Relay {
    /// Listens on a free port of loopback and relays to `to`, e.g. `tcp:127.0.0.1:9090`. Every frame is shown to
    /// `fault`, which may change it and says what becomes of it.
    ///
    /// # Errors
    /// When `to` is no address or no port is free.
    pub fn start(to: &str, fault: impl FnMut(&mut Passing) -> Fate + Send + 'static) -> Result<Self> {
        let to = to.strip_prefix("tcp:").unwrap_or(to);
        let to = to.parse().with_context(|| format!("{to} is no address of a gateway"))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening as a relay")?;
        let address = listener.local_addr().context("listening as a relay")?;
        let shared = Arc::new(Shared {
            to,
            fault: Mutex::new(Box::new(fault)),
            rate: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            dark: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            sockets: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let accepting = thread::spawn(move || accept(&serving, &listener));
        Ok(Self { shared, address, accepting: Some(accepting) })
    }

    /// Where to dial, e.g. `tcp:127.0.0.1:4711`.
    pub fn peer(&self) -> String {
        format!("tcp:{}", self.address)
    }

    /// Moves at most so many bytes a second from now on.
    pub fn set_rate(&self, bytes_per_s: usize) {
        self.shared.rate.store(bytes_per_s, Ordering::Relaxed);
    }

    /// Streams that ever were.
    pub fn streams_ever(&self) -> usize {
        self.shared.streams.load(Ordering::Relaxed)
    }

    /// Cuts one stream that is open, `choice` says which. False: there is none.
    pub fn cut_one(&self, choice: usize) -> bool {
        let mut sockets = self.shared.sockets();
        while !sockets.is_empty() {
            let index = choice % sockets.len();
            let [near, far] = sockets.swap_remove(index);
            // One that has ended by itself says so, and is none to cut.
            if near.shutdown(Shutdown::Both).is_ok() && far.shutdown(Shutdown::Both).is_ok() {
                return true;
            }
        }
        false
    }

    /// Cuts every stream, and lets no new one through until it is told otherwise.
    pub fn set_dark(&self, dark: bool) {
        self.shared.dark.store(dark, Ordering::SeqCst);
        if dark {
            self.shared.cut_all();
        }
    }

    /// Cuts every stream and lets no new one through.
    pub fn end_all(&self) {
        self.shared.end_all();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.end_all();
        // Accepting ends with the first connection after that.
        if TcpStream::connect(self.address).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn sockets(&self) -> MutexGuard<'_, Vec<[TcpStream; 2]>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_all(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.cut_all();
    }

    fn cut_all(&self) {
        for socket in self.sockets().drain(..).flatten() {
            // It may have ended by itself.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for near in listener.incoming() {
        if shared.closed.load(Ordering::SeqCst) {
            return;
        }
        let Ok(near) = near else { continue };
        if shared.dark.load(Ordering::SeqCst) {
            continue;
        }
        // A gateway that is gone: whoever dialled sees its stream closed.
        let Ok(far) = TcpStream::connect(shared.to) else { continue };
        let stream = shared.streams.fetch_add(1, Ordering::Relaxed);
        // Should a socket not be shared, the stream is closed as it is dropped here.
        let _ = join(shared, stream, near, far);
    }
}

fn join(shared: &Arc<Shared>, stream: usize, near: TcpStream, far: TcpStream) -> io::Result<()> {
    for socket in [&near, &far] {
        socket.set_nodelay(true)?;
    }
    shared.sockets().push([near.try_clone()?, far.try_clone()?]);
    for (way, from, to) in [(Way::There, near.try_clone()?, far.try_clone()?), (Way::Back, far, near)] {
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            // However it ended: neither side hears more of this stream.
            let _ = relay(&shared, stream, way, &from, &to);
            let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
        });
    }
    Ok(())
}

/// Relays one direction until its end.
fn relay(
    shared: &Shared,
    stream: usize,
    way: Way,
    mut from: &TcpStream,
    mut to: &TcpStream,
) -> io::Result<()> {
    let mut is_tls = None;
    while !shared.closed.load(Ordering::SeqCst) {
        let mut header = [0; TLS_HEADER_BYTES];
        from.read_exact(&mut header)?;
        // No frame that begins a stream is 790 bytes long.
        let whole = if *is_tls.get_or_insert(header[..2] == TLS_HANDSHAKE) {
            TLS_HEADER_BYTES + usize::from(u16::from_be_bytes([header[3], header[4]]))
        } else {
            HEADER_BYTES + u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize
        };
        if whole > HEADER_BYTES + RELAY_FRAME_BYTES_MAX {
            return Err(io::Error::other("that is no frame"));
        }
        let mut passing = Passing { stream, way, bytes: vec![0; whole] };
        passing.bytes[..TLS_HEADER_BYTES].copy_from_slice(&header);
        from.read_exact(&mut passing.bytes[TLS_HEADER_BYTES..])?;
        let started = Instant::now();
        let fate = {
            let mut fault = shared.fault.lock().unwrap_or_else(PoisonError::into_inner);
            // Another stream's frame may have ended all while this one waited.
            if shared.closed.load(Ordering::SeqCst) {
                return Ok(());
            }
            let fate = fault(&mut passing);
            if fate == Fate::EndsAll {
                shared.end_all();
            }
            fate
        };
        match fate {
            Fate::Passes => to.write_all(&passing.bytes)?,
            Fate::Cut(bytes) => return to.write_all(&passing.bytes[..bytes.min(passing.bytes.len())]),
            Fate::EndsAll => return Ok(()),
        }
        let rate = shared.rate.load(Ordering::Relaxed);
        if rate > 0 {
            // Streams take turns at this, more or less: the rate is what a test needs, not what a figure would.
            let due = Duration::from_secs_f64(passing.bytes.len() as f64 / rate as f64);
            thread::sleep(due.saturating_sub(started.elapsed()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; HEADER_BYTES];
        frame[0] = payload.len() as u8;
        frame[4] = kind;
        frame.extend_from_slice(payload);
        frame
    }

    /// A relay to a socket of ours, and both ends of a stream through it.
    fn joined(fault: impl FnMut(&mut Passing) -> Fate + Send + 'static) -> (Relay, TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let relay = Relay::start(&format!("tcp:{}", listener.local_addr().unwrap()), fault).unwrap();
        let near = TcpStream::connect(relay.peer().strip_prefix("tcp:").unwrap()).unwrap();
        let far = listener.accept().unwrap().0;
        for socket in [&near, &far] {
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        }
        (relay, near, far)
    }

    #[test]
    fn frames_pass_are_damaged_and_cut() {
        let (relay, mut near, mut far) = joined(|passing| match (passing.way, passing.kind()) {
            (Way::Back, _) => Fate::Passes,
            (Way::There, 2) => {
                passing.flip(8 * HEADER_BYTES + 1);
                Fate::Passes
            }
            (Way::There, 3) => Fate::Cut(HEADER_BYTES + 1),
            (Way::There, _) => Fate::Passes,
        });
        for sent in [frame(1, b"as it is"), frame(2, b"a"), frame(3, b"cut here")] {
            near.write_all(&sent).unwrap();
        }
        far.write_all(&frame(3, b"back")).unwrap();
        let mut arrived = Vec::new();
        far.read_to_end(&mut arrived).unwrap();
        let cut = frame(3, b"cut here")[..HEADER_BYTES + 1].to_vec();
        assert_eq!(arrived, [frame(1, b"as it is"), frame(2, b"c"), cut].concat());
        assert_eq!(relay.streams_ever(), 1);
    }

    #[test]
    fn streams_are_cut_one_by_one_and_come_back_when_it_is_light_again() {
        // It goes on listening: streams come back to it.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let relay =
            Relay::start(&format!("tcp:{}", listener.local_addr().unwrap()), |_| Fate::Passes).unwrap();
        let mut near = TcpStream::connect(relay.peer().strip_prefix("tcp:").unwrap()).unwrap();
        near.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _far = listener.accept().unwrap().0;
        // The far end may have it a moment before the relay counts it.
        crate::wait::until("a stream to cut", Duration::from_secs(10), || Ok(relay.cut_one(7).then_some(())))
            .unwrap();
        let mut rest = Vec::new();
        assert_eq!(near.read_to_end(&mut rest).unwrap_or(0), 0);
        relay.set_dark(true);
        let address = relay.peer();
        let address = address.strip_prefix("tcp:").unwrap();
        let mut dark = TcpStream::connect(address).unwrap();
        assert_eq!(dark.read_to_end(&mut rest).unwrap_or(0), 0);
        assert_eq!(relay.streams_ever(), 1);
        relay.set_dark(false);
        let again = TcpStream::connect(address).unwrap();
        crate::wait::until("another stream", Duration::from_secs(10), || {
            Ok((relay.streams_ever() == 2).then_some(()))
        })
        .unwrap();
        drop(again);
    }

    #[test]
    fn an_ended_relay_lets_nothing_through() {
        let (relay, mut near, mut far) = joined(|_| Fate::EndsAll);
        near.write_all(&frame(1, b"lost")).unwrap();
        let mut rest = Vec::new();
        assert_eq!(far.read_to_end(&mut rest).unwrap(), 0);
        assert_eq!(near.read_to_end(&mut rest).unwrap_or(0), 0);
        let late = TcpStream::connect(relay.peer().strip_prefix("tcp:").unwrap());
        assert!(late.is_err() || late.unwrap().read_to_end(&mut rest).is_ok_and(|count| count == 0));
    }
}
