//! Whether intervals of loss hold the loss that a link has: trials of one loss side by side, each a pair of gateways on a link of
//! its own.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use novacron_lab::LabReport;
use serde::Serialize;

use super::sites::{Between, Pair, Sites};
use super::{Extent, Probes, link, number};
use crate::limits::{LOSS_LATENESS_MAX_MS, LOSS_TRIALS_AT_ONCE};
use crate::load::{Load, MachineLoad};
use crate::report::{Goal, Verdict};

/// Losses asked for, per cent.
const LOSSES_PERCENT: [f64; 3] = [0.1, 1.0, 5.0];
/// What a link carries, Mbit/s. A faster one would have longer trains, which tell nothing of loss and keep processors busy.
const RATE_MBIT: f64 = 100.0;
const RTT_MS: f64 = 5.0;

/// Trials of one loss that ran side by side.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Trials {
    loss_percent: f64,
    /// Each one's interval, per cent.
    intervals: Vec<(f64, f64)>,
    /// What the machine did meanwhile.
    load: MachineLoad,
    /// One frame in a hundred left its link later than this.
    lateness_p99_ms: f64,
    /// Frames that the kernel dropped because the lab was late. They would be losses that nobody asked for.
    overrun: u64,
}

impl Trials {
    fn covered(&self) -> usize {
        self.intervals.iter().filter(|(low, high)| (*low..=*high).contains(&self.loss_percent)).count()
    }
}

fn overrun(report: &LabReport) -> u64 {
    report.links.iter().map(|link| link.forward.overrun + link.back.overrun).sum()
}

/// Starts a pair on each link, lets all of them probe, and asks each.
fn trials(sites: &Sites, links: &[Between], loss_percent: f64, seconds: u64) -> Result<Trials> {
    let mut pairs: Vec<Pair> =
        links.iter().map(|link| sites.gateways_between(link)).collect::<Result<_>>()?;
    let before = overrun(&sites.report()?);
    sites.reset()?;
    let load = Load::start()?;
    thread::sleep(Duration::from_secs(seconds));
    let (load, report) = (load.since()?, sites.report()?);
    let interval = |pair: &mut Pair| -> Result<(f64, f64)> {
        let record = pair.path()?;
        let end =
            |end: &str| Ok::<_, anyhow::Error>(number(&record, &format!("/loss_forward_ppm/{end}"))? / 1e4);
        Ok((end("low")?, end("high")?))
    };
    let intervals = pairs.iter_mut().map(interval).collect::<Result<_>>()?;
    let lateness_p99_ms = report.lateness_p99_ms();
    Ok(Trials { loss_percent, intervals, load, lateness_p99_ms, overrun: overrun(&report) - before })
}

pub(super) fn measure(extent: &Extent, found: &mut Probes, say: &dyn Fn(&str)) -> Result<()> {
    let at_once = (extent.trials as usize).min(LOSS_TRIALS_AT_ONCE);
    let sites = Sites::joined_by(at_once)?;
    let links = sites.links()?;
    for loss_percent in LOSSES_PERCENT {
        // Lost on the way there alone, so that it has to be told apart.
        sites
            .set_forward(&link(Some(RATE_MBIT), RTT_MS, loss_percent), &link(Some(RATE_MBIT), RTT_MS, 0.0))?;
        let (mut left, mut covered) = (extent.trials as usize, 0);
        let mut detail = Vec::new();
        while left > 0 {
            let now = left.min(at_once);
            left -= now;
            let trials = trials(&sites, &links[..now], loss_percent, extent.trial_seconds)?;
            covered += trials.covered();
            detail.extend(trials.intervals.iter().map(|(low, high)| format!("{low:.2}..{high:.2}")));
            say(&format!(
                "{loss_percent} % lost: {} of {now} intervals hold it; {:.2} processors busy, {:.2} stolen, frames {:.2} ms late at \
                 most of 99 in 100, {} overrun",
                trials.covered(),
                trials.load.processors_busy,
                trials.load.processors_stolen,
                trials.lateness_p99_ms,
                trials.overrun
            ));
            ensure!(
                trials.overrun == 0 && trials.lateness_p99_ms <= LOSS_LATENESS_MAX_MS,
                "the machine is too busy for {now} trials at once: {trials:?}"
            );
            found.losses.push(trials);
        }
        let what = format!(
            "{loss_percent} % lost on the way there: trials of {} s whose interval holds it, {at_once} at once",
            extent.trial_seconds
        );
        let goal = Goal::AtLeast((f64::from(extent.trials) * 0.9).floor());
        found.verdicts.push(Verdict::new(&what, goal, covered as f64, "trials").with(&detail.join(" ")));
    }
    Ok(())
}
