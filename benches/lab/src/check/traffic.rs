//! Traffic between two sites, and what arrives of it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rustix::net::sockopt::set_socket_recv_buffer_size_force;

use crate::lab::Lab;
use crate::limits::{CHECK_SILENCE, CHECK_SOCKET_BYTES, CHECK_WINDOW_PACKETS};

/// Bytes of an Ethernet, IPv4 and UDP header.
const HEADER_BYTES: usize = 14 + 20 + 8;
/// What fills a frame of 1514 bytes.
const FULL_BYTES: usize = 1514 - HEADER_BYTES;

/// A UDP socket in each site, `a`'s connected to `b`'s.
fn sockets(lab: &Lab) -> Result<(UdpSocket, UdpSocket)> {
    let bind = |name: &str| -> Result<UdpSocket> {
        let site = lab.site(name)?;
        let address = site.address();
        let socket = site.within(|| UdpSocket::bind((address, 0)).context("opening a socket in a site"))?;
        socket.set_read_timeout(Some(CHECK_SILENCE)).context("limiting a wait")?;
        // Forced, as the usual limit holds a few milliseconds of a gigabit.
        set_socket_recv_buffer_size_force(&socket, CHECK_SOCKET_BYTES)
            .context("enlarging a socket's buffer")?;
        Ok(socket)
    };
    let (a, b) = (bind("a")?, bind("b")?);
    a.connect(b.local_addr().context("asking for an address")?).context("connecting the sites")?;
    Ok((a, b))
}

fn is_silence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Round trips of probes that are sent one after the other, in milliseconds.
pub(super) fn echo(lab: &Lab, probes: usize) -> Result<Vec<f64>> {
    let (a, b) = sockets(lab)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut bytes = [0; 64];
            while !done.load(Ordering::Acquire) {
                // Silence is the end, or the next look at it.
                if let Ok((length, from)) = b.recv_from(&mut bytes) {
                    let _ = b.send_to(&bytes[..length], from);
                }
            }
        });
        let took = round_trips(&a, probes);
        done.store(true, Ordering::Release);
        took
    })
}

fn round_trips(a: &UdpSocket, probes: usize) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for number in 0..probes as u64 {
        let began = Instant::now();
        a.send(&number.to_be_bytes()).context("sending a probe")?;
        let mut bytes = [0; 8];
        a.recv(&mut bytes).context("waiting for a probe's echo")?;
        ensure!(u64::from_be_bytes(bytes) == number, "the echo of another probe came");
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        thread::sleep(Duration::from_millis(1));
    }
    Ok(took)
}

/// Offers `mbit` of whole frames for `time`; returns the rate, in Mbit/s of whole frames, at which they arrive.
pub(super) fn flood(lab: &Lab, mbit: f64, time: Duration) -> Result<f64> {
    let (a, b) = sockets(lab)?;
    let sent_all = AtomicBool::new(false);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| -> Result<f64> {
            let mut bytes = [0; 2048];
            let (mut first, mut last, mut frames) = (None, Instant::now(), 0u64);
            loop {
                match b.recv(&mut bytes) {
                    Ok(_) => {
                        last = Instant::now();
                        first.get_or_insert(last);
                        frames += 1;
                    }
                    Err(error) if is_silence(&error) && !sent_all.load(Ordering::Acquire) => {}
                    Err(error) if is_silence(&error) => break,
                    Err(error) => return Err(error).context("receiving a flood"),
                }
            }
            let first = first.context("nothing of a flood arrived")?;
            let bits = frames.saturating_sub(1) as f64 * ((FULL_BYTES + HEADER_BYTES) * 8) as f64;
            Ok(bits / 1e6 / (last - first).as_secs_f64())
        });
        let sent = send_paced(&a, mbit, time);
        sent_all.store(true, Ordering::Release);
        let rate = receiver.join().map_err(|_| anyhow!("the receiver of a flood panicked"))?;
        sent.and(rate)
    })
}

