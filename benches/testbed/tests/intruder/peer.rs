//! A peer site that was paired, with papers in order and a session that both callers announced, which means no good.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result, ensure};
use novacron_protocol::limits::{FRAME_PAYLOAD_MAX, PAGE_BYTES};
use novacron_protocol::session::{Ends, Role, Session as Core, SessionConfig, Token};
use novacron_protocol::stream::StreamId;
use novacron_protocol::time::Instant;
use novacron_protocol::wire::{
    BatchFields, ConnectionOpen, FRAME_HEADER_BYTES, FrameHeader, Hello, HelloAccept, Identity, IndexFields,
    Kind, Lane, PartFields, gateway_named,
};
use novacron_testbed::limits::EXIT_WAIT;
use novacron_testbed::opaque::must_carry;
use novacron_testbed::session::{Session, unix, wait_ended};
use novacron_testbed::{Gateway, Scratch};
use serde_json::{Value, json};

use crate::papers::Sites;
use crate::tls::{Manner, TlsStream, dial_tls};
use crate::wire::{NONCE, header, must_count, read_frame};

/// Pages of a batch here: a region of one lane's, whatever the number of lanes is.
const PAGES: usize = 64;
/// How much a gateway's memory may grow at what such a peer sends: buffers, and credit that was granted.
const GROWTH_BYTES_MAX: u64 = 96 << 20;

/// A peer of the same papers as site a's gateway, and its session at site b's.
struct Accomplice {
    stream: TlsStream,
    session: Session,
    number: u64,
    /// Where site b's caller wants the session to go.
    destination: UnixListener,
}

impl Accomplice {
    fn open(scratch: &Scratch, sites: &Sites) -> Result<Self> {
        let b = &sites.gateway_b;
        let session = Session::new()?;
        let connect = scratch.file(&format!("out-{}", &session.id[..6]));
        let destination = UnixListener::bind(&connect)?;
        b.rpc()?.call("session.open", session.at_destination(&unix(&connect), &json!({})))?;
        let number = u64::from_str_radix(&session.id, 16)?;
        let mut token = [0; 32];
        for (at, byte) in token.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&session.token[2 * at..2 * at + 2], 16)?;
        }
        let (mut stream, ends) = introduced(sites)?;
        let config = SessionConfig::new(Role::Source, number, Token::new(token));
        let mut core = Core::source(config, Instant::START);
        core.stream_opened(StreamId(1), ends, Instant::START);
        stream.write_all(&core.next_frame(StreamId(1), Instant::START).context("no opening")?)?;
        let (header, _) = read_frame(&mut stream)?;
        ensure!(header.kind == Kind::Accept, "the opening was not accepted: {header:?}");
        Ok(Self { stream, session, number, destination })
    }

    fn send(&mut self, kind: Kind, lane: Lane, sequence: u64, payload: &[u8]) -> Result<()> {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.extend_from_slice(payload);
        FrameHeader { kind, lane, session: self.number, epoch: 0, sequence }.write(payload.len(), &mut frame);
        Ok(self.stream.write_all(&frame)?)
    }

    fn connects(&mut self, label: &str) -> Result<()> {
        let frame = ConnectionOpen { label: label.to_owned() }.to_frame(self.number, 0, 0);
        Ok(self.stream.write_all(&frame)?)
    }

    /// Sends a batch of [`PAGES`] zero pages as an index of a few bytes, with this part for the lane that has them.
    fn batch(&mut self, number: u64, part: &[u8]) -> Result<()> {
        let length = PAGES * PAGE_BYTES;
        let position = number * length as u64;
        // Bodies, 64 of them, from page 0 on (docs/spec/page-codec.md): all of one region, so of lane 0.
        let operations = [((PAGES << 3 | 3) as u8 & 0x7f) | 0x80, (PAGES << 3 >> 7) as u8, 0];
        let mut index = digest_fields(position, length).to_vec();
        IndexFields { lanes: [0].into_iter().collect() }.put(&mut index);
        index.extend_from_slice(&[0; 4]);
        for count in [3u32, 3, 0] {
            index.extend_from_slice(&count.to_le_bytes());
        }
        index.extend_from_slice(&operations);
        self.send(Kind::Index, Lane::Connection(0), number + 1, &index)?;
        let mut payload = Vec::new();
        PartFields { connection: 0, batch: number + 1 }.put(&mut payload);
        payload.extend_from_slice(part);
        self.send(Kind::Part, Lane::Page(0), number, &payload)
    }

    /// What became of the session at site b's gateway.
    fn ended(&self, gateway: &Gateway) -> Result<Value> {
        wait_ended(gateway, &self.session.id, EXIT_WAIT)
    }
}

