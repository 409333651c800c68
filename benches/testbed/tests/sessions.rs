//! Sessions between two gateways whose hypervisors are plain sockets: what a caller decides, and what must not
//! happen whatever it decides.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use novacron_testbed::limits::{ANSWER_WAIT, EXIT_WAIT};
use novacron_testbed::session::{Session, unix, wait_ended, wait_record};
use novacron_testbed::{Gateway, GatewayOptions, Scratch, wait};
use rustix::process::Signal;
use serde_json::{Value, json};

/// The source's gateway and the destination's.
fn gateways(scratch: &Scratch, drain_timeout: &str) -> Result<(Gateway, Gateway)> {
    let extra = vec!["--drain-timeout".into(), drain_timeout.into()];
    let options = GatewayOptions { extra, ..GatewayOptions::default() };
    Ok((Gateway::start(scratch, "gateway", &options)?, Gateway::start(scratch, "peer", &options)?))
}

/// A session with both of its hypervisors connected: the source has written something, the destination has it.
struct Connected {
    session: Session,
    source: UnixStream,
    destination: UnixStream,
}

impl Connected {
    fn open(scratch: &Scratch, gateway: &Gateway, peer: &Gateway, choices: &Value) -> Result<Self> {
        let [listen, connect] = ["in.sock", "out.sock"].map(|name| scratch.file(name));
        let listener = UnixListener::bind(&connect)?;
        let session = Session::new()?;
        session.open(gateway, peer, (&unix(&listen), &unix(&connect)), choices)?;
        let mut source = UnixStream::connect(&listen)?;
        source.write_all(b"all that there is")?;
        let (mut destination, _) = listener.accept()?;
        destination.set_read_timeout(Some(ANSWER_WAIT))?;
        let mut bytes = [0; 17];
        destination.read_exact(&mut bytes)?;
        ensure!(&bytes == b"all that there is");
        Ok(Self { session, source, destination })
    }

    /// Whether the source's socket is closed within `limit`.
    fn source_is_closed(&mut self, limit: Duration) -> Result<bool> {
        self.source.set_read_timeout(Some(limit))?;
        match self.source.read(&mut [0]) {
            Ok(0) => Ok(true),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            other => anyhow::bail!("the source got {other:?}"),
        }
    }
}

/// A session that is limited to a rate sends no more than that, and all that it was given.
#[test]
fn a_rate_limit_holds() -> Result<()> {
    const LIMIT_BYTES_PER_S: u64 = 8_000_000;
    const BYTES: usize = 12_000_000;
    /// What may leave at once, and what of the last batch goes beyond.
    const BURST_BYTES: u64 = 1_000_000;
    Scratch::with_logs(|scratch| {
        let (gateway, peer) = gateways(scratch, "30s")?;
        let [listen, connect] = ["in.sock", "out.sock"].map(|name| scratch.file(name));
        let listener = UnixListener::bind(&connect)?;
        let session = Session::new()?;
        let choices = json!({"codec": "none", "rate_limit_bytes_per_s": LIMIT_BYTES_PER_S});
        session.open(&gateway, &peer, (&unix(&listen), &unix(&connect)), &choices)?;
        let mut source = UnixStream::connect(&listen)?;
        let began = Instant::now();
        let writing = thread::spawn(move || source.write_all(&vec![7; BYTES]));
        let (mut destination, _) = listener.accept()?;
        destination.set_read_timeout(Some(ANSWER_WAIT))?;
        let mut taken = vec![0; BYTES];
        destination.read_exact(&mut taken)?;
        let took = began.elapsed();
        ensure!(taken.iter().all(|byte| *byte == 7));
        writing.join().expect("the writer panicked")?;
        let least = Duration::from_secs_f64((BYTES as u64 - BURST_BYTES) as f64 / LIMIT_BYTES_PER_S as f64);
        ensure!(took >= least, "{took:?} for what takes {least:?} at least");
        Ok(())
    })
}