fn send_paced(a: &UdpSocket, mbit: f64, time: Duration) -> Result<()> {
    let frames_per_s = mbit * 1e6 / ((FULL_BYTES + HEADER_BYTES) * 8) as f64;
    let began = Instant::now();
    let mut sent = 0u64;
    let bytes = [0x5a; FULL_BYTES];
    while began.elapsed() < time {
        while (sent as f64) < began.elapsed().as_secs_f64() * frames_per_s {
            a.send(&bytes).context("sending a flood")?;
            sent += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Sends small packets one way; returns how many different ones arrive. Never more are under way than all queues hold, so
/// that none is lost but by the link.
pub(super) fn count(lab: &Lab, packets: u64) -> Result<u64> {
    let (a, b) = sockets(lab)?;
    let sent_all = AtomicBool::new(false);
    let latest = AtomicU64::new(0);
    thread::scope(|scope| {
        let receiver = scope.spawn(|| -> Result<u64> {
            let mut seen = vec![false; packets as usize];
            let mut bytes = [0; 64];
            loop {
                match b.recv(&mut bytes) {
                    Ok(8) => {
                        let number = u64::from_be_bytes(bytes[..8].try_into().unwrap_or_default());
                        let known =
                            seen.get_mut(number as usize).context("a packet that nobody sent came")?;
                        *known = true;
                        latest.fetch_max(number, Ordering::AcqRel);
                    }
                    Ok(_) => {}
                    Err(error) if is_silence(&error) && !sent_all.load(Ordering::Acquire) => {}
                    Err(error) if is_silence(&error) => break,
                    Err(error) => return Err(error).context("receiving packets"),
                }
            }
            Ok(seen.into_iter().filter(|seen| *seen).count() as u64)
        });
        let sent = send_windowed(&a, packets, &latest);
        sent_all.store(true, Ordering::Release);
        let received = receiver.join().map_err(|_| anyhow!("the receiver of packets panicked"))?;
        sent.and(received)
    })
}

fn send_windowed(a: &UdpSocket, packets: u64, latest: &AtomicU64) -> Result<()> {
    for number in 0..packets {
        let began = Instant::now();
        // A whole window that was lost, which no chance here does, would be waited for once.
        while number > latest.load(Ordering::Acquire) + CHECK_WINDOW_PACKETS
            && began.elapsed() < CHECK_SILENCE
        {
            thread::sleep(Duration::from_micros(100));
        }
        a.send(&number.to_be_bytes()).context("sending a packet")?;
    }
    Ok(())
}

/// A transfer by TCP from `a` to `b`, as fast as it goes, until it is dropped.
pub(super) struct Bulk {
    stream: TcpStream,
    threads: Vec<JoinHandle<()>>,
}

impl Bulk {
    pub(super) fn start(lab: &Lab) -> Result<Self> {
        let (from, to) = (lab.site("a")?, lab.site("b")?);
        let address = to.address();
        let listener = to.within(|| TcpListener::bind((address, 0)).context("listening in a site"))?;
        let address: SocketAddr = listener.local_addr().context("asking for an address")?;
        let stream = from
            .within(|| TcpStream::connect_timeout(&address, CHECK_SILENCE).context("connecting the sites"))?;
        let (far, _) = listener.accept().context("accepting a connection in a site")?;
        let near = stream.try_clone().context("sharing a connection")?;
        let threads = vec![thread::spawn(move || pour(near)), thread::spawn(move || drain(far))];
        Ok(Self { stream, threads })
    }

    /// Waits until the transfer has found its rate.
    pub(super) fn settle(&self) {
        thread::sleep(Duration::from_millis(1500));
    }

    /// Lets it run; returns for how long it did.
    pub(super) fn run(&self, time: Duration) -> Result<Duration> {
        let began = Instant::now();
        thread::sleep(time);
        ensure!(!self.threads.iter().any(JoinHandle::is_finished), "a transfer broke off");
        Ok(began.elapsed())
    }
}

impl Drop for Bulk {
    fn drop(&mut self) {
        // Ends both threads: writes fail, and reads come to their end.
        let _ = self.stream.shutdown(Shutdown::Both);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn pour(mut near: TcpStream) {
    let bytes = vec![0x5a; 256 << 10];
    while near.write_all(&bytes).is_ok() {}
}

fn drain(mut far: TcpStream) {
    let mut bytes = vec![0; 256 << 10];
    while matches!(far.read(&mut bytes), Ok(1..)) {}
}
