//! The path between two gateways damages and cuts what it carries. No hypervisor ever gets a byte that the other did
//! not write: a session goes on over another stream, or it fails on both sides and says why.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_testbed::limits::{EXIT_WAIT, MIGRATION_WAIT};
use novacron_testbed::opaque::must_carry;
use novacron_testbed::session::{wait_ended, wait_record, wait_under_way};
use novacron_testbed::{
    Fate, Gateway, GatewayOptions, Opaque, Passing, QemuOptions, Relay, Scratch, Stage, Way,
};
use serde_json::json;

/// Bytes of a frame's header, and of the fields that open a batch, an index and an end.
const HEADER: usize = 32;
const FIELDS: usize = 48;

/// Kinds of frames (docs/spec/dwcp.md, section 1).
const OPEN: u8 = 1;
const ACCEPT: u8 = 2;
const PROGRESS: u8 = 5;
const CONNECTION_OPEN: u8 = 16;
const BATCH: u8 = 17;
const INDEX: u8 = 18;
const PART: u8 = 19;
const CONNECTION_END: u8 = 20;

/// How long a gateway may take to connect to a destination, if it does.
const CONNECT_WAIT: Duration = Duration::from_secs(2);

/// A migration of the test guest, which dirties faster, does not end by itself at this rate.
const SLOW: [&str; 2] = ["--max-bandwidth", "10000000"];

/// Whether this is the `number`th frame from the source that carries guest bytes.
fn nth_of_guest(number: usize) -> impl FnMut(&Passing) -> bool {
    let mut seen = 0;
    move |passing| {
        let carries = passing.way == Way::There && [BATCH, INDEX, PART].contains(&passing.kind());
        seen += usize::from(carries);
        carries && seen == number
    }
}

#[test]
fn a_flipped_bit_in_guest_bytes_fails_the_migration_on_both_sides() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set_with(scratch, &QemuOptions::small(), &GatewayOptions::plaintext())?;
        // In a batch's fields, in its first bytes, near its end; every lane and kind has its turn.
        for (number, place) in [(3, 5), (40, HEADER + FIELDS), (81, usize::MAX)] {
            let mut chosen = nth_of_guest(number);
            let relay = Relay::start(stage.destination_gateway.peer()?, move |passing| {
                if chosen(passing) {
                    let byte = (HEADER + place.min(1 << 20)).min(passing.bytes.len() - 1);
                    passing.flip(8 * byte + 3);
                }
                Fate::Passes
            })?;
            let name = format!("flip-{number}");
            let ended = stage.migrate(&name, Some(&relay.peer()), &SLOW)?.finish(MIGRATION_WAIT)?;
            let codes = ["digest_mismatch", "decode_error", "protocol_violation"];
            let code = ended.must_have_stayed("failed")?;
            ensure!(codes.contains(&code), "{code}: {}", ended.said);
            let session = ended.report["session"].as_str().context("no session")?;
            for gateway in [&stage.source_gateway, &stage.destination_gateway] {
                let record = wait_ended(gateway, session, EXIT_WAIT)?;
                ensure!(record["state"] == "failed" && record["reason"]["code"] == code, "{code}: {record}");
                ensure!(record["digest_equal"] != true, "{record}");
            }
            stage.must_have_stayed()?;
            stage.renew_destination()?;
        }
        Ok(())
    })
}

#[test]
fn damaged_headers_and_cut_frames_cost_streams_and_no_migration() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set_with(scratch, &QemuOptions::small(), &GatewayOptions::plaintext())?;
        let mut seen = 0usize;
        let relay = Relay::start(stage.destination_gateway.peer()?, move |passing| {
            if ![BATCH, INDEX, PART, PROGRESS].contains(&passing.kind()) {
                return Fate::Passes;
            }
            seen += 1;
            match seen {
                // Every part of the header, the length included, in either direction.
                10 | 30 | 50 | 70 => passing.flip(seen / 10 * 29),
                20 => return Fate::Cut(HEADER / 2),
                40 => return Fate::Cut(HEADER),
                60 => return Fate::Cut(passing.bytes.len() - 1),
                80 => return Fate::Cut(0),
                _ => {}
            }
            Fate::Passes
        })?;
        let ended = stage.migrate("novactl", Some(&relay.peer()), &[])?.finish(MIGRATION_WAIT)?;
        let session = ended.must_have_completed()?["session"].as_str().context("no session")?;
        for gateway in [&stage.source_gateway, &stage.destination_gateway] {
            let record = wait_ended(gateway, session, EXIT_WAIT)?;
            ensure!(record["state"] == "finished" && record["digest_equal"] == true, "{record}");
        }
        // Those that died last may not have been missed any more.
        ensure!(relay.streams_ever() > 4 + 4, "only {} streams", relay.streams_ever());
        stage.must_have_moved()
    })
}