/// Frames of a session are under way on every stream when it is cancelled; none of the answers to them may overtake
/// the reason.
#[test]
fn both_sides_of_a_cancelled_session_say_so() -> Result<()> {
    const ROUNDS: usize = 12;
    Scratch::with_logs(|scratch| {
        let (gateway, peer) = gateways(scratch, "30s")?;
        for round in 0..ROUNDS {
            let [listen, connect] = ["in", "out"].map(|name| scratch.file(&format!("{name}-{round}.sock")));
            let destination = UnixListener::bind(&connect)?;
            let session = Session::new()?;
            let choices = json!({"destination_may_start": false, "digest": false, "codec": "none"});
            session.open(&gateway, &peer, (&unix(&listen), &unix(&connect)), &choices)?;
            let mut source = UnixStream::connect(&listen)?;
            // Both end when the gateways close their sockets.
            let writing = thread::spawn(move || while source.write_all(&[7; 256 << 10]).is_ok() {});
            let reading = thread::spawn(move || -> Result<()> {
                let (mut taken, _) = destination.accept()?;
                let mut buffer = vec![0; 256 << 10];
                while taken.read(&mut buffer).is_ok_and(|count| count > 0) {}
                Ok(())
            });
            let flows = |record: &Value| record["guest_bytes"].as_u64().is_some_and(|bytes| bytes > 8 << 20);
            wait_record(&gateway, &session.id, EXIT_WAIT, flows)?;
            let side = if round % 2 == 0 { &peer } else { &gateway };
            side.rpc()?.call("session.cancel", json!({"session": session.id}))?;
            for side in [&gateway, &peer] {
                let record = wait_ended(side, &session.id, EXIT_WAIT)?;
                ensure!(record["reason"]["code"] == "cancelled", "round {round}: {record}");
            }
            let ended = || Ok((writing.is_finished() && reading.is_finished()).then_some(()));
            wait::until("the end of source and destination", EXIT_WAIT, ended)?;
        }
        Ok(())
    })
}

/// Nobody can tell how much of an unknown stream is all of it: the destination may have what it needs to start, and
/// then a source whose socket is closed would run the guest too.
#[test]
fn a_source_that_may_have_been_moved_is_held_until_released() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (mut gateway, peer) = gateways(scratch, "200ms")?;
        let mut connected = Connected::open(scratch, &gateway, &peer, &json!({}))?;
        let id = connected.session.id.clone();
        let name = json!({"session": id});
        let early = gateway.rpc()?.call("session.release", name.clone());
        ensure!(
            early.is_err_and(|error| format!("{error:#}").contains("-32600")),
            "a running one was released"
        );

        gateway.rpc()?.call("session.cancel", name.clone())?;
        let held = wait_record(&gateway, &id, EXIT_WAIT, |record| record["state"] == "held")?;
        assert_eq!(held["reason"]["code"], "cancelled");
        assert_eq!(connected.destination.read(&mut [0])?, 0, "the destination gets no more");
        assert!(!connected.source_is_closed(Duration::from_millis(300))?);
        assert_eq!(wait_ended(&peer, &id, EXIT_WAIT)?["state"], "failed");

        // Not even its own end makes the gateway let go: it waits past the time that it has for draining.
        gateway.process().signal(Signal::TERM)?;
        let said = "the gateway stays";
        wait::until("the gateway's word that it stays", EXIT_WAIT, || {
            Ok(std::fs::read_to_string(gateway.process().log())?.contains(said).then_some(()))
        })?;
        assert!(!connected.source_is_closed(Duration::from_millis(300))?);
        gateway.process().must_run()?;

        gateway.rpc()?.call("session.release", name)?;
        assert!(connected.source_is_closed(EXIT_WAIT)?);
        assert!(gateway.process().wait(EXIT_WAIT)?.success());
        Ok(())
    })
}

#[test]
fn a_second_signal_ends_a_gateway_at_once() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (mut gateway, peer) = gateways(scratch, "10m")?;
        let choices = json!({"destination_may_start": false});
        let mut connected = Connected::open(scratch, &gateway, &peer, &choices)?;
        gateway.process().signal(Signal::TERM)?;
        let mut rpc = gateway.rpc()?;
        wait::until("the gateway to drain", EXIT_WAIT, || {
            Ok((rpc.call("gateway.info", json!({}))?["draining"] == true).then_some(()))
        })?;
        assert!(!connected.source_is_closed(Duration::from_millis(300))?, "its time has just begun");
        let signalled = Instant::now();
        gateway.process().signal(Signal::TERM)?;
        assert!(gateway.process().wait(EXIT_WAIT)?.success());
        eprintln!("ended {:?} after the second signal", signalled.elapsed());
        assert!(connected.source_is_closed(EXIT_WAIT)?);
        let record = wait_ended(&peer, &connected.session.id, EXIT_WAIT)?;
        assert_eq!(record["reason"]["code"], "cancelled", "{record}");
        Ok(())
    })
}
