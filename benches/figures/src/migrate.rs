//! A guest with 2 GiB of memory that is not zero: QEMU to QEMU over TCP against the same through two gateways.
//!
//! One guest is moved again and again, from the hypervisor where it stands to a fresh one, by turns directly and through
//! the gateways: both contenders move the very same guest, and it boots once.

use std::time::Duration;

use anyhow::{Context, Result};
use novacron_testbed::limits::MIGRATION_WAIT;
use novacron_testbed::migration::{Sent, beat_interval, pause_between};
use novacron_testbed::stats::{Spread, paired_ratio};
use novacron_testbed::{Between, Migration, MigrationReport, Novactl, Qemu, QemuOptions, Scratch, Usage};
use serde::Serialize;

use crate::limits::{BETWEEN_MOVES, SESSION_END_WAIT};
use crate::load::{Load, MachineLoad};
use crate::pair::{Choices, Pair};
use crate::report::{Goal, Verdict};

/// The guest's working set, MiB, and how fast it rewrites it, MB/s.
const WORK_MIB: u32 = 64;
const DIRTY_MB_PER_S: u32 = 20;
/// What is promised: at most so many times QEMU's own time, and so much pause above QEMU's own.
const TIMES_MAX: f64 = 2.0;
const PAUSE_MS_MAX: f64 = 20.0;

/// One move.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Move {
    pub(crate) total_ms: f64,
    /// As the source counts it.
    downtime_ms: f64,
    /// As the guest saw it, by its heartbeat.
    pub(crate) pause_ms: f64,
    /// How exact that is.
    pause_resolution_ms: f64,
    /// How long `cont` took; of novactl, from the source's `completed` to the guest seen running.
    cont_ms: f64,
    sent_bytes: u64,
    /// Sent while the guest stood still. On loopback nothing is subtracted for them: QEMU aims for the same number either way,
    /// and what one contender needs longer for them is its own pause.
    pub(crate) stopped_bytes: u64,
    /// Of a guest's byte, how much crossed between the gateways; 1 without them.
    pub(crate) wire_share: f64,
    iterations: u64,
    /// Processor time of both hypervisors and both gateways meanwhile.
    hypervisors_cpu_s: [f64; 2],
    gateways_cpu_s: [f64; 2],
}

/// One contender's moves.
#[derive(Clone, Debug, Default, Serialize)]
struct Moves {
    all: Vec<Move>,
}