#[test]
fn a_lost_path_interrupts_a_migration_and_ends_it_only_when_it_stays_lost() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let one = GatewayOptions::plaintext().with_one_stream();
        let mut stage = Stage::set_with(scratch, &QemuOptions::small(), &one)?;
        // The only stream is cut within a frame; the next one resumes.
        let mut chosen = nth_of_guest(30);
        let relay = Relay::start(stage.destination_gateway.peer()?, move |passing| {
            if chosen(passing) { Fate::Cut(HEADER + 100) } else { Fate::Passes }
        })?;
        let choices = ["--streams", "1", "--outage", "2"];
        let mut running = stage.migrate("novactl", Some(&relay.peer()), &[&choices[..], &SLOW].concat())?;
        wait_under_way(&stage.source_gateway, 12_000_000, MIGRATION_WAIT)?;
        ensure!(relay.streams_ever() == 2, "{} streams", relay.streams_ever());
        running.process().must_run()?;
        let log = stage.source_gateway.process().log_tail();
        ensure!(log.contains("every stream is lost") && log.contains("a stream is back"), "{log}");

        // And now for good.
        relay.end_all();
        let ended = running.finish(MIGRATION_WAIT)?;
        ensure!(ended.must_have_stayed("failed")? == "outage", "{}", ended.said);
        ensure!(ended.said.contains("no stream to the peer gateway for 2"), "{}", ended.said);
        stage.must_have_stayed()
    })
}

/// Bytes that no codec shrinks and of which no two stretches are alike.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let word = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(word).flatten().take(count).collect()
}

/// QEMU's stream of RAM pages, as far as a parser must see to take pages apart; then anything.
fn pages(count: usize) -> Vec<u8> {
    let mut bytes = b"QEVM\x00\x00\x00\x03".to_vec();
    let section = |bytes: &mut Vec<u8>, kind: u8| bytes.extend_from_slice(&[kind, 0, 0, 0, 2]);
    section(&mut bytes, 1);
    bytes.extend_from_slice(b"\x03ram\x00\x00\x00\x00\x00\x00\x00\x04");
    let total = count as u64 * 4096;
    bytes.extend_from_slice(&(total | 0x04).to_be_bytes());
    bytes.extend_from_slice(b"\x06pc.ram");
    bytes.extend_from_slice(&total.to_be_bytes());
    bytes.extend_from_slice(&0x10u64.to_be_bytes());
    bytes.extend_from_slice(&[0x7e, 0, 0, 0, 2]);
    section(&mut bytes, 2);
    let random = noise(4096 * 7);
    for page in 0..count {
        let address = page as u64 * 4096;
        let flags = if page == 0 { 0x08 } else { 0x28 };
        bytes.extend_from_slice(&(address | flags).to_be_bytes());
        if page == 0 {
            bytes.extend_from_slice(b"\x06pc.ram");
        }
        let content = &random[page % 7 * 4096..][..4096];
        // Every other page shrinks.
        if page % 2 == 0 { bytes.extend_from_slice(content) } else { bytes.extend([content[9]; 4096]) }
    }
    bytes.extend_from_slice(&0x10u64.to_be_bytes());
    bytes.extend_from_slice(&[0x7e, 0, 0, 0, 2]);
    bytes
}

/// Which frame is damaged, and where.
#[derive(Clone, Copy, Debug)]
struct Flip {
    kind: u8,
    way: Way,
    /// The how manyth of its kind and way, from 1.
    number: usize,
    /// Byte behind the header; beyond the frame's end means its last.
    byte: usize,
    bit: usize,
}