/// The fields of a batch of zeros that follows nothing but zeros.
fn digest_fields(position: u64, length: usize) -> [u8; 48] {
    let mut hasher = blake3::Hasher::new();
    let zeros = vec![0; 1 << 16];
    let mut left = position as usize + length;
    while left > 0 {
        let take = left.min(zeros.len());
        hasher.update(&zeros[..take]);
        left -= take;
    }
    BatchFields { position, length: length as u32, digest: *hasher.finalize().as_bytes() }.to_bytes()
}

/// A stream that is introduced, under TLS, as site a's gateway.
fn introduced(sites: &Sites) -> Result<(TlsStream, Ends)> {
    let paper = sites.a.issue("edge")?;
    let mut stream = dial_tls(&sites.gateway_b, &Manner::of(&paper))?;
    let gateway = gateway_named("novacron://site-a/gateway/edge");
    let dialler = Identity { gateway, instance: [0xbb; 16] };
    stream.write_all(&Hello::new(dialler, 0, NONCE).to_frame())?;
    let (header, payload) = read_frame(&mut stream)?;
    ensure!(header.kind == Kind::HelloAccept, "not accepted: {header:?}");
    let accept = HelloAccept::read(&payload)?;
    Ok((stream, Ends { dialler, acceptor: accept.identity, nonces: [NONCE, accept.nonce] }))
}

/// A part of so many pages, with this block for the bodies.
fn part(codec: u8, present: u8, block: &[u8]) -> Vec<u8> {
    [&[0, codec, PAGES as u8, 0][..], &[present; PAGES / 8], block].concat()
}

/// One zstd frame of zeros: so many, and it says so, or says less.
fn bomb(bytes: usize) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(bytes / 1000 + 1024);
    zstd_safe::compress(&mut out, &vec![0; bytes], 19)
        .map_err(|code| anyhow::anyhow!("zstd: {}", zstd_safe::get_error_name(code)))?;
    Ok(out)
}

/// A frame's content size, overwritten where the header keeps it in four bytes.
fn says_less(mut frame: Vec<u8>, bytes: u32) -> Vec<u8> {
    // Magic, then a descriptor whose upper two bits are 2: a size of four bytes (RFC 8878, section 3.1.1.1).
    assert!(frame[4] >> 6 == 2, "another layout than this test knows: {:#x}", frame[4]);
    let single_segment = frame[4] & 0x20 != 0;
    let at = if single_segment { 5 } else { 6 };
    frame[at..at + 4].copy_from_slice(&bytes.to_le_bytes());
    frame
}

#[test]
fn a_bomb_in_a_frame_is_not_unfolded() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut sites = Sites::start(scratch)?;
        let large = bomb(128 << 20)?;
        let exact = (PAGES * PAGE_BYTES) as u32;
        let cases = [
            ("a bomb that says what it is", part(2, 0xff, &large)),
            ("a bomb that says less", part(2, 0xff, &says_less(large, exact))),
            ("a bomb of another codec", part(1, 0xff, &[0xff; 4000])),
            ("one page more than its bits", part(2, 0xfe, &bomb(PAGES * PAGE_BYTES)?)),
        ];
        let before = sites.gateway_b.process().usage()?.rss_bytes_max;
        for (number, (what, part)) in cases.iter().enumerate() {
            let mut peer = Accomplice::open(scratch, &sites)?;
            peer.connects("migration")?;
            // It may be closed before it has taken all.
            let _ = peer.batch(0, part);
            let ended = peer.ended(&sites.gateway_b).with_context(|| what.to_string())?;
            ensure!(ended["reason"]["code"] == "decode_error", "{what}: {ended}");
            must_count(&sites.gateway_b, "decode_error", number as u64 + 1)?;
        }
        let after = sites.gateway_b.process().usage()?.rss_bytes_max;
        ensure!(after < before + GROWTH_BYTES_MAX, "{before} bytes before, {after} after");
        must_carry(scratch, [&sites.gateway_a, &sites.gateway_b])
    })
}

