//! Gateways against whoever reaches their ports: garbage, other protocols, other versions, silence. Nobody there is a
//! hypervisor or needs one; what must hold is that sessions of others go on, and that each end is told why.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use novacron_protocol::wire::{
    FRAME_HEADER_BYTES, Hello, HelloAccept, HelloRefuse, Kind, Open, Reason, ReasonCode, RefuseCode, Version,
};
use novacron_testbed::limits::EXIT_WAIT;
use novacron_testbed::opaque::must_carry;
use novacron_testbed::rpc::Refused;
use novacron_testbed::session::{Session, record, unix, wait_ended};
use novacron_testbed::{Gateway, GatewayOptions, Opaque, Scratch, port};
use serde_json::json;

use crate::wire::{
    NONCE, STRANGER, dial, gateways, header, introduced, must_count, noise, read_frame, until_closed,
};

/// After this long a gateway's records show what has happened.
const SETTLE: Duration = Duration::from_millis(300);
/// The most handshakes that a gateway waits for at once.
const HANDSHAKES_MAX: usize = 64;

/// The refusal of a caller, as the caller sees it.
fn refusal(result: Result<serde_json::Value>) -> Result<Refused> {
    match result {
        Ok(result) => anyhow::bail!("it was not refused: {result}"),
        Err(error) => {
            let refused = error.downcast::<Refused>()?;
            for name in ["code", "lost", "next"] {
                ensure!(refused.data[name].as_str().is_some_and(|text| !text.is_empty()), "{refused}");
            }
            Ok(refused)
        }
    }
}

#[test]
fn garbage_for_a_stream_is_closed_and_sessions_go_on() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (a, mut b) = gateways(scratch)?;
        let opaque = Opaque::open(scratch, [&a, &b], b.peer()?, &json!({}))?;
        let (mut source, mut destination) = (opaque.source()?, None);
        let client_hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &noise(0x1fb)].concat();
        let cases: [(&str, Vec<u8>); 8] = [
            ("random bytes", noise(100_000)),
            ("TLS", client_hello),
            ("HTTP", b"GET / HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n".to_vec()),
            ("zeros", vec![0; 4096]),
            ("a length of 2^32-1", header(Kind::Hello, u32::MAX as usize).to_vec()),
            ("a length of 2^60 in eight bytes", [&(1u64 << 60).to_le_bytes()[..], &noise(24)].concat()),
            ("another frame than a handshake", header(Kind::Progress, 0).to_vec()),
            ("a handshake of nothing", header(Kind::Hello, 0).to_vec()),
        ];
        for (what, bytes) in &cases {
            let mut socket = dial(&b)?;
            // It may close before it has taken all of it.
            let _ = socket.write_all(bytes);
            let _ = socket.shutdown(Shutdown::Write);
            until_closed(&socket).with_context(|| what.to_string())?;
        }
        // After a handshake that is right.
        for (what, bytes) in &cases {
            let mut socket = introduced(&b)?;
            let _ = socket.write_all(bytes);
            let _ = socket.shutdown(Shutdown::Write);
            until_closed(&socket).with_context(|| format!("{what}, after the handshake"))?;
        }
        // The session of others has gone on all the while.
        for piece in 0..100 {
            opaque.pass(&mut source, &mut destination, piece)?;
        }
        drop((source, destination));
        must_count(&b, "not_dwcp", 8)?;
        must_count(&b, "oversize", 1)?;
        must_count(&b, "damaged", 1)?;
        must_carry(scratch, [&a, &b])?;
        b.process().must_run()
    })
}

#[test]
fn a_length_that_cannot_be_reserves_no_memory() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (a, mut b) = gateways(scratch)?;
        let before = b.process().usage()?.rss_bytes_max;
        let mut sockets = Vec::new();
        for _ in 0..32 {
            let mut socket = introduced(&b)?;
            // The longest that is allowed, announced and never sent: what it costs is bounded.
            socket.write_all(&header(Kind::Batch, 272 * 1024 - FRAME_HEADER_BYTES))?;
            sockets.push(socket);
            let mut socket = introduced(&b)?;
            socket.write_all(&header(Kind::Batch, 1 << 30))?;
            until_closed(&socket)?;
        }
        let after = b.process().usage()?.rss_bytes_max;
        ensure!(after < before + (32 << 20), "{before} bytes before, {after} after");
        must_carry(scratch, [&a, &b])
    })
}