/// Every kind of frame, in fields of every meaning. Whatever is damaged, exact bytes arrive or none further; both sides
/// come to an end, and to the same one.
/// Under TLS a relay sees records and no frames: it cuts the only stream of a migration, again and again, in the middle of one.
#[test]
fn a_migration_over_tls_outlives_the_loss_of_every_stream() -> Result<()> {
    const CUTS: usize = 3;
    const RECORDS: usize = 60;
    Scratch::with_logs(|scratch| {
        let mut stage = Stage::set(scratch, &QemuOptions::small())?;
        let mut records = BTreeMap::new();
        let relay = Relay::start(stage.destination_gateway.peer()?, move |passing| {
            let seen: &mut usize = records.entry(passing.stream).or_default();
            *seen += usize::from(passing.way == Way::There);
            if passing.stream < CUTS && *seen == RECORDS { Fate::Cut(100) } else { Fate::Passes }
        })?;
        let choices = ["--streams", "1"];
        let ended = stage.migrate("novactl", Some(&relay.peer()), &choices)?.finish(MIGRATION_WAIT)?;
        let session = ended.must_have_completed()?["session"].as_str().context("no session")?;
        for gateway in [&stage.source_gateway, &stage.destination_gateway] {
            let record = wait_ended(gateway, session, EXIT_WAIT)?;
            ensure!(record["state"] == "finished" && record["digest_equal"] == true, "{record}");
            ensure!(record["encrypted"] == true, "{record}");
            ensure!(record["streams"]["ever"].as_u64() > Some(CUTS as u64), "{record}");
        }
        ensure!(relay.streams_ever() > CUTS, "only {} streams", relay.streams_ever());
        stage.must_have_moved()
    })
}

#[test]
fn a_flipped_bit_anywhere_delivers_no_wrong_byte() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let start = |name: &str| Gateway::start(scratch, name, &GatewayOptions::plaintext());
        let (a, b) = (start("gateway-a")?, start("gateway-b")?);
        let (pages, noise) = (pages(500), noise(900_000));
        let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
        let places: [(u8, Way, &[usize]); 9] = [
            (OPEN, Way::There, &[0, 2, 3, 4, 8, 15, 20, 49]),
            (ACCEPT, Way::Back, &[1, 5, 30]),
            (CONNECTION_OPEN, Way::There, &[0, 1, 4]),
            (BATCH, Way::There, &[0, 5, 8, 12, 20, FIELDS, 4000]),
            (INDEX, Way::There, &[0, 8, 20, FIELDS, FIELDS + 2, FIELDS + 5, FIELDS + 20, usize::MAX]),
            (PART, Way::There, &[0, 3, 8, 13, 16, 20, 200, usize::MAX]),
            (BATCH, Way::Back, &[7, 10, 30, FIELDS, usize::MAX]),
            (PROGRESS, Way::Back, &[0, 1, 3, 8, 11, 18, 19, 24, 26]),
            (CONNECTION_END, Way::There, &[0, 8, 40]),
        ];
        let flips = places.iter().flat_map(|(kind, way, bytes)| {
            let (kind, way) = (*kind, *way);
            bytes.iter().enumerate().map(move |(index, byte)| Flip {
                kind,
                way,
                number: if kind == PROGRESS { 2 } else { 1 },
                byte: *byte,
                bit: (index * 3 + usize::from(kind)) % 8,
            })
        });
        for flip in flips {
            // What no codec takes apart travels in batches.
            let there = if flip.kind == BATCH { &noise } else { &pages };
            let outcome = carry_damaged(scratch, [&a, &b], flip, there, &noise[..300_000])
                .with_context(|| format!("{flip:?}"))?;
            *outcomes.entry(outcome).or_default() += 1;
        }
        eprintln!("{outcomes:?}");
        ensure!(outcomes.len() > 2, "one kind of damage after all: {outcomes:?}");
        must_carry(scratch, [&a, &b])
    })
}

