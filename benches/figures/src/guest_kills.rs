//! kill -9 of a control process in the middle of migrations of a real guest, again and again: it moves to and fro between two
//! sites, ordered by `novactl migrate` over their control processes.

use std::fs::File;
use std::thread;

use anyhow::{Context, Result, ensure};
use novacron_testbed::control::Control;
use novacron_testbed::limits::{EXIT_WAIT, MIGRATION_WAIT};
use novacron_testbed::stage::must_run_intact;
use novacron_testbed::stats::Spread;
use novacron_testbed::{Novactl, Qemu, QemuOptions, Scratch, wait};
use serde::Serialize;
use serde_json::{Value, json};

use crate::limits::{GUEST_KILL_AFTER_MAX, GUEST_KILL_BACK_MAX, GUEST_KILL_RATE};
use crate::load::{Load, MachineLoad};
use crate::report::{Goal, Verdict};

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct GuestKills {
    kills: u32,
    complete: u32,
    /// As novactl reported them: how long the migrations took with all that.
    total_ms: Spread,
    downtime_ms: Spread,
    machine: MachineLoad,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// The two sites, and where the guest is.
struct Sites<'a> {
    scratch: &'a Scratch,
    controls: [Control; 2],
    guest: Qemu,
    /// The site that it runs at.
    at: usize,
}

/// Kills one in each of `kills` migrations: by turns the source's and the destination's, at another moment each time.
pub(crate) fn measure(kills: u32, say: &dyn Fn(&str)) -> Result<GuestKills> {
    let scratch = Scratch::new()?;
    let load = Load::start()?;
    // It rewrites less than it may send, so that it converges.
    let mut options = QemuOptions::small();
    options.guest.rate_mb = 2;
    let controls = [Control::start(&scratch, "a", &[])?, Control::start(&scratch, "b", &[])?];
    let guest = Qemu::source(&scratch, "guest", &options)?;
    guest.guest().wait_ready()?;
    let mut sites = Sites { scratch: &scratch, controls, guest, at: 0 };
    let (mut complete, mut totals, mut downtimes) = (0, Vec::new(), Vec::new());
    for kill in 0..kills {
        let report = sites.migrate(kill, &options).with_context(|| format!("kill {kill}"))?;
        totals.push(report["total_ms"].as_f64().context("no total")?);
        downtimes.push(report["downtime_ms"].as_f64().context("no downtime")?);
        complete += 1;
        if (kill + 1) % 10 == 0 {
            say(&format!("control: {} kills of {kills} in migrations of a guest", kill + 1));
        }
    }
    for control in &sites.controls {
        control.rpc()?.call("audit.verify", json!({})).context("an audit log is not whole")?;
    }
    let verdicts = vec![
        Verdict::new(
            "control: guests moved and records complete after kill -9 in migrations",
            Goal::AtLeast(50.0),
            f64::from(complete),
            "",
        )
        .with(&format!("of {kills} kills, each in the middle of a migration of a real guest by novactl")),
    ];
    let none = "nothing was measured";
    let total_ms = Spread::of(totals).context(none)?;
    let downtime_ms = Spread::of(downtimes).context(none)?;
    Ok(GuestKills { kills, complete, total_ms, downtime_ms, machine: load.since()?, verdicts })
}

impl GuestKills {
    /// What was found, for people.
    pub(crate) fn table(&self) -> String {
        format!(
            "kill -9 of control processes in {} migrations of a guest, {} complete; {}\n  {:<24}{:>26}\n  {:<24}{:>26}\n",
            self.kills,
            self.complete,
            self.machine,
            "total, ms",
            self.total_ms.text(0),
            "downtime, ms",
            self.downtime_ms.text(0)
        )
    }
}

impl Sites<'_> {
    /// Moves the guest to the other site, kills a control process meanwhile, and looks at everything afterwards. Returns
    /// novactl's report.
    fn migrate(&mut self, kill: u32, options: &QemuOptions) -> Result<Value> {
        let (from, to) = (self.at, 1 - self.at);
        let mut destination = Qemu::destination(self.scratch, &format!("guest-{kill}"), options)?;
        let log = self.scratch.file("novactl.log");
        File::create(&log)?;
        let sockets = [self.controls[from].socket(), self.controls[to].socket()];
        let rate = GUEST_KILL_RATE.to_string();
        let mut running = Novactl::migrate_at(
            &log,
            self.scratch,
            "novactl",
            [self.guest.qmp_path(), destination.qmp_path()],
            [&sockets[0], &sockets[1]],
            self.controls[to].peer(),
            &["--max-bandwidth", &rate],
        )?;
        let session = self.under_way(from)?;
        // Another moment each time: out of step with everybody's looks.
        thread::sleep(GUEST_KILL_AFTER_MAX * (kill * 7 % 20) / 20);
        let victim = (kill % 2) as usize;
        self.controls[victim].kill();
        thread::sleep(GUEST_KILL_BACK_MAX * (kill * 3 % 10) / 10);
        self.controls[victim].again(self.scratch, &format!("control-{victim}"))?;
        let ended = running.finish(MIGRATION_WAIT)?;
        let report = ended.must_have_completed()?.clone();
        ensure!(report["warnings"] == json!([]), "{}", ended.said);
        let status = self.guest.process().wait(EXIT_WAIT).context("the source should have quit")?;
        ensure!(status.success(), "the source did not quit in order: {status}");
        must_run_intact(&mut destination)?;
        self.guest = destination;
        self.at = to;
        for (control, side) in [(&self.controls[from], "source"), (&self.controls[to], "destination")] {
            let whole = |one: &Value| {
                one["outcome"] == "completed"
                    && one["downtime_ms"] == report["downtime_ms"]
                    && one["total_ms"] == report["total_ms"]
                    && one["ended_at"].is_string()
                    && one["actor"].as_str().is_some_and(|actor| !actor.is_empty())
                    && one[side]["state"] == "finished"
                    && one[side]["guest_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20)
            };
            wait::until("a complete record", EXIT_WAIT, || {
                let page = control.rpc()?.call("history.migrations", json!({"items_max": 3}))?;
                let all = page["migrations"].as_array().context("no migrations")?;
                Ok(all.iter().any(|one| one["session"] == session && whole(one)).then_some(()))
            })?;
        }
        Ok(report)
    }

    /// Waits until bytes flow, and says in which session.
    fn under_way(&self, from: usize) -> Result<Value> {
        wait::until("the migration to be under way", MIGRATION_WAIT, || {
            let list = self.controls[from].rpc()?.call("session.list", json!({}))?;
            let mut all = list["sessions"].as_array().into_iter().flatten();
            let flows = |one: &&Value| {
                one["state"] == "running" && one["guest_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 20)
            };
            Ok(all.find(flows).map(|one| one["session"].clone()))
        })
    }
}