#[test]
fn a_damaged_header_ends_its_stream_before_its_payload_is_awaited() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (_, b) = gateways(scratch)?;
        for bit in [0, 3, 12, 17, 40, 70, 130, 200, 255] {
            let mut socket = introduced(&b)?;
            let mut bytes = header(Kind::Batch, 64 * 1024);
            bytes[bit / 8] ^= 1 << (bit % 8);
            socket.write_all(&bytes)?;
            // Nothing follows: who believed the length would wait for it for ever (DWCP-2).
            until_closed(&socket).with_context(|| format!("bit {bit}"))?;
        }
        Ok(())
    })
}

#[test]
fn other_versions_are_refused_in_words_and_common_ones_are_spoken() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (_, b) = gateways(scratch)?;
        for (low, high) in [(2, 9), (0, 0), (9, 9)] {
            let mut socket = dial(&b)?;
            let hello = Hello { version_low: low, version_high: high, ..Hello::new(STRANGER, 0, NONCE) };
            socket.write_all(&hello.to_frame())?;
            let (header, payload) = read_frame(&socket)?;
            ensure!(header.kind == Kind::HelloRefuse, "{header:?}");
            let refuse = HelloRefuse::read(&payload)?;
            assert_eq!(refuse.code, RefuseCode::Version);
            assert_eq!((refuse.version_low, refuse.version_high), (1, 1));
            assert!(refuse.text.contains(&format!("{low} to {high}")), "{}", refuse.text);
            assert!(refuse.text.contains("upgrade"), "{}", refuse.text);
            ensure!(until_closed(&socket)?.is_empty());
        }
        must_count(&b, "version", 3)?;
        // One that also speaks ours, and more than ours.
        let mut socket = dial(&b)?;
        socket.write_all(&Hello { version_high: 9, ..Hello::new(STRANGER, 0, NONCE) }.to_frame())?;
        let (_, payload) = read_frame(&socket)?;
        assert_eq!(HelloAccept::read(&payload)?.version, Version::V1);
        Ok(())
    })
}

/// What stands where a gateway should.
fn impostor(answer: impl Fn(TcpStream) + Send + 'static) -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let peer = format!("tcp:{}", listener.local_addr()?);
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            answer(socket);
        }
    });
    Ok(peer)
}