/// Carries both ways through one flipped bit; says how both sessions ended.
fn carry_damaged(
    scratch: &Scratch,
    gateways: [&Gateway; 2],
    flip: Flip,
    there: &[u8],
    back: &[u8],
) -> Result<String> {
    let (flipped, was_flipped) = channel();
    let mut seen = 0;
    let relay = Relay::start(gateways[1].peer()?, move |passing| {
        if passing.kind() == flip.kind && passing.way == flip.way {
            seen += 1;
            if seen == flip.number {
                let byte = HEADER + flip.byte.min(passing.bytes.len() - HEADER - 1);
                passing.flip(8 * byte + flip.bit);
                let _ = flipped.send(());
            }
        }
        Fate::Passes
    })?;
    let options = json!({"streams": 2, "outage_ms": 1000, "open_timeout_ms": 2000, "codec": "zstd",
                         "accept_timeout_ms": 2000, "destination_may_start": false});
    let opaque = match Opaque::open(scratch, gateways, &relay.peer(), &options) {
        Ok(opaque) => opaque,
        Err(error) => {
            ensure!(was_flipped.try_recv().is_ok(), "refused without damage: {error:#}");
            return Ok("refused".into());
        }
    };
    let source = opaque.source()?;
    let (arrived, returned) = thread::scope(|scope| -> Result<(Vec<u8>, Vec<u8>)> {
        let destination = scope.spawn(|| match opaque.destination_within(CONNECT_WAIT) {
            Ok(socket) => both_ways(&socket, back),
            // A session that failed before its first connection.
            Err(_) => Vec::new(),
        });
        let returned = both_ways(&source, there);
        let arrived = destination.join().map_err(|_| anyhow::anyhow!("the destination's thread failed"))?;
        Ok((arrived, returned))
    })?;
    was_flipped.try_recv().context("nothing was damaged")?;
    ensure!(there.starts_with(&arrived), "wrong bytes arrived after {}", matching(there, &arrived));
    ensure!(back.starts_with(&returned), "wrong bytes came back after {}", matching(back, &returned));

    let over = |record: &serde_json::Value| record["ended_at"].is_string();
    let records = gateways.map(|gateway| wait_record(gateway, &opaque.session.id, EXIT_WAIT, over));
    let [source, destination] = records;
    let (source, destination) = (source?, destination?);
    ensure!(source["state"] == destination["state"], "{source}\n{destination}");
    if source["state"] == "finished" {
        ensure!(
            arrived == there && returned == back,
            "{} and {} bytes arrived",
            arrived.len(),
            returned.len()
        );
        return Ok("finished".into());
    }
    Ok(source["reason"]["code"].as_str().unwrap_or("no reason").to_owned())
}

/// Writes all of it while it reads all there is.
fn both_ways(socket: &std::os::unix::net::UnixStream, bytes: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    thread::scope(|scope| {
        let mut writing = socket;
        scope.spawn(move || {
            // A session that fails closes the socket.
            let _ = writing.write_all(bytes);
            let _ = writing.shutdown(Shutdown::Write);
        });
        let mut reading = socket;
        let _ = reading.read_to_end(&mut heard);
    });
    heard
}

fn matching(whole: &[u8], part: &[u8]) -> usize {
    whole.iter().zip(part).take_while(|(a, b)| a == b).count()
}

/// What a session waits for is bounded even where damage makes a peer fall silent.
#[test]
fn a_last_frame_with_a_damaged_length_is_not_awaited() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let one = GatewayOptions::plaintext().with_one_stream();
        let start = |name: &str| Gateway::start(scratch, name, &one);
        let (a, b) = (start("gateway-a")?, start("gateway-b")?);
        let mut damaged = false;
        let relay = Relay::start(b.peer()?, move |passing| {
            if passing.kind() == CONNECTION_END && passing.way == Way::There && !damaged {
                damaged = true;
                // 64 KiB more than there are, and nothing comes after it.
                passing.flip(16);
            }
            Fate::Passes
        })?;
        let options = json!({"streams": 1});
        let opaque = Opaque::open(scratch, [&a, &b], &relay.peer(), &options)?;
        let began = std::time::Instant::now();
        opaque.carry(b"there", b"and back")?;
        opaque.must_finish([&a, &b])?;
        ensure!(began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
        ensure!(relay.streams_ever() == 2, "{} streams", relay.streams_ever());
        Ok(())
    })
}