impl Moves {
    fn values(&self, of: impl Fn(&Move) -> f64) -> Vec<f64> {
        self.all.iter().map(of).collect()
    }
    fn spread(&self, of: impl Fn(&Move) -> f64) -> Result<Spread> {
        Spread::of(self.values(of)).context("no move was measured")
    }
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Migrations {
    memory_mib: u32,
    /// multifd's; `None`: the main connection alone.
    channels: Option<u8>,
    direct: Moves,
    gateways: Moves,
    machine: MachineLoad,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// Moves a guest `moves` times each way, after one of each that does not count. The guest verifies its memory after
/// every one.
pub(crate) fn measure(
    memory_mib: u32,
    moves: u32,
    channels: Option<u8>,
    say: &dyn Fn(&str),
) -> Result<Migrations> {
    let scratch = Scratch::new()?;
    let options = QemuOptions::filled(memory_mib, WORK_MIB, DIRTY_MB_PER_S);
    let mut pair = Pair::start(&scratch)?;
    say(&format!("migration: booting a guest that fills {memory_mib} MiB"));
    let mut guest = Qemu::source(&scratch, "vm", &options)?;
    guest.guest().wait_ready()?;
    let (mut direct, mut gateways) = (Moves::default(), Moves::default());
    let mut load = Load::start()?;
    for turn in 0..=moves {
        for (contender, found) in [("direct", &mut direct), ("gateways", &mut gateways)] {
            let through = (contender == "gateways").then_some(&mut pair);
            let name = format!("vm-{turn}-{contender}");
            let direct = Migration { multifd_channels: channels, ..Migration::direct_tcp()? };
            let (next, one) = move_once(&scratch, &name, &options, direct, &mut guest, through)
                .with_context(|| format!("moving the guest, turn {turn}, {contender}"))?;
            // Dropped here: the hypervisor that the guest has left.
            guest = next;
            let counts = if turn == 0 { ", warm-up" } else { "" };
            say(&format!(
                "migration {turn}/{moves} {contender}: total {:.0} ms, pause {:.1} ms, {:.0} MB sent{counts}",
                one.total_ms,
                one.pause_ms,
                one.sent_bytes as f64 / 1e6
            ));
            if turn > 0 {
                found.all.push(one);
            }
        }
        if turn == 0 {
            load = Load::start()?;
        }
    }
    report(memory_mib, channels, direct, gateways, load.since()?)
}

/// Processor time of two processes so far, seconds.
fn cpu(pids: [u32; 2]) -> Result<[f64; 2]> {
    let of = |pid| Usage::of(pid).map(|usage| usage.cpu.as_secs_f64());
    Ok([of(pids[0])?, of(pids[1])?])
}

fn difference(after: [f64; 2], before: [f64; 2]) -> [f64; 2] {
    [after[0] - before[0], after[1] - before[1]]
}

/// Moves the guest to a fresh hypervisor, as `direct` says or through gateways, and lets it verify itself there.
pub(crate) fn move_once(
    scratch: &Scratch,
    name: &str,
    options: &QemuOptions,
    direct: Migration,
    source: &mut Qemu,
    through: Option<&mut Pair>,
) -> Result<(Qemu, Move)> {
    let mut destination = Qemu::destination(scratch, name, options)?;
    std::thread::sleep(BETWEEN_MOVES);
    // What the source has said of its own arrival is not to be taken for news of its departure.
    source.qmp().wait_event(Duration::from_millis(50), |_| None::<()>)?;

    let choices = Choices { destination_may_start: false, ..Choices::default() };
    let (entry, exit) = (scratch.file(&format!("{name}.in")), scratch.file(&format!("{name}.out")));
    let session = match &through {
        Some(pair) => Some(pair.open(&entry, &exit, choices)?),
        None => None,
    };
    let migration = match session {
        // max-bandwidth and downtime-limit stay as they are for direct moves.
        Some(_) => Migration {
            incoming: format!("unix:{}", exit.display()),
            outgoing: format!("unix:{}", entry.display()),
            ..direct
        },
        None => direct,
    };
    let hypervisors = [source.process().pid(), destination.process().pid()];
    let gateways = match through {
        Some(pair) => {
            let pids = [pair.source.process().pid(), pair.destination.process().pid()];
            Some((pair, pids))
        }
        None => None,
    };
    let hypervisors_before = cpu(hypervisors)?;
    let gateways_before = gateways.as_ref().map(|(_, pids)| cpu(*pids)).transpose()?;
    let report = migration.run(source, &mut destination)?;
    let hypervisors_cpu_s = difference(cpu(hypervisors)?, hypervisors_before);
    let (mut gateways_cpu_s, mut wire_share) = ([0.0; 2], 1.0);
    if let (Some((pair, pids)), Some(before), Some(session)) = (gateways, gateways_before, session) {
        gateways_cpu_s = difference(cpu(pids)?, before);
        source.quit().context("ending the hypervisor that the guest has left")?;
        let record = pair.finished(&session, choices)?;
        let bytes = |of: &str| record[of].as_f64().with_context(|| format!("no {of} in the record"));
        wire_share = bytes("wire_bytes_sent")? / bytes("guest_bytes")?.max(1.0);
    }
    destination.guest().must_be_intact()?;
    let one = one_move(&report, wire_share, hypervisors_cpu_s, gateways_cpu_s);
    Ok((destination, one))
}

/// Moves the guest through gateways as `novactl migrate` does, and lets it verify itself there.
pub(crate) fn move_by_novactl(
    scratch: &Scratch,
    name: &str,
    options: &QemuOptions,
    source: &mut Qemu,
    pair: &mut Pair,
) -> Result<(Qemu, Move)> {
    let mut destination = Qemu::destination(scratch, name, options)?;
    std::thread::sleep(BETWEEN_MOVES);
    let interval = beat_interval(source.guest().serial())?;
    let pids = [
        [source.process().pid(), destination.process().pid()],
        [pair.source.process().pid(), pair.destination.process().pid()],
    ];
    let before = [cpu(pids[0])?, cpu(pids[1])?];
    let between = Between {
        source,
        destination: &destination,
        source_gateway: &pair.source,
        destination_gateway: &pair.destination,
    };
    // Held there so that the source can still be asked what it sent; the guest runs.
    let extra = ["--max-bandwidth", "0", "--downtime-limit", "300", "--hold-at", "running"];
    let mut novactl = Novactl::migrate(scratch, &format!("{name}-novactl"), &between, &extra)?;
    novactl.wait_held("Running", MIGRATION_WAIT)?;
    let [hypervisors_cpu_s, gateways_cpu_s] =
        [difference(cpu(pids[0])?, before[0]), difference(cpu(pids[1])?, before[1])];
    let sent = Sent::of(source)?;
    let pause = pause_between(source.guest().serial(), destination.guest().serial(), interval)?;
    novactl.release();
    let ended = novactl.finish(SESSION_END_WAIT)?;
    let report = ended.must_have_completed()?;
    let number = |of: &str| report[of].as_f64().with_context(|| format!("novactl says nothing of {of}"));
    let wire_share = number("wire_bytes")? / number("guest_bytes")?.max(1.0);
    destination.guest().must_be_intact()?;
    let one = Move {
        total_ms: number("total_ms")?,
        downtime_ms: number("downtime_ms")?,
        pause_ms: pause.pause.as_secs_f64() * 1e3,
        pause_resolution_ms: pause.resolution.as_secs_f64() * 1e3,
        cont_ms: number("commit_ms")?,
        sent_bytes: sent.bytes,
        stopped_bytes: sent.stopped_bytes,
        wire_share,
        iterations: sent.passes,
        hypervisors_cpu_s,
        gateways_cpu_s,
    };
    Ok((destination, one))
}

fn one_move(
    report: &MigrationReport,
    wire_share: f64,
    hypervisors_cpu_s: [f64; 2],
    gateways_cpu_s: [f64; 2],
) -> Move {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Move {
        total_ms: ms(report.total),
        downtime_ms: ms(report.downtime),
        pause_ms: ms(report.pause.pause),
        pause_resolution_ms: ms(report.pause.resolution),
        cont_ms: ms(report.cont),
        sent_bytes: report.sent_bytes,
        stopped_bytes: report.stopped_bytes,
        wire_share,
        iterations: report.iterations,
        hypervisors_cpu_s,
        gateways_cpu_s,
    }
}

fn report(
    memory_mib: u32,
    channels: Option<u8>,
    direct: Moves,
    gateways: Moves,
    machine: MachineLoad,
) -> Result<Migrations> {
    let total = |one: &Move| one.total_ms;
    let pause = |one: &Move| one.pause_ms;
    let times =
        paired_ratio(&gateways.values(total), &direct.values(total)).context("no move was measured")?;
    let (ours, theirs) = (gateways.spread(pause)?, direct.spread(pause)?);
    let pairs =
        Spread::of(gateways.all.iter().zip(&direct.all).map(|(ours, theirs)| pause(ours) - pause(theirs)));
    let pairs = pairs.context("no move was measured")?;
    let detail = format!(
        "gateways {} ms, direct {} ms, turn by turn {} ms",
        ours.text(1),
        theirs.text(1),
        pairs.text(1)
    );
    let goal = Goal::AtMost(PAUSE_MS_MAX);
    let with = channels.map_or_else(String::new, |channels| format!(" with multifd {channels}"));
    let verdicts = vec![
        Verdict::new(
            &format!("migration time{with}, against direct{with}"),
            Goal::AtMost(TIMES_MAX),
            times.median,
            "x",
        )
        .with(&times.text(2)),
        Verdict::new(&format!("pause{with} above direct, medians"), goal, ours.median - theirs.median, "ms")
            .with(&detail),
        Verdict::new(
            &format!("pause{with} above direct, worst against worst"),
            goal,
            ours.max - theirs.max,
            "ms",
        )
        .with(&detail),
    ];
    Ok(Migrations { memory_mib, channels, direct, gateways, machine, verdicts })
}

impl Migrations {
    /// What was found, for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "Migration{} of a guest with {} MiB that are not zero, {DIRTY_MB_PER_S} MB/s rewritten; {}\n  {:<10}{:>24}{:>22}{:>22}  processor s: hypervisors, gateways\n",
            self.channels.map_or_else(String::new, |channels| format!(" with multifd {channels}")),
            self.memory_mib,
            self.machine,
            "median (min..max)",
            "total ms",
            "guest-seen pause ms",
            "sent stopped MB"
        );
        for (name, moves) in [("direct", &self.direct), ("gateways", &self.gateways)] {
            let spread = |of: &dyn Fn(&Move) -> f64, digits| {
                moves.spread(of).map_or_else(|_| "none".to_owned(), |spread| spread.text(digits))
            };
            let median = |of: &dyn Fn(&Move) -> f64| moves.spread(of).map_or(0.0, |spread| spread.median);
            text += &format!(
                "  {name:<10}{:>24}{:>22}{:>22}  {:.2} + {:.2}, {:.2} + {:.2}\n",
                spread(&|one| one.total_ms, 0),
                spread(&|one| one.pause_ms, 1),
                spread(&|one| one.stopped_bytes as f64 / 1e6, 0),
                median(&|one| one.hypervisors_cpu_s[0]),
                median(&|one| one.hypervisors_cpu_s[1]),
                median(&|one| one.gateways_cpu_s[0]),
                median(&|one| one.gateways_cpu_s[1]),
            );
            let per_gb = |one: &Move| {
                let cpu: f64 = one.hypervisors_cpu_s.iter().chain(&one.gateways_cpu_s).sum();
                cpu / (one.sent_bytes.max(1) as f64 / 1e9)
            };
            text +=
                &format!("  {name:<10}{:>24} processor s a guest GB, all processes\n", spread(&per_gb, 2));
        }
        text + "  The guest verified all of its memory after every move.\n"
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A move that took so long, with such a pause.
    pub(crate) fn one(total_ms: f64, pause_ms: f64) -> Move {
        Move {
            total_ms,
            downtime_ms: 0.0,
            pause_ms,
            pause_resolution_ms: 0.0,
            cont_ms: 0.0,
            sent_bytes: 0,
            stopped_bytes: 0,
            wire_share: 1.0,
            iterations: 1,
            hypervisors_cpu_s: [0.0; 2],
            gateways_cpu_s: [0.0; 2],
        }
    }

    fn moves(of: &[(f64, f64)]) -> Moves {
        Moves { all: of.iter().map(|(total_ms, pause_ms)| one(*total_ms, *pause_ms)).collect() }
    }

    #[test]
    fn figures_compare_with_direct() {
        let machine =
            MachineLoad { seconds: 1.0, processors_busy: 1.0, processors_stolen: 0.0, load_average: 1.0 };
        let direct = moves(&[(100.0, 10.0), (200.0, 12.0), (100.0, 11.0)]);
        let gateways = moves(&[(150.0, 20.0), (600.0, 60.0), (250.0, 21.0)]);
        let found = report(2048, Some(4), direct, gateways, machine.clone()).unwrap();
        let measured: Vec<f64> = found.verdicts.iter().map(|verdict| verdict.measured).collect();
        assert_eq!(measured, [2.5, 10.0, 48.0]);
        assert!(found.table().contains("gateways"));
        assert!(report(1, None, Moves::default(), Moves::default(), machine).is_err());
    }
}