#[test]
fn whatever_answers_in_a_peers_place_fails_the_opening_with_its_reason() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (a, _) = gateways(scratch)?;
        let listen = scratch.file("in.sock");
        let try_open = |peer: &str| -> Result<(Refused, Duration)> {
            let session = Session::new()?;
            let started = Instant::now();
            let options = json!({"open_timeout_ms": 1500});
            let call = session.at_source(peer, &unix(&listen), &options);
            let refused = refusal(a.rpc()?.call("session.open", call))?;
            let ended = record(&a, &session.id)?;
            ensure!(ended["state"] == "failed", "{ended}");
            ensure!(!listen.exists(), "a session that was refused still listens");
            Ok((refused, started.elapsed()))
        };

        let (refused, _) = try_open(&format!("tcp:127.0.0.1:{}", port::free()?))?;
        assert_eq!(refused.data["code"], "peer_unreachable", "{refused}");

        let newer = impostor(|mut socket| {
            let mut hello = [0; 64];
            let _ = socket.read(&mut hello);
            let text = "the dialling gateway speaks 1 to 1, this one 2 to 9: upgrade the older one";
            let refuse = HelloRefuse {
                version_low: 2,
                version_high: 9,
                ..HelloRefuse::new(RefuseCode::Version, text)
            };
            let _ = socket.write_all(&refuse.to_frame());
        })?;
        let (refused, _) = try_open(&newer)?;
        assert_eq!(refused.data["code"], "peer_refused", "{refused}");
        assert!(refused.message.contains("upgrade the older one"), "{refused}");

        let web = impostor(|mut socket| {
            let mut hello = [0; 64];
            let _ = socket.read(&mut hello);
            let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        })?;
        let (refused, _) = try_open(&web)?;
        assert_eq!(refused.data["code"], "peer_refused", "{refused}");

        let (refused, _) = try_open(&impostor(drop)?)?;
        assert_eq!(refused.data["code"], "peer_refused", "{refused}");

        // It accepts and says nothing: within the time that the caller allowed.
        let silent = impostor(std::mem::forget)?;
        let (refused, took) = try_open(&silent)?;
        ensure!(
            ["peer_unreachable", "peer_refused"].contains(&refused.data["code"].as_str().unwrap_or("")),
            "{refused}"
        );
        ensure!(took < Duration::from_secs(4), "{took:?}: {refused}");

        // It speaks the handshake and then says nothing of the session.
        let deaf = impostor(|mut socket| {
            let mut hello = [0; 256];
            let _ = socket.read(&mut hello);
            let accept = HelloAccept {
                version: Version::V1,
                identity: STRANGER,
                payload_max: 1 << 18,
                nonce: NONCE,
                probe: None,
            };
            let _ = socket.write_all(&accept.to_frame());
            std::mem::forget(socket);
        })?;
        let (refused, took) = try_open(&deaf)?;
        ensure!(took < Duration::from_secs(4), "{took:?}: {refused}");
        ensure!(refused.message.contains("in time"), "{refused}");
        Ok(())
    })
}

#[test]
fn half_open_handshakes_do_not_keep_a_session_waiting() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (a, b) = gateways(scratch)?;
        let mut idle = Vec::new();
        for number in 0..3 * HANDSHAKES_MAX {
            let mut socket = dial(&b)?;
            if number % 2 == 0 {
                // Half of a handshake is none.
                socket.write_all(&Hello::new(STRANGER, 0, NONCE).to_frame()[..20])?;
            }
            idle.push(socket);
        }
        let started = Instant::now();
        must_carry(scratch, [&a, &b])?;
        let took = started.elapsed();
        ensure!(
            took < Duration::from_secs(4),
            "the session took {took:?} with {} idle connections",
            idle.len()
        );
        // And none of them is kept for ever.
        for socket in &idle {
            until_closed(socket)?;
        }
        Ok(())
    })
}

#[test]
fn a_stranger_can_neither_take_an_announced_session_nor_end_it() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (a, b) = gateways(scratch)?;
        let session = Session::new()?;
        let id = u64::from_str_radix(&session.id, 16)?;
        let [listen, connect] = ["in.sock", "out.sock"].map(|name| unix(&scratch.file(name)));
        let options = json!({});
        b.rpc()?.call("session.open", session.at_destination(&connect, &options))?;

        // It has heard of the session's name, but not of its token.
        let mut socket = introduced(&b)?;
        let open = Open {
            lanes: 4,
            digest: false,
            connections_max: 1,
            receive_window: 1 << 20,
            memory_bytes: 0,
            outage_ms: 1000,
            resume: false,
            proof: [7; 32],
        };
        socket.write_all(&open.to_frame(id, 0))?;
        let (header, payload) = read_frame(&socket)?;
        ensure!(matches!(header.kind, Kind::Refuse | Kind::Fail), "{header:?}");
        assert_eq!(Reason::read(&payload)?.code, ReasonCode::NotAuthorised);
        thread::sleep(SETTLE);
        assert_eq!(record(&b, &session.id)?["state"], "waiting", "a stranger has spoilt the session");
        must_count(&b, "wrong_token", 1)?;

        // Nor is a session that runs anyone's but its peer's.
        a.rpc()?.call("session.open", session.at_source(b.peer()?, &listen, &options))?;
        let reason = Reason::new(ReasonCode::Cancelled, "says a stranger");
        socket.write_all(&reason.to_frame(Kind::Fail, id, 0))?;
        socket.write_all(&open.to_frame(id, 0))?;
        let (_, payload) = read_frame(&socket)?;
        assert_ne!(Reason::read(&payload)?.code, ReasonCode::Finished);
        thread::sleep(SETTLE);
        for gateway in [&a, &b] {
            assert_eq!(record(gateway, &session.id)?["state"], "running");
        }
        Ok(())
    })
}