/// Each frame is in order and unfolds to two hundred times its size; nobody at the destination reads.
#[test]
fn many_small_frames_do_not_unfold_to_more_than_was_promised() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut sites = Sites::start(scratch)?;
        let before = sites.gateway_b.process().usage()?.rss_bytes_max;
        let mut peer = Accomplice::open(scratch, &sites)?;
        peer.connects("migration")?;
        let zeros = part(0, 0, &[]);
        // A gibibyte would follow; the gateway ends it.
        let sent = (0..400).take_while(|number| peer.batch(*number, &zeros).is_ok()).count();
        let ended = peer.ended(&sites.gateway_b)?;
        ensure!(ended["reason"]["code"] == "protocol_violation", "after {sent} batches: {ended}");
        must_count(&sites.gateway_b, "protocol_violation", 1)?;
        let after = sites.gateway_b.process().usage()?.rss_bytes_max;
        ensure!(after < before + GROWTH_BYTES_MAX, "{before} bytes before, {after} after");
        drop(peer.destination);
        must_carry(scratch, [&sites.gateway_a, &sites.gateway_b])
    })
}

/// No message has room for an address. A label is the nearest to one: it chooses among what the own caller named.
#[test]
fn a_peer_that_names_an_address_reaches_nobody() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let sites = Sites::start(scratch)?;
        let tcp = TcpListener::bind("127.0.0.1:0")?;
        let path = scratch.file("victim");
        let unix_socket = UnixListener::bind(&path)?;
        for label in [format!("tcp:{}", tcp.local_addr()?), unix(&path)] {
            let mut peer = Accomplice::open(scratch, &sites)?;
            // Longer than a label may be, a path is no label at all.
            let _ = peer.connects(&label);
            let ended = peer.ended(&sites.gateway_b)?;
            ensure!(ended["state"] == "failed", "{ended}");
            peer.destination.set_nonblocking(true)?;
            ensure!(peer.destination.accept().is_err(), "{label} reached the hypervisor of the session");
        }
        tcp.set_nonblocking(true)?;
        unix_socket.set_nonblocking(true)?;
        ensure!(tcp.accept().is_err() && unix_socket.accept().is_err(), "somebody was dialled");
        must_carry(scratch, [&sites.gateway_a, &sites.gateway_b])
    })
}

#[test]
fn oversize_and_damaged_frames_cost_their_stream_alone() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut sites = Sites::start(scratch)?;
        let before = sites.gateway_b.process().usage()?.rss_bytes_max;
        let mut damaged = header(Kind::Batch, 64);
        damaged[9] ^= 1;
        let cases = [
            ("oversize", header(Kind::Batch, FRAME_PAYLOAD_MAX + 1)),
            ("oversize", header(Kind::Batch, u32::MAX as usize)),
            ("damaged", damaged),
        ];
        let mut oversize = 0;
        for (reason, bytes) in cases {
            let (mut stream, _) = introduced(&sites)?;
            stream.write_all(&bytes)?;
            let mut heard = Vec::new();
            let _ = stream.read_to_end(&mut heard);
            ensure!(heard.is_empty(), "{reason}: answered with {} bytes", heard.len());
            oversize += u64::from(reason == "oversize");
            must_count(&sites.gateway_b, reason, if reason == "oversize" { oversize } else { 1 })?;
        }
        let after = sites.gateway_b.process().usage()?.rss_bytes_max;
        ensure!(after < before + (32 << 20), "{before} bytes before, {after} after");
        must_carry(scratch, [&sites.gateway_a, &sites.gateway_b])
    })
}
