//! How long a session takes to open over a link of the lab, and until a hypervisor's first byte has crossed: with gateways that have
//! never met, and with streams that an earlier session left open.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use novacron_lab::{Conditions, Lab, Topology};
use novacron_testbed::session::{unix, wait_ended};
use novacron_testbed::stats::Spread;
use novacron_testbed::{Scratch, Security, Session};
use serde::Serialize;
use serde_json::json;

use crate::limits::{OPENING_LINK_DELAY_MS, OPENING_LINK_MBIT, PROGRESS_WAIT, SESSION_END_WAIT, SETTLE};
use crate::load::{Load, MachineLoad};
use crate::pair::{Pair, Place};
use crate::report::{Goal, Verdict};

/// One session's beginning, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Opened {
    /// From the call at the source's gateway to its answer: hypervisors may connect.
    open_ms: f64,
    /// From the hypervisor's connecting to the first byte at the other one's socket.
    first_byte_ms: f64,
}

/// The same of every round.
#[derive(Clone, Debug, Serialize)]
struct Rounds {
    /// Whether there were streams already.
    streams_open: bool,
    open_ms: Spread,
    first_byte_ms: Spread,
    /// Both together, in round trips of the link.
    round_trips: Spread,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Opening {
    round_trip_ms: f64,
    cold: Rounds,
    warm: Rounds,
    machine: MachineLoad,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// Measures `rounds` pairs of gateways over TLS, two sessions each. `None`: there is no lab here.
pub(crate) fn measure(rounds: u32, say: &dyn Fn(&str)) -> Result<Option<Opening>> {
    if let Err(why) = novacron_lab::available() {
        say(&format!("no link: {why}"));
        return Ok(None);
    }
    let way = Conditions {
        rate_mbit: Some(OPENING_LINK_MBIT),
        delay_ms: OPENING_LINK_DELAY_MS,
        ..Conditions::default()
    };
    let lab = Lab::start(&Topology::two_sites(&way)).context("making the lab")?;
    let [near, far] = lab.sites() else { anyhow::bail!("the lab made no two sites") };
    let places = [&Place::at(near), &Place::at(far)];
    let scratch = Scratch::new()?;
    let load = Load::start()?;
    let mut found: [Vec<Opened>; 2] = Default::default();
    for round in 1..=rounds {
        let pair = Pair::between(&scratch, &format!("opening-{round}"), places, Security::Tls)?;
        for (streams, found) in ["no streams", "streams open"].into_iter().zip(&mut found) {
            std::thread::sleep(SETTLE);
            let opened = open(&scratch, &pair)?;
            say(&format!(
                "opening {round}/{rounds}, {streams}: open {:.1} ms, first byte {:.1} ms later",
                opened.open_ms, opened.first_byte_ms
            ));
            found.push(opened);
        }
    }
    let [cold, warm] = &found;
    let (cold, warm) = (rounds_of(false, cold)?, rounds_of(true, warm)?);
    let verdict = |what, most, rounds: &Rounds| {
        Verdict::new(what, Goal::AtMost(most), rounds.round_trips.median, "round trips")
            .with(&rounds.round_trips.text(2))
    };
    let verdicts = vec![
        verdict("a session's first byte, no streams", 5.0, &cold),
        verdict("a session's first byte, streams open", 2.0, &warm),
    ];
    let round_trip_ms = 2.0 * OPENING_LINK_DELAY_MS;
    Ok(Some(Opening { round_trip_ms, cold, warm, machine: load.since()?, verdicts }))
}

fn rounds_of(streams_open: bool, found: &[Opened]) -> Result<Rounds> {
    let spread = |of: fn(&Opened) -> f64| Spread::of(found.iter().map(of)).context("no round was measured");
    Ok(Rounds {
        streams_open,
        open_ms: spread(|opened| opened.open_ms)?,
        first_byte_ms: spread(|opened| opened.first_byte_ms)?,
        round_trips: spread(|opened| {
            (opened.open_ms + opened.first_byte_ms) / (2.0 * OPENING_LINK_DELAY_MS)
        })?,
    })
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Opens a session, sends one byte through it, and ends it.
fn open(scratch: &Scratch, pair: &Pair) -> Result<Opened> {
    let session = Session::new()?;
    let (entry, exit) =
        (scratch.file(&format!("{}-in", session.id)), scratch.file(&format!("{}-out", session.id)));
    let sink = UnixListener::bind(&exit).context("listening as a destination's hypervisor")?;
    let options = json!({"destination_may_start": false});
    let at_destination = session.at_destination(&unix(&exit), &options);
    pair.destination.rpc()?.call("session.open", at_destination)?;
    let mut rpc = pair.source.rpc()?;
    let at_source = session.at_source(pair.destination.peer()?, &unix(&entry), &options);
    let began = Instant::now();
    rpc.call("session.open", at_source)?;
    let open_ms = ms(began);

    let first = std::thread::spawn(move || -> Result<Instant> {
        let (mut socket, _) = sink.accept().context("accepting as a destination's hypervisor")?;
        socket.set_read_timeout(Some(PROGRESS_WAIT)).context("limiting the reader's patience")?;
        let mut byte = [0];
        socket.read_exact(&mut byte).context("reading the first byte")?;
        let at = Instant::now();
        // The end of both directions ends the session.
        anyhow::ensure!(socket.read(&mut byte).context("waiting for the end")? == 0, "more than was written");
        Ok(at)
    });
    let began = Instant::now();
    write_one(&entry)?;
    let first = first.join().map_err(|_| anyhow!("the reader panicked"))??;
    let first_byte_ms = first.duration_since(began).as_secs_f64() * 1e3;
    wait_ended(&pair.source, &session.id, SESSION_END_WAIT)?;
    Ok(Opened { open_ms, first_byte_ms })
}

/// Connects to `entry`, writes one byte, and waits until the other side has ended as well.
fn write_one(entry: &Path) -> Result<()> {
    let mut socket = UnixStream::connect(entry).context("connecting as a source's hypervisor")?;
    socket.set_read_timeout(Some(PROGRESS_WAIT)).context("limiting the writer's patience")?;
    socket.write_all(&[1]).context("writing the first byte")?;
    socket.shutdown(std::net::Shutdown::Write).context("ending the written stream")?;
    let mut rest = Vec::new();
    socket.take(1).read_to_end(&mut rest).context("waiting for the end")?;
    Ok(())
}

impl Opening {
    /// What was found, for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "Opening of sessions, {} ms RTT, TLS; {}\n  {:<24}{:>26}{:>26}  round trips in all\n",
            self.round_trip_ms, self.machine, "ms median (min..max)", "open", "then the first byte"
        );
        for rounds in [&self.cold, &self.warm] {
            let name = if rounds.streams_open { "streams open" } else { "no streams" };
            text += &format!(
                "  {name:<24}{:>26}{:>26}  {}\n",
                rounds.open_ms.text(1),
                rounds.first_byte_ms.text(1),
                rounds.round_trips.text(2)
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_those_of_the_link() {
        let found = [100.0, 200.0].map(|open_ms| Opened { open_ms, first_byte_ms: 25.0 });
        let rounds = rounds_of(false, &found).unwrap();
        assert_eq!(rounds.round_trips.all, [2.5, 4.5]);
        assert!(rounds_of(true, &[]).is_err());
    }
}
