//! What the cases have in common: sockets that speak for themselves, and what a gateway says of them.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_protocol::wire::{FRAME_HEADER_BYTES, FrameHeader, Hello, HelloAccept, Identity, Kind, Nonce};
use novacron_testbed::limits::EXIT_WAIT;
use novacron_testbed::{Gateway, GatewayOptions, Scratch, wait};
use serde_json::{Value, json};

/// How long a gateway may take to close a connection that makes no sense.
const CLOSE_WAIT: Duration = Duration::from_secs(10);

pub(crate) const STRANGER: Identity = Identity { gateway: [0xaa; 16], instance: [0xbb; 16] };
pub(crate) const NONCE: Nonce = [0xcc; 16];

/// Two gateways in the clear, so that a test can be a peer without papers.
pub(crate) fn gateways(scratch: &Scratch) -> Result<(Gateway, Gateway)> {
    let start = |name: &str| Gateway::start(scratch, name, &GatewayOptions::plaintext());
    Ok((start("gateway-a")?, start("gateway-b")?))
}

pub(crate) fn dial(gateway: &Gateway) -> Result<TcpStream> {
    let address = gateway.peer()?.strip_prefix("tcp:").context("no TCP address")?;
    let socket = TcpStream::connect(address).context("connecting to the gateway")?;
    socket.set_read_timeout(Some(CLOSE_WAIT))?;
    socket.set_write_timeout(Some(CLOSE_WAIT))?;
    Ok(socket)
}

/// Reads until the gateway closes; that it does not is an error.
pub(crate) fn until_closed(mut socket: &TcpStream) -> Result<Vec<u8>> {
    let mut heard = Vec::new();
    match socket.read_to_end(&mut heard) {
        Ok(_) => Ok(heard),
        // It closed with bytes of ours unread.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(heard),
        Err(error) => Err(error).context("the gateway did not close the connection"),
    }
}

pub(crate) fn read_frame(mut socket: impl Read) -> Result<(FrameHeader, Vec<u8>)> {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    socket.read_exact(&mut frame).context("reading a frame's header")?;
    let length = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    frame.resize(FRAME_HEADER_BYTES + length, 0);
    socket.read_exact(&mut frame[FRAME_HEADER_BYTES..]).context("reading a frame's payload")?;
    Ok((FrameHeader::read(&frame)?, frame[FRAME_HEADER_BYTES..].to_vec()))
}

/// A stream whose handshake is complete.
pub(crate) fn introduced(gateway: &Gateway) -> Result<TcpStream> {
    let mut socket = dial(gateway)?;
    socket.write_all(&Hello::new(STRANGER, 0, NONCE).to_frame())?;
    let (header, payload) = read_frame(&socket)?;
    ensure!(header.kind == Kind::HelloAccept, "not accepted: {header:?}");
    HelloAccept::read(&payload)?;
    Ok(socket)
}

/// A header as a stranger may write it: any length, and a check value that fits.
pub(crate) fn header(kind: Kind, length: usize) -> [u8; FRAME_HEADER_BYTES] {
    let mut bytes = [0; FRAME_HEADER_BYTES];
    FrameHeader::unordered(kind, 0x0123_4567_89ab_cdef, 0).write(length, &mut bytes);
    bytes
}

/// Bytes of no pattern.
pub(crate) fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// How a gateway's streams are protected, and whom it refused.
pub(crate) fn security(gateway: &Gateway) -> Result<Value> {
    Ok(gateway.rpc()?.call("gateway.info", json!({}))?["security"].clone())
}

/// Waits until a gateway has counted a refusal of this kind.
pub(crate) fn must_count(gateway: &Gateway, what: &str, at_least: u64) -> Result<()> {
    let mut last = Value::Null;
    wait::until(&format!("{at_least} counted as {what}"), EXIT_WAIT, || {
        last = security(gateway)?;
        Ok((last["refused"][what].as_u64().unwrap_or(0) >= at_least).then_some(()))
    })
    .with_context(|| format!("counted: {last}"))
}

/// Waits until a gateway's log says this.
pub(crate) fn must_log(scratch: &Scratch, gateway: &str, said: &str) -> Result<()> {
    let path = scratch.file(&format!("{gateway}.log"));
    wait::until(&format!("{gateway} to log {said:?}"), EXIT_WAIT, || {
        Ok(std::fs::read_to_string(&path)?.contains(said).then_some(()))
    })
}
