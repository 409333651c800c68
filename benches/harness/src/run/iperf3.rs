//! What the link carries, as iperf3 finds it: the limit that no contender can pass.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_testbed::{Process, port, wait};
use serde_json::Value;

use super::{Stage, take};
use crate::contender::Contender;
use crate::limits::{END_WAIT, IPERF3_STREAMS, IPERF3_TIME, LISTEN_WAIT};
use crate::meter::{Meter, Watched};
use crate::record::{Run, Work};

/// Fills the link for [`IPERF3_TIME`]. Its goodput is the run's work; a total time it has none.
pub(super) fn run(stage: &Stage<'_>, contender: &Contender, run: &mut Run) -> Result<()> {
    stage.progress.phase("filling the link");
    let (from, to) = (&stage.network.source, &stage.network.destination);
    let at = SocketAddr::new(to.address, port::free()?);
    let program = Path::new("iperf3");
    let words = |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let serve = words(format!("--server --one-off --forceflush --bind {} --port {}", at.ip(), at.port()));
    let server = Process::start_behind(&to.prefix, stage.scratch, "iperf3-server", program, &serve)?;
    let listens = || {
        let log = std::fs::read_to_string(server.log()).context("reading iperf3's log")?;
        Ok(log.contains("listening").then_some(()))
    };
    wait::until("iperf3 listening", LISTEN_WAIT, listens)?;
    let ask = words(format!(
        "--client {} --port {} --json --omit 1 --time {} --parallel {}",
        at.ip(),
        at.port(),
        IPERF3_TIME.as_secs(),
        contender.tuning.streams.unwrap_or(IPERF3_STREAMS)
    ));
    let mut client = Process::start_behind(&from.prefix, stage.scratch, "iperf3-client", program, &ask)?;
    let watched = vec![
        Watched::new("source", "iperf3", client.pid()),
        Watched::new("destination", "iperf3", server.pid()),
    ];
    let meter = Meter::start(watched, stage.network.wire(), stage.progress)?;
    let ended = ended(&client);
    take(run, meter.stop()?);
    ended?;
    let status = client.wait(Duration::from_secs(1))?;
    let said = std::fs::read_to_string(client.log()).context("reading iperf3's result")?;
    let result: Value =
        serde_json::from_str(&said).with_context(|| format!("iperf3's result is no JSON: {said}"))?;
    ensure!(status.success(), "iperf3 failed: {}", result["error"]);
    let received = &result["end"]["sum_received"];
    let bits = received["bits_per_second"].as_f64().context("iperf3 tells no rate")?;
    run.guest_bytes = received["bytes"].as_u64();
    run.work = Some(Work { set: None, achieved: bits / 8.0, unit: "bytes".to_owned() });
    Ok(())
}

/// Waits until a process has ended, without collecting it: the meter wants to know what it has used.
fn ended(process: &Process) -> Result<()> {
    let stat = format!("/proc/{}/stat", process.pid());
    wait::until("the end of iperf3", IPERF3_TIME + END_WAIT, || {
        let text = std::fs::read_to_string(&stat).context("looking at iperf3")?;
        let state = text.rsplit_once(") ").map(|(_, rest)| rest.starts_with('Z'));
        Ok((state == Some(true)).then_some(()))
    })
}
