//! Migrations of real guests that `novactl migrate` orders over control processes: what is recorded of them, also through
//! kill -9 of a control process in their middle.

use std::fs::File;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_testbed::control::Control;
use novacron_testbed::limits::{ANSWER_WAIT, EXIT_WAIT, MIGRATION_WAIT};
use novacron_testbed::rpc::Refused;
use novacron_testbed::stage::must_run_intact;
use novacron_testbed::{Novactl, Qemu, QemuOptions, Scratch, novactl, wait};
use serde_json::{Value, json};

/// Slow enough that what happens in the middle happens there, in bytes a second.
const SLOW: &str = "15000000";

/// A guest, where it is to go, and a control process with its gateway at either side.
struct Site<'a> {
    scratch: &'a Scratch,
    source: Qemu,
    destination: Qemu,
    a: Control,
    b: Control,
}

impl<'a> Site<'a> {
    fn set(scratch: &'a Scratch) -> Result<Self> {
        // Rewrites less than SLOW carries, so that it converges.
        let mut options = QemuOptions::small();
        options.guest.rate_mb = 2;
        let site = Self {
            scratch,
            source: Qemu::source(scratch, "source", &options)?,
            destination: Qemu::destination(scratch, "destination", &options)?,
            a: Control::start(scratch, "a", &[])?,
            b: Control::start(scratch, "b", &[])?,
        };
        site.source.guest().wait_ready()?;
        Ok(site)
    }

    fn migrate(&self, extra: &[&str]) -> Result<Novactl> {
        let log = self.scratch.file("novactl.log");
        File::create(&log)?;
        let qmp = [self.source.qmp_path(), self.destination.qmp_path()];
        let (a, b) = (self.a.socket(), self.b.socket());
        Novactl::migrate_at(&log, self.scratch, "novactl", qmp, [&a, &b], self.b.peer(), extra)
    }

    fn must_have_moved(&mut self) -> Result<()> {
        let status = self.source.process().wait(EXIT_WAIT).context("the source should have quit")?;
        ensure!(status.success(), "the source did not quit in order: {status}");
        must_run_intact(&mut self.destination)
    }

    /// The only migration that is recorded, once it is as `wanted`.
    fn recorded(&self, at: &Control, wanted: &str) -> Result<Value> {
        wait::until(&format!("a migration that is {wanted}"), ANSWER_WAIT, || {
            let page = at.rpc()?.call("history.migrations", json!({}))?;
            let all = page["migrations"].as_array().context("no migrations")?;
            ensure!(all.len() <= 1, "more than one: {page}");
            // The gateway's last word may come after novactl's.
            let whole = |one: &&Value| {
                one["outcome"] == wanted && (one["source"].is_object() || one["destination"].is_object())
            };
            Ok(all.iter().find(whole).cloned())
        })
    }

    /// Waits until bytes flow.
    fn wait_under_way(&self) -> Result<()> {
        wait::until("the migration to be under way", MIGRATION_WAIT, || {
            let list = self.a.rpc()?.call("session.list", json!({}))?;
            Ok(list["sessions"][0]["guest_bytes"].as_u64().filter(|bytes| *bytes > 1 << 20).map(drop))
        })
    }
}

