//! Whoever listens on the path between two gateways that speak in the clear, and says again what was said. Under TLS nobody hears it.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_protocol::wire::{Kind, Reason, ReasonCode};
use novacron_testbed::limits::EXIT_WAIT;
use novacron_testbed::opaque::must_carry;
use novacron_testbed::session::{record, wait_record};
use novacron_testbed::{Fate, Opaque, Relay, Scratch, Way};
use serde_json::json;

use crate::wire::{dial, gateways, must_count, must_log, read_frame};

/// What was heard of the gateway that dials: its handshakes and its openings, in their order.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Vec<u8>>>>);

impl Heard {
    fn all(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn last(&self, kind: Kind) -> Option<Vec<u8>> {
        self.all().into_iter().rfind(|frame| frame[4] == kind as u8)
    }
}

/// DWCP-62, DWCP-63: a handshake and a resumption that were overheard open nothing, although they come from who seems to be the same
/// process, and the session goes on.
#[test]
fn a_resumption_that_was_overheard_takes_nothing_over() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (a, b) = gateways(scratch)?;
        let heard = Heard::default();
        let listening = heard.clone();
        let mut streams = 0;
        let mut relay = Relay::start(b.peer()?, move |passing| {
            let overheard = [Kind::Hello as u8, Kind::Open as u8].contains(&passing.kind());
            if passing.way == Way::There && overheard {
                listening.0.lock().unwrap_or_else(PoisonError::into_inner).push(passing.bytes.clone());
            }
            // Each stream is cut after some frames, until there were three.
            streams = streams.max(passing.stream + 1);
            let guest = [Kind::Batch, Kind::Index, Kind::Part].map(|kind| kind as u8);
            let carries = passing.way == Way::There && guest.contains(&passing.kind());
            if carries && passing.stream < 2 { Fate::Cut(7) } else { Fate::Passes }
        })?;
        let options = json!({"streams": 1});
        let opaque = Opaque::open(scratch, [&a, &b], &relay.peer(), &options)?;
        let (mut source, mut destination) = (opaque.source()?, None);
        for piece in 0..3 {
            opaque.pass(&mut source, &mut destination, piece)?;
        }
        ensure!(relay.streams_ever() >= 3, "only {} streams", relay.streams_ever());
        wait_record(&b, &opaque.session.id, EXIT_WAIT, |record| record["state"] == "running")?;

        let hello = heard.last(Kind::Hello).context("no handshake was heard")?;
        let open = heard.last(Kind::Open).context("no opening was heard")?;
        let mut socket = dial(&b)?;
        socket.write_all(&hello)?;
        let (answer, _) = read_frame(&socket)?;
        ensure!(answer.kind == Kind::HelloAccept, "{answer:?}");
        socket.write_all(&open)?;
        // Whatever it hears before it is closed, an agreement is not among it.
        while let Ok((header, _)) = read_frame(&socket) {
            ensure!(header.kind != Kind::Accept, "the opening was taken");
        }
        must_count(&b, "wrong_token", 1)?;
        must_log(scratch, "gateway-b", "the session goes on")?;

        // Nor does its word end the session, although it has the name of the peer.
        let mut socket = dial(&b)?;
        socket.write_all(&hello)?;
        read_frame(&socket)?;
        let number = u64::from_str_radix(&opaque.session.id, 16)?;
        let reason = Reason::new(ReasonCode::Cancelled, "says a stranger");
        socket.write_all(&reason.to_frame(Kind::Fail, number, 0))?;
        must_count(&b, "wrong_token", 2)?;
        std::thread::sleep(Duration::from_millis(300));
        for gateway in [&a, &b] {
            ensure!(record(gateway, &opaque.session.id)?["state"] == "running", "the session did not go on");
        }
        opaque.pass(&mut source, &mut destination, 3)?;
        drop((source, destination));
        relay.end_all();
        let _ = &mut relay;
        must_carry(scratch, [&a, &b])
    })
}
