//! What the transport allocates once it is warm, by name:
//!
//! - one reference count for each frame whose memory is the pool's, at either end: `Bytes::from_owner` makes it, and the `bytes`
//!   crate offers no way to use one again;
//! - one copy of each TLS record at either end: rustls seals into a buffer of its own, and hands out what it opened in another;
//! - at most two calls each time that a task waits: glommio's request for readiness.
//!
//! Frames of up to [`SMALL_FRAME_BYTES_MAX`] bytes, the queue, the gathering of system calls and the reassembly allocate nothing.
//!
//! Both ends of a stream run here, on one shard, over loopback. Every call to the global allocator is counted, glommio's included.

use bytes::Bytes;
use novacron_transport::limits::{FRAME_HEADER_BYTES, SMALL_FRAME_BYTES_MAX};
use novacron_transport::shard::{RuntimeConfig, run_shards, spawn};
use novacron_transport::{
    Event, FramePool, Listener, OpenSocket, TcpConfig, TcpTransport, TlsCredentials, TlsFiles, Transport,
    connect,
};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::future::poll_fn;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A batch of the most bytes, with its fields.
const LARGE_BYTES: usize = FRAME_HEADER_BYTES + 48 + 256 * 1024;
const LARGE_FRAMES: usize = 256;

const SMALL_BYTES: usize = 200;
const SMALL_FRAMES: usize = 4096;

/// What glommio allocates at most when a task waits.
const PER_WAIT: usize = 2;

/// Bytes that are queued before the stream is polled.
const AHEAD_BYTES: usize = 1 << 20;

/// Plaintext of a full TLS record (RFC 8446, section 5.1).
const RECORD_BYTES: usize = 16 * 1024;

const LIMIT: Duration = Duration::from_secs(10);

fn calls(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.allocations + change.reallocations
}

/// Calls to the allocator, by where they happened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    /// Memory from the pool, frozen.
    alloc: usize,
    submit: usize,
    /// Polling the sender: queue, TLS, socket.
    send: usize,
    /// Polling the receiver: socket, TLS, reassembly.
    receive: usize,
    /// All of them, and what happens while nobody is polled.
    all: usize,
    /// How often there was nothing to do but wait.
    waits: usize,
}

impl Counts {
    fn of<T>(at: &mut usize, run: impl FnOnce() -> T) -> T {
        let region = Region::new(ALLOCATOR);
        let out = run();
        *at += calls(&region);
        out
    }
}

/// Sends `frames` frames of `bytes` bytes from one to the other.
async fn carry(
    (from, to): (&mut TcpTransport, &mut TcpTransport),
    small: &Bytes,
    bytes: usize,
    frames: usize,
) -> Counts {
    let (mut sent, mut received) = (0, 0);
    let mut counts = Counts::default();
    let all = Region::new(ALLOCATOR);
    poll_fn(|cx| {
        loop {
            let before = received;
            while sent < frames && from.queued_bytes() < AHEAD_BYTES && from.queued_frames() < 512 {
                let frame = Counts::of(&mut counts.alloc, || {
                    if bytes <= SMALL_FRAME_BYTES_MAX {
                        return small.clone();
                    }
                    let mut buffer = from.alloc(bytes).expect("the pool has room for what is under way");
                    let payload = (bytes - FRAME_HEADER_BYTES) as u32;
                    buffer[..4].copy_from_slice(&payload.to_le_bytes());
                    buffer.freeze()
                });
                Counts::of(&mut counts.submit, || from.submit(frame)).expect("the queue has room");
                sent += 1;
            }
            while let Poll::Ready(event) = Counts::of(&mut counts.send, || from.poll(cx)) {
                assert!(matches!(event, Event::Writable { .. }), "{event:?}");
            }
            while let Poll::Ready(event) = Counts::of(&mut counts.receive, || to.poll(cx)) {
                let Event::Received(frame) = event else { panic!("{event:?}") };
                assert_eq!(frame.len(), bytes);
                received += 1;
            }
            if received == frames {
                return Poll::Ready(());
            }
            if received == before {
                counts.waits += 1;
                return Poll::Pending;
            }
        }
    })
    .await;
    counts.all = calls(&all);
    counts
}