#[test]
fn a_migration_is_recorded_as_completed_with_its_times_at_both_sides() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut site = Site::set(scratch)?;
        let ended = site.migrate(&["--label", "vm1"])?.finish(MIGRATION_WAIT)?;
        let report = ended.must_have_completed()?;
        ensure!(report["warnings"] == json!([]), "{}", ended.said);
        site.must_have_moved()?;
        let session = report["migration"].as_str().context("no migration")?;
        for control in [&site.a, &site.b] {
            let one = site.recorded(control, "completed")?;
            ensure!(one["session"] == session && one["reason"].is_null(), "{one}");
            for time in ["downtime_ms", "total_ms"] {
                ensure!(one[time].is_u64() && one[time] == report[time], "{time}: {one} against {report}");
            }
            ensure!(one["reported_by"] == one["actor"] && one["ended_at"].is_string(), "{one}");
            let log = control.rpc()?.call("audit.list", json!({}))?;
            let told = log["entries"].as_array().into_iter().flatten();
            let told: Vec<&Value> = told
                .filter(|entry| entry["method"] == "migration.report")
                .map(|entry| &entry["outcome"])
                .collect();
            ensure!(told == [&json!("begun"), &json!("done")], "{log}");
        }
        let socket = site.a.socket().display().to_string();
        let (status, table) =
            novactl::run(scratch, "history", &["history", "migrations", "--control", &socket])?;
        let downtime = report["downtime_ms"].to_string();
        ensure!(status.success() && table.contains("DOWNTIME ms") && table.contains(&downtime), "{table}");
        let metrics = site.a.metrics()?;
        ensure!(
            metrics.contains(r#"novacron_migrations_reported_total{outcome="completed"} 1"#),
            "{metrics}"
        );
        ensure!(metrics.contains("novacron_migration_downtime_seconds_count 1"), "{metrics}");

        // A repeat changes nothing, another word is refused, and so is a report of what nobody knows.
        let mut rpc = site.a.rpc()?;
        let again = rpc.call(
            "migration.report",
            json!({"session": session, "outcome": "completed", "downtime_ms": 1}),
        )?;
        ensure!(again["downtime_ms"] == report["downtime_ms"], "{again}");
        for (session, expected) in [(session, "already_settled"), ("00c0ffee00c0ffee", "session_unknown")] {
            let error = rpc.call("migration.report", json!({"session": session, "outcome": "failed"}));
            let error = error.err().context("it should have been refused")?;
            let refused = error.downcast_ref::<Refused>().with_context(|| format!("{error:#}"))?;
            ensure!(refused.data["code"] == expected, "{refused}");
        }
        Ok(())
    })
}

#[test]
fn control_may_be_killed_in_a_migration_and_the_record_is_complete() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut site = Site::set(scratch)?;
        let mut running = site.migrate(&["--max-bandwidth", SLOW])?;
        site.wait_under_way()?;
        site.a.kill();
        site.b.kill();
        // Longer than a watcher of a gateway would wait before it calls that lost.
        std::thread::sleep(Duration::from_secs(3));
        running.process().must_run()?;
        site.b.again(scratch, "b-again")?;
        // This one is away when the guest has moved, and comes back while novactl tries to tell it.
        site.source.process().wait(MIGRATION_WAIT)?;
        site.a.again(scratch, "a-again")?;
        let ended = running.finish(MIGRATION_WAIT)?;
        let report = ended.must_have_completed()?;
        site.must_have_moved()?;
        for control in [&site.a, &site.b] {
            let one = site.recorded(control, "completed")?;
            ensure!(
                one["downtime_ms"] == report["downtime_ms"] && one["total_ms"] == report["total_ms"],
                "{one}"
            );
            let whole = control.rpc()?.call("audit.verify", json!({}))?;
            ensure!(whole["entries"] == 4, "{whole}");
        }
        Ok(())
    })
}

#[test]
fn a_migration_does_not_need_a_control_process_to_end() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut site = Site::set(scratch)?;
        let mut running = site.migrate(&["--max-bandwidth", SLOW])?;
        site.wait_under_way()?;
        site.a.kill();
        let ended = running.finish(MIGRATION_WAIT)?;
        ensure!(ended.status.success() && ended.report["outcome"] == "completed", "{}", ended.said);
        let warned = ended.report["warnings"].to_string();
        ensure!(warned.contains("not in the records of a control process"), "{warned}");
        site.must_have_moved()?;
        // The other one was told; at this one the bytes are known, once it is back.
        site.recorded(&site.b, "completed")?;
        site.a.again(scratch, "a-again")?;
        let one = site.recorded(&site.a, "delivered")?;
        ensure!(one["downtime_ms"].is_null() && one["reported_by"].is_null(), "{one}");
        Ok(())
    })
}
