//! Handshakes that must work, and those that must not.

use super::*;
use crate::conformance::{Expect, frame, run_all};
use crate::contract::{CloseReason, Event, Transport};
use crate::net::{Listener, OpenSocket, connect};
use crate::pool::FramePool;
use crate::shard::testing::on_shard;
use crate::shard::{Notify, sleep, spawn, timeout};
use crate::tcp::{TcpConfig, TcpTransport};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::cell::Cell;
use std::future::{poll_fn, ready};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const EXPECT: Expect = Expect {
    payload_bytes_max: 256 * 1024,
    queue_bytes_max: 600 * 1024,
    queue_frames_max: 64,
    network_bytes_max: 4 << 20,
};

fn config() -> TcpConfig {
    let mut config = TcpConfig {
        payload_bytes_max: EXPECT.payload_bytes_max,
        queue_bytes_max: EXPECT.queue_bytes_max,
        queue_frames_max: EXPECT.queue_frames_max,
        queue_low_water_bytes: 100 * 1024,
        ..TcpConfig::default()
    };
    config.socket.send_buffer_bytes = Some(256 * 1024);
    config.socket.receive_buffer_bytes = Some(256 * 1024);
    config
}

fn attach(open: OpenSocket) -> TcpTransport {
    TcpTransport::attach(open, config(), FramePool::new(4 << 20), FramePool::new(1 << 30)).unwrap()
}