/// What a warm stream allocates for `frames` frames of `bytes` bytes.
async fn steady(what: &str, pair: &mut (TcpTransport, TcpTransport), bytes: usize, frames: usize) -> Counts {
    let mut small = vec![0; bytes.min(SMALL_FRAME_BYTES_MAX)];
    let payload = (small.len() - FRAME_HEADER_BYTES) as u32;
    small[..4].copy_from_slice(&payload.to_le_bytes());
    let small = Bytes::from(small);
    carry((&mut pair.0, &mut pair.1), &small, bytes, frames).await;
    let counts = carry((&mut pair.0, &mut pair.1), &small, bytes, frames).await;
    let mib = (bytes * frames) as f64 / f64::from(1 << 20);
    println!(
        "{what}: {frames} frames, {mib:.1} MiB: {:.3} allocations a frame, {:.2} a MiB; {counts:?}",
        counts.all as f64 / frames as f64,
        counts.all as f64 / mib
    );
    counts
}

fn attach(open: OpenSocket) -> TcpTransport {
    TcpTransport::attach(open, TcpConfig::default(), FramePool::new(32 << 20), FramePool::new(32 << 20))
        .expect("the configuration is the default")
}

async fn sockets() -> (OpenSocket, OpenSocket) {
    let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().expect("an address")).await.expect("loopback");
    let dialled = connect(listener.address(), LIMIT).await.expect("somebody listens");
    (dialled, listener.accept().await.expect("somebody dialled"))
}

fn credentials() -> TlsCredentials {
    let uri = |text: &str| SanType::URI(text.try_into().expect("a name"));
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.subject_alt_names = vec![uri("site")];
    let key = KeyPair::generate().expect("randomness");
    let authorities = params.self_signed(&key).expect("an authority").pem();
    let issuer = Issuer::new(params, key);
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![uri("site/gateway")];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().expect("randomness");
    let chain = params.signed_by(&key, &issuer).expect("a certificate").pem();
    let key = key.serialize_pem();
    let files = TlsFiles {
        chain: chain.as_bytes(),
        key: key.as_bytes(),
        authorities: authorities.as_bytes(),
        revoked: b"",
    };
    TlsCredentials::read(files, |_, _| Ok(())).expect("credentials that were just made")
}

async fn secured() -> (TcpTransport, TcpTransport) {
    let credentials = credentials();
    let (dialled, accepted) = sockets().await;
    let accepts = credentials.clone();
    let accepting = spawn(async move { accepts.secure_accepted(accepted, std::future::ready(())).await });
    let dialled = credentials.secure_dialled(dialled).await.expect("both believe the authority");
    (attach(dialled), attach(accepting.await.expect("both believe the authority")))
}

/// The counts of large and of small frames, in the clear and under TLS.
async fn count() -> [Counts; 4] {
    let (dialled, accepted) = sockets().await;
    let mut clear = (attach(dialled), attach(accepted));
    let mut sealed = secured().await;
    [
        steady("in the clear, large", &mut clear, LARGE_BYTES, LARGE_FRAMES).await,
        steady("in the clear, small", &mut clear, SMALL_BYTES, SMALL_FRAMES).await,
        steady("TLS, large", &mut sealed, LARGE_BYTES, LARGE_FRAMES).await,
        steady("TLS, small", &mut sealed, SMALL_BYTES, SMALL_FRAMES).await,
    ]
}

#[test]
fn a_warm_stream_allocates_what_is_named_and_nothing_else() {
    let (done, counted) = mpsc::channel();
    let config = RuntimeConfig { shards: 1, ..RuntimeConfig::default() };
    let shards = run_shards(&config, move |_| {
        let done = done.clone();
        async move {
            let _ = done.send(count().await);
        }
    })
    .expect("one shard");
    shards.join().expect("the shard ends well");
    let [large, small, tls_large, tls_small] = counted.try_recv().expect("everything was carried");
    let waiting = |counts: &Counts| PER_WAIT * counts.waits;

    assert_eq!((large.alloc, large.submit), (LARGE_FRAMES, 0));
    assert!(large.all <= 2 * LARGE_FRAMES + waiting(&large), "{large:?}");
    assert_eq!((small.alloc, small.submit), (0, 0));
    assert!(small.all <= waiting(&small), "{small:?}");

    // Every frame ends a record, and a turn of sending may cut one more.
    let records = LARGE_FRAMES * LARGE_BYTES.div_ceil(RECORD_BYTES) + tls_large.waits;
    assert_eq!((tls_large.alloc, tls_large.submit), (LARGE_FRAMES, 0));
    assert!(tls_large.all <= 2 * LARGE_FRAMES + 2 * records + waiting(&tls_large), "{tls_large:?}");
    // Small frames share records; what was queued last may fill half of one.
    let records = 2 * (SMALL_FRAMES * SMALL_BYTES).div_ceil(RECORD_BYTES);
    assert_eq!((tls_small.alloc, tls_small.submit), (0, 0));
    assert!(tls_small.all <= 2 * records + waiting(&tls_small), "{tls_small:?}");
}