#[test]
fn a_source_that_never_comes_or_says_nothing_fails_the_session_in_time() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (a, b) = gateways(scratch)?;
        let options = json!({"accept_timeout_ms": 700});
        let never = Opaque::open(scratch, [&a, &b], b.peer()?, &options)?;
        let message = never.must_fail(&a, "timeout")?;
        ensure!(message.contains("no hypervisor connected") && message.contains("700 ms"), "{message}");
        never.must_fail(&b, "timeout")?;

        let silent = Opaque::open(scratch, [&a, &b], b.peer()?, &options)?;
        let mut source = silent.source()?;
        let started = Instant::now();
        let message = silent.must_fail(&a, "timeout")?;
        ensure!(message.contains("sent nothing"), "{message}");
        ensure!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        silent.must_fail(&b, "timeout")?;
        // Its socket is closed: it, too, learns of it.
        let mut rest = Vec::new();
        ensure!(source.read_to_end(&mut rest).unwrap_or(0) == 0);

        // One announced at the destination alone.
        let session = Session::new()?;
        let connect = unix(&scratch.file("nobody.sock"));
        b.rpc()?.call("session.open", session.at_destination(&connect, &options))?;
        let record = wait_ended(&b, &session.id, EXIT_WAIT)?;
        assert_eq!(record["reason"]["code"], "timeout", "{record}");
        Ok(())
    })
}

#[test]
fn what_a_source_sends_is_carried_whatever_it_is() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (a, b) = gateways(scratch)?;
        let qemu = b"QEVM\x00\x00\x00\x03";
        let cases: [Vec<u8>; 6] = [
            noise(3_000_000),
            // QEMU's beginning, then anything but QEMU's stream.
            [&qemu[..], &noise(700_000)].concat(),
            [&qemu[..], b"\x07\xff\xff\xff\xff", &noise(300_000)].concat(),
            [
                &qemu[..],
                b"\x07\x00\x00\x00\x02pc\x01\x00\x00\x00\x02\x03ram\x00\x00\x00\x00\x00\x00\x00\x04",
                &[0xff; 70_000],
            ]
            .concat(),
            vec![0; 1_000_001],
            vec![0x7e],
        ];
        for bytes in cases {
            let opaque = Opaque::open(scratch, [&a, &b], b.peer()?, &json!({}))?;
            opaque.carry(&bytes, &noise(10_000))?;
            opaque.must_finish([&a, &b])?;
        }
        Ok(())
    })
}

#[test]
fn a_full_disk_for_logs_and_records_stops_no_session() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let options = GatewayOptions {
            log: Some("/dev/full".into()),
            extra: ["--records", "/dev/full", "--log-level", "debug"].map(String::from).to_vec(),
            ..GatewayOptions::default()
        };
        let mut a = Gateway::start(scratch, "gateway-a", &options)?;
        let mut b = Gateway::start(scratch, "gateway-b", &options)?;
        for _ in 0..3 {
            must_carry(scratch, [&a, &b])?;
        }
        // Errors are told as well as they can be: what cannot be written is not worth a session.
        let session = Session::new()?;
        let nobody = format!("tcp:127.0.0.1:{}", port::free()?);
        let call = session.at_source(&nobody, &unix(&scratch.file("in.sock")), &json!({}));
        refusal(a.rpc()?.call("session.open", call))?;
        must_carry(scratch, [&b, &a])?;
        a.process().must_run()?;
        b.process().must_run()
    })
}