/// A site's authority in these tests: `site-a` vouches for names that begin with `site-a/`.
struct Authority {
    site: &'static str,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

struct Paper {
    chain: String,
    key: String,
    serial: SerialNumber,
}

fn vouches(gateway: &str, authority: &str) -> Result<(), String> {
    match gateway.split_once('/') {
        Some((site, _)) if site == authority => Ok(()),
        _ => Err(format!("{authority} does not speak for {gateway}")),
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

impl Authority {
    fn new(site: &'static str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, site);
        params.subject_alt_names = vec![uri(site)];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { site, pem, issuer: Issuer::new(params, key) }
    }

    fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Paper {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri(name)];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let serial =
            SerialNumber::from(u64::from(u32::from_str_radix("7abc", 16).unwrap()) + name.len() as u64);
        params.serial_number = Some(serial.clone());
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        Paper { chain, key: key.serialize_pem(), serial }
    }

    fn issue(&self, name: &str) -> Paper {
        self.issue_with(name, |_| {})
    }

    fn revoke(&self, papers: &[&Paper]) -> String {
        let now = SystemTime::now();
        CertificateRevocationListParams {
            this_update: (now - Duration::from_secs(60)).into(),
            next_update: (now + Duration::from_secs(3600)).into(),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: papers
                .iter()
                .map(|paper| RevokedCertParams {
                    serial_number: paper.serial.clone(),
                    revocation_time: now.into(),
                    reason_code: None,
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        }
        .signed_by(&self.issuer)
        .unwrap()
        .pem()
        .unwrap()
    }
}

fn credentials(paper: &Paper, believed: &[&Authority], revoked: &str) -> TlsCredentials {
    let authorities: String = believed.iter().map(|authority| authority.pem.as_str()).collect();
    let files = TlsFiles {
        chain: paper.chain.as_bytes(),
        key: paper.key.as_bytes(),
        authorities: authorities.as_bytes(),
        revoked: revoked.as_bytes(),
    };
    TlsCredentials::read(files, vouches).unwrap()
}

/// What the accepting side makes of a connection, and what the dialling side does.
type Both = (Result<OpenSocket, TlsFailure>, Result<OpenSocket, TlsFailure>);

async fn meet(dials: &TlsCredentials, accepts: &TlsCredentials) -> Both {
    let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
    let dialled = connect(listener.address(), Duration::from_secs(5)).await.unwrap();
    let accepted = listener.accept().await.unwrap();
    let accepts = accepts.clone();
    let accepting = spawn(async move { accepts.secure_accepted(accepted, ready(())).await });
    let limit = Duration::from_secs(20);
    let dialled = timeout(limit, dials.secure_dialled(dialled)).await.expect("dialling ends");
    (timeout(limit, accepting).await.expect("accepting ends"), dialled)
}

fn two_sites() -> (TlsCredentials, TlsCredentials) {
    let (a, b) = (Authority::new("site-a"), Authority::new("site-b"));
    (credentials(&a.issue("site-a/gw"), &[&a, &b], ""), credentials(&b.issue("site-b/gw"), &[&a, &b], ""))
}

#[test]
fn tls_keeps_the_contract() {
    on_shard(|| async {
        let (a, b) = two_sites();
        run_all(EXPECT, async || {
            let (accepted, dialled) = meet(&a, &b).await;
            (attach(dialled.unwrap()), attach(accepted.unwrap()))
        })
        .await;
    });
}

#[test]
fn the_key_exchange_is_post_quantum_and_both_know_each_other() {
    on_shard(|| async {
        let (a, b) = two_sites();
        let (accepted, dialled) = meet(&a, &b).await;
        let (accepted, dialled) = (accepted.unwrap(), dialled.unwrap());
        for (socket, name) in [(&accepted, "site-a/gw"), (&dialled, "site-b/gw")] {
            let peer = socket.tls_peer().unwrap();
            assert_eq!(peer.identity, name);
            // Named, so that a change of features that loses the hybrid fails here.
            assert_eq!(peer.key_exchange, "X25519MLKEM768");
            assert!(peer.cipher_suite.starts_with("TLS13_AES_"), "{}", peer.cipher_suite);
        }
    });
}

/// What the two sides say of each other, and that neither has a stream.
fn must_refuse(dials: TlsCredentials, accepts: TlsCredentials) -> (TlsFailure, Option<TlsFailure>) {
    let (told, heard) = std::sync::mpsc::channel();
    on_shard(move || {
        let (dials, accepts, told) = (dials.clone(), accepts.clone(), told.clone());
        async move {
            let (accepted, dialled) = meet(&dials, &accepts).await;
            let dialled = match dialled {
                Err(why) => Some(why),
                // In TLS 1.3 who dialled is done before its certificate is looked at: it hears when it listens.
                Ok(socket) => {
                    let mut transport = attach(socket);
                    let event =
                        timeout(Duration::from_secs(20), poll_fn(|cx| transport.poll(cx))).await.unwrap();
                    assert!(matches!(&event, Event::Closed(_)), "{event:?}");
                    None
                }
            };
            told.send((accepted.err(), dialled)).unwrap();
        }
    });
    let (accepted, dialled) = heard.recv().unwrap();
    match (accepted, dialled) {
        (Some(accepted), Some(dialled)) if accepted.refusal == Refusal::RefusedByPeer => (dialled, None),
        (Some(accepted), dialled) => (accepted, dialled),
        (None, Some(dialled)) => (dialled.clone(), Some(dialled)),
        (None, None) => panic!("both sides took it"),
    }
}

#[test]
fn certificates_that_must_not_be_taken_are_not() {
    let (a, b, stranger) = (Authority::new("site-a"), Authority::new("site-b"), Authority::new("site-c"));
    let right = credentials(&b.issue("site-b/gw"), &[&a, &b], "");
    let day = Duration::from_secs(24 * 3600);

    // What its own authorities do not vouch for, a gateway does not even start with; so these begin with a right one that
    // its peer looks at with other eyes.
    let unknown = credentials(&stranger.issue("site-c/gw"), &[&stranger, &b], "");
    assert_eq!(must_refuse(unknown, right.clone()).0.refusal, Refusal::UnknownAuthority);

    let paper = a.issue("site-a/gw");
    let strict = credentials(&b.issue("site-b/gw"), &[&a, &b], &a.revoke(&[&paper]));
    let revoked = credentials(&paper, &[&a, &b], "");
    assert_eq!(must_refuse(revoked.clone(), strict.clone()).0.refusal, Refusal::Revoked);
    // And who dials looks as well.
    assert_eq!(must_refuse(strict, revoked).0.refusal, Refusal::Revoked);

    // An authority speaks for its own site and for no other.
    let posing = a.issue("site-b/gw");
    let files = |paper: &Paper| {
        let authorities = format!("{}{}", a.pem, b.pem);
        TlsCredentials::read(
            TlsFiles {
                chain: paper.chain.as_bytes(),
                key: paper.key.as_bytes(),
                authorities: authorities.as_bytes(),
                revoked: b"",
            },
            vouches,
        )
    };
    let why = files(&posing).unwrap_err().to_string();
    assert!(why.contains("site-a does not speak for site-b/gw"), "{why}");
    for (what, paper) in [
        ("expired", a.issue_with("site-a/gw", |p| p.not_after = (SystemTime::now() - day).into())),
        ("not valid yet", a.issue_with("site-a/gw", |p| p.not_before = (SystemTime::now() + day).into())),
        (
            "purpose",
            a.issue_with("site-a/gw", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        ("URI name", a.issue_with("site-a/gw", |p| p.subject_alt_names = vec![])),
        ("more than one", a.issue_with("site-a/gw", |p| p.subject_alt_names.push(uri("site-a/other")))),
    ] {
        let why = files(&paper).expect_err(what).to_string();
        assert!(!why.contains("BEGIN"), "{why}");
    }
}

/// A gateway whose certificate is shown although it is not in order.
fn showing(paper: &Paper, like: &TlsCredentials) -> TlsCredentials {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(paper.chain.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(paper.key.as_bytes()).unwrap();
    let mut shown = like.clone();
    let mut client = rustls::ClientConfig::builder_with_provider(Arc::clone(like.client.crypto_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(like.verifier())
        .with_client_auth_cert(chain, key)
        .unwrap();
    client.alpn_protocols = like.client.alpn_protocols.clone();
    shown.client = Arc::new(client);
    shown
}

#[test]
fn who_dials_with_an_expired_self_signed_or_misused_certificate_is_refused() {
    let (a, b) = (Authority::new("site-a"), Authority::new("site-b"));
    let right = credentials(&b.issue("site-b/gw"), &[&a, &b], "");
    let own = credentials(&a.issue("site-a/gw"), &[&a, &b], "");
    let day = Duration::from_secs(24 * 3600);
    let itself = {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri("site-a/gw")];
        let key = KeyPair::generate().unwrap();
        let chain = params.self_signed(&key).unwrap().pem();
        Paper { chain, key: key.serialize_pem(), serial: SerialNumber::from(1u64) }
    };
    for (paper, refusal) in [
        (a.issue_with("site-a/gw", |p| p.not_after = (SystemTime::now() - day).into()), Refusal::Expired),
        (
            a.issue_with("site-a/gw", |p| p.not_before = (SystemTime::now() + day).into()),
            Refusal::NotYetValid,
        ),
        (
            a.issue_with("site-a/gw", |p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            Refusal::WrongCertificate,
        ),
        (a.issue("site-b/gw"), Refusal::WrongCertificate),
        (itself, Refusal::UnknownAuthority),
    ] {
        let (why, _) = must_refuse(showing(&paper, &own), right.clone());
        assert_eq!(why.refusal, refusal, "{why}");
    }
}

#[test]
fn nothing_but_tls_1_3_with_the_hybrid_is_spoken() {
    let (a, b) = two_sites();
    let with = |change: &dyn Fn(&mut rustls::crypto::CryptoProvider)| {
        let mut provider = rustls::crypto::CryptoProvider::clone(a.client.crypto_provider());
        change(&mut provider);
        let mut client = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(a.verifier())
            .with_no_client_auth();
        client.alpn_protocols = a.client.alpn_protocols.clone();
        client
    };
    let dialling = |client: rustls::ClientConfig| {
        let mut dialling = a.clone();
        dialling.client = Arc::new(client);
        dialling
    };
    // A classical key exchange alone, as somebody in between would like it.
    let classical = with(&|p| p.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519]);
    assert_eq!(must_refuse(dialling(classical), b.clone()).0.refusal, Refusal::Protocol);
    // No certificate at all.
    let nobody = with(&|_| {});
    assert_eq!(must_refuse(dialling(nobody), b.clone()).0.refusal, Refusal::NoCertificate);
    // Another protocol inside TLS.
    let mut web = with(&|_| {});
    web.alpn_protocols = vec![b"h2".to_vec()];
    assert_eq!(must_refuse(dialling(web), b).0.refusal, Refusal::Protocol);
}

/// A hello of TLS 1.2, as OpenSSL 1.0 would write it: no supported_versions.
fn old_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session, one cipher suite (ECDHE-RSA-AES128-GCM-SHA256), no compression, no extensions.
    body.extend([0, 0, 2, 0xc0, 0x2f, 1, 0]);
    let mut hello = vec![1, 0, 0, body.len() as u8];
    hello.extend(body);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8];
    record.extend(hello);
    record
}

#[test]
fn garbage_older_versions_and_endless_hellos_end_the_handshake() {
    let endless = {
        // A handshake message of 16 MiB, in records that never end.
        let mut record = vec![22, 3, 1, 0x40, 0];
        record.extend([1, 0xff, 0xff, 0xff]);
        record.resize(5 + 0x4000, 0);
        [record.clone(), record.clone(), record.clone(), record].concat()
    };
    let cases = [
        ("garbage", (0..4096u32).map(|n| (n * 7 + 13) as u8).collect()),
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("TLS 1.2", old_hello()),
        ("an endless hello", endless),
    ];
    for (what, bytes) in cases {
        on_shard(move || {
            let bytes = bytes.clone();
            async move {
                let (_, b) = two_sites();
                let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
                let address = listener.address().to_string();
                let stranger = std::thread::spawn(move || {
                    let mut socket = TcpStream::connect(address.strip_prefix("tcp:").unwrap()).unwrap();
                    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
                    let _ = socket.write_all(&bytes);
                    let mut heard = Vec::new();
                    let _ = socket.read_to_end(&mut heard);
                    heard
                });
                let accepted = listener.accept().await.unwrap();
                let secured = timeout(Duration::from_secs(20), b.secure_accepted(accepted, ready(()))).await;
                let why = secured.unwrap_or_else(|| panic!("{what} is still waited for")).expect_err(what);
                assert!(matches!(why.refusal, Refusal::Protocol | Refusal::Broken), "{what}: {why}");
                // An alert at most: no word of what this gateway is.
                assert!(stranger.join().unwrap().len() < 64);
            }
        });
    }
}

/// Until its turn has come, a stranger gets no byte, whatever it has said; silence does not even ask for one.
#[test]
fn a_handshake_waits_for_its_turn_once_its_first_record_is_whole() {
    on_shard(|| async {
        let (a, b) = two_sites();
        let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
        let dialled = connect(listener.address(), Duration::from_secs(5)).await.unwrap();
        let accepted = listener.accept().await.unwrap();
        let (asked, turn) = (Rc::new(Cell::new(false)), Notify::new());
        let (asks, its_turn) = (Rc::clone(&asked), turn.clone());
        let accepting = spawn(async move {
            let turn = async move {
                asks.set(true);
                its_turn.notified().await;
            };
            b.secure_accepted(accepted, turn).await
        });
        sleep(Duration::from_millis(50)).await;
        assert!(!asked.get(), "who has said nothing asks for a turn");
        let dialling = spawn(async move { a.secure_dialled(dialled).await });
        let limit = Duration::from_secs(20);
        let asking = async {
            while !asked.get() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(limit, asking).await.expect("who has said its first word asks for its turn");
        turn.notify();
        timeout(limit, dialling).await.expect("dialling ends").unwrap();
        timeout(limit, accepting).await.expect("accepting ends").unwrap();
    });
}

/// Relays between two sockets, and shows each piece on its way there to `change`; false cuts.
fn relay(to: String, mut change: impl FnMut(&mut Vec<u8>) -> bool + Send + 'static) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let mut near = listener.accept().unwrap().0;
        let mut far = TcpStream::connect(to.strip_prefix("tcp:").unwrap()).unwrap();
        let (mut back_from, mut back_to) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
        let mut piece = vec![0; 1 << 16];
        while let Ok(count @ 1..) = near.read(&mut piece) {
            let mut bytes = piece[..count].to_vec();
            let goes_on = change(&mut bytes);
            if far.write_all(&bytes).is_err() || !goes_on {
                break;
            }
        }
        let _ = (near.shutdown(std::net::Shutdown::Both), far.shutdown(std::net::Shutdown::Both));
    });
    address
}

/// A stream through a relay, and what its receiver sees after `sent` frames.
fn through(change: impl FnMut(&mut Vec<u8>) -> bool + Send + Clone + 'static) -> CloseReason {
    let (told, heard) = std::sync::mpsc::channel();
    on_shard(move || {
        let (change, told) = (change.clone(), told.clone());
        async move {
            let (a, b) = two_sites();
            let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
            let near = relay(listener.address().to_string(), change);
            let accepting = spawn(async move {
                let accepted = listener.accept().await.unwrap();
                attach(b.secure_accepted(accepted, ready(())).await.unwrap())
            });
            let dialled = connect(&near.parse().unwrap(), Duration::from_secs(5)).await.unwrap();
            let mut sender = attach(a.secure_dialled(dialled).await.unwrap());
            let mut receiver = accepting.await;
            for n in 0..4 {
                sender.submit(frame(100_000, n)).unwrap();
            }
            let reason = timeout(
                Duration::from_secs(20),
                poll_fn(|cx| {
                    let _ = sender.poll(cx);
                    loop {
                        match receiver.poll(cx) {
                            std::task::Poll::Ready(Event::Received(bytes)) => {
                                // Whatever comes is what was sent.
                                assert!((0..4).any(|n| bytes == frame(100_000, n)));
                            }
                            std::task::Poll::Ready(Event::Closed(reason)) => {
                                return std::task::Poll::Ready(reason);
                            }
                            std::task::Poll::Ready(_) => {}
                            std::task::Poll::Pending => return std::task::Poll::Pending,
                        }
                    }
                }),
            );
            told.send(reason.await.expect("the stream ends")).unwrap();
        }
    });
    heard.recv().unwrap()
}

#[test]
fn a_changed_bit_and_a_cut_are_seen() {
    // The handshake is a few kilobytes; frames come after it.
    let mut seen = 0;
    let reason = through(move |bytes| {
        let before = seen;
        seen += bytes.len();
        if before > 20_000 {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        true
    });
    assert!(matches!(&reason, CloseReason::Io { kind: std::io::ErrorKind::InvalidData, .. }), "{reason:?}");
    let mut seen = 0;
    let reason = through(move |bytes| {
        seen += bytes.len();
        seen < 20_000
    });
    // A cut at the boundary of a record, or of a frame, must not look like an end.
    assert!(matches!(&reason, CloseReason::Io { kind: std::io::ErrorKind::UnexpectedEof, .. }), "{reason:?}");
}

#[test]
fn a_stream_moves_to_another_owner_with_its_keys() {
    on_shard(|| async {
        let (a, b) = two_sites();
        let (accepted, dialled) = meet(&a, &b).await;
        let (mut sender, mut receiver) = (attach(dialled.unwrap()), attach(accepted.unwrap()));
        for n in 0..3 {
            sender.submit(frame(1000, n)).unwrap();
            let mut sent = std::pin::pin!(poll_fn(|cx| {
                let _ = sender.poll(cx);
                receiver.poll(cx)
            }));
            let event = timeout(Duration::from_secs(10), &mut sent).await.unwrap();
            assert_eq!(event, Event::Received(frame(1000, n)));
            sender = attach(sender.detach().unwrap());
            receiver = attach(receiver.detach().unwrap());
            assert_eq!(receiver.tls_peer().unwrap().identity, "site-a/gw");
        }
    });
}

#[test]
fn a_revocation_list_that_comes_later_is_asked_of_who_is_there_already() {
    let (a, b) = (Authority::new("site-a"), Authority::new("site-b"));
    let paper = a.issue("site-a/gw");
    let before = credentials(&b.issue("site-b/gw"), &[&a, &b], "");
    let after = credentials(&b.issue("site-b/gw"), &[&a, &b], &a.revoke(&[&paper]));
    let dials = credentials(&paper, &[&a, &b], "");
    on_shard(move || {
        let (dials, before, after) = (dials.clone(), before.clone(), after.clone());
        async move {
            let (accepted, _dialled) = meet(&dials, &before).await;
            let peer = accepted.unwrap().tls_peer().unwrap().clone();
            assert_eq!(before.still_believes(&peer, true), Ok(()));
            assert!(after.still_believes(&peer, true).unwrap_err().contains("evoked"));
        }
    });
    assert_eq!(a.site, "site-a");
}
