//! What a guest sees of its move over a link of the lab: QEMU to QEMU over TCP against the same through two gateways over TLS.
//!
//! One guest goes to and fro between two sites, directly on the way there and through the gateways on the way back, by turns as
//! novactl sets it, which tells QEMU what the path achieves, and by back-pressure alone; the link is the same both ways. What
//! the bytes that QEMU sends while the guest stands still need on the link is no one's fault, and is taken off: of gateways by what
//! they make of the guest's bytes over the whole move.

use anyhow::{Context, Result, bail};
use novacron_lab::{Conditions, Lab, Topology};
use novacron_testbed::stats::Spread;
use novacron_testbed::{Migration, Qemu, QemuOptions, Scratch, Security, port};
use serde::Serialize;

use crate::limits::{PAUSE_LINK_DELAY_MS, PAUSE_LINK_MBIT};
use crate::load::{Load, MachineLoad};
use crate::migrate::{Move, move_by_novactl, move_once};
use crate::pair::{Pair, Place};
use crate::report::{Goal, Verdict};

/// The guest's memory and working set, MiB, and how fast it rewrites that, MB/s.
const MEMORY_MIB: u32 = 256;
const WORK_MIB: u32 = 64;
const DIRTY_MB_PER_S: u32 = 20;
/// What is promised: at most so much above direct, beside a round trip.
const ABOVE_MS: f64 = 10.0;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Pauses {
    round_trip_ms: f64,
    moves: Moves,
    machine: MachineLoad,
    #[serde(skip)]
    pub(crate) verdicts: Vec<Verdict>,
}

/// How a guest is moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// QEMU to QEMU.
    Direct,
    /// Through gateways, and nobody tells QEMU what they achieve.
    Alone,
    /// Through gateways, by novactl.
    Novactl,
}

/// What was measured of each way.
#[derive(Clone, Debug, Default, Serialize)]
struct Moves {
    direct: Vec<Move>,
    alone: Vec<Move>,
    novactl: Vec<Move>,
}

impl Way {
    /// A turn: to and fro.
    const TURN: [Self; 4] = [Self::Direct, Self::Novactl, Self::Direct, Self::Alone];

    fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Alone => "by back-pressure",
            Self::Novactl => "by novactl",
        }
    }
}

impl Moves {
    fn of(&mut self, way: Way) -> &mut Vec<Move> {
        match way {
            Way::Direct => &mut self.direct,
            Way::Alone => &mut self.alone,
            Way::Novactl => &mut self.novactl,
        }
    }
}

/// The pause, less what the bytes sent in it need on the link.
fn beside_the_link(one: &Move) -> f64 {
    one.pause_ms - one.stopped_bytes as f64 * one.wire_share * 8.0 / (PAUSE_LINK_MBIT * 1e3)
}

/// Moves a guest `moves` times each way, after a turn that does not count. `None`: there is no lab here.
pub(crate) fn measure(moves: u32, say: &dyn Fn(&str)) -> Result<Option<Pauses>> {
    if let Err(why) = novacron_lab::available() {
        say(&format!("no link: {why}"));
        return Ok(None);
    }
    let way = Conditions {
        rate_mbit: Some(PAUSE_LINK_MBIT),
        delay_ms: PAUSE_LINK_DELAY_MS,
        ..Conditions::default()
    };
    let lab = Lab::start(&Topology::two_sites(&way)).context("making the lab")?;
    let [near, far] = lab.sites() else { bail!("the lab made no two sites") };
    let places = [near, far].map(Place::at);
    let scratch = Scratch::new()?;
    let mut pair = Pair::between(&scratch, "pause", [&places[1], &places[0]], Security::Tls)?;
    let options = |place: &Place| QemuOptions {
        prefix: place.prefix.clone(),
        ..QemuOptions::filled(MEMORY_MIB, WORK_MIB, DIRTY_MB_PER_S)
    };
    say(&format!("pause: booting a guest that fills {MEMORY_MIB} MiB"));
    let mut guest = Qemu::source(&scratch, "vm", &options(&places[0]))?;
    guest.guest().wait_ready()?;
    let mut found = Moves::default();
    let mut load = Load::start()?;
    for turn in 0..=moves {
        for (step, way) in Way::TURN.into_iter().enumerate() {
            let to = &places[(step + 1) % 2];
            let (name, at_destination) = (format!("vm-{turn}-{step}"), options(to));
            let uri = format!("tcp:{}:{}", to.address, port::free()?);
            let over = Migration { incoming: uri.clone(), outgoing: uri, ..Migration::direct_tcp()? };
            let moved = match way {
                Way::Direct => move_once(&scratch, &name, &at_destination, over, &mut guest, None),
                Way::Alone => move_once(&scratch, &name, &at_destination, over, &mut guest, Some(&mut pair)),
                Way::Novactl => move_by_novactl(&scratch, &name, &at_destination, &mut guest, &mut pair),
            };
            let (next, one) =
                moved.with_context(|| format!("moving the guest, turn {turn}, {}", way.name()))?;
            guest = next;
            let counts = if turn == 0 { ", warm-up" } else { "" };
            say(&format!(
                "pause {turn}/{moves} {}: {:.1} ms, {:.1} ms of it beside the link of {:.1} MB; total {:.0} ms{counts}",
                way.name(),
                one.pause_ms,
                beside_the_link(&one),
                one.stopped_bytes as f64 * one.wire_share / 1e6,
                one.total_ms,
            ));
            if turn > 0 {
                found.of(way).push(one);
            }
        }
        if turn == 0 {
            load = Load::start()?;
        }
    }
    report(found, load.since()?).map(Some)
}

fn spread(moves: &[Move], of: impl Fn(&Move) -> f64) -> Result<Spread> {
    Spread::of(moves.iter().map(of)).context("no move was measured")
}

fn report(moves: Moves, machine: MachineLoad) -> Result<Pauses> {
    let theirs = spread(&moves.direct, beside_the_link)?;
    let round_trip_ms = 2.0 * PAUSE_LINK_DELAY_MS;
    let goal = Goal::AtMost(round_trip_ms + ABOVE_MS);
    let mut verdicts = Vec::new();
    for (way, ours) in [(Way::Novactl, &moves.novactl), (Way::Alone, &moves.alone)] {
        let ours = spread(ours, beside_the_link)?;
        let detail = format!("gateways {} ms, direct {} ms", ours.text(1), theirs.text(1));
        let verdict = |what: &str, above: f64| {
            let what = format!("pause over a link, {}, above direct, {what}", way.name());
            Verdict::new(&what, goal, above, "ms").with(&detail)
        };
        verdicts.push(verdict("medians", ours.median - theirs.median));
        verdicts.push(verdict("worst against worst", ours.max - theirs.max));
    }
    Ok(Pauses { round_trip_ms, moves, machine, verdicts })
}

impl Pauses {
    /// What was found, for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "Pause of a guest with {MEMORY_MIB} MiB that are not zero, {DIRTY_MB_PER_S} MB/s rewritten, over {PAUSE_LINK_MBIT:.0} Mbit/s and \
             {:.0} ms; {}\n  {:<18}{:>24}{:>26}{:>24}{:>24}\n",
            self.round_trip_ms,
            self.machine,
            "median (min..max)",
            "guest-seen pause ms",
            "of it beside the link ms",
            "sent stopped MB",
            "total ms"
        );
        let Moves { direct, alone, novactl } = &self.moves;
        for (way, moves) in [(Way::Direct, direct), (Way::Novactl, novactl), (Way::Alone, alone)] {
            let spread = |of: &dyn Fn(&Move) -> f64, digits| {
                spread(moves, of).map_or_else(|_| "none".to_owned(), |spread| spread.text(digits))
            };
            text += &format!(
                "  {:<18}{:>24}{:>26}{:>24}{:>24}\n",
                way.name(),
                spread(&|one| one.pause_ms, 1),
                spread(&beside_the_link, 1),
                spread(&|one| one.stopped_bytes as f64 / 1e6, 1),
                spread(&|one| one.total_ms, 0),
            );
        }
        text + "  The guest verified all of its memory after every move.\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migrate::tests::one;

    #[test]
    fn what_the_link_needs_is_taken_off() {
        // A megabyte takes 8 ms at 1 Gbit/s, and half of that where gateways halve it.
        let with = |pause_ms, stopped_bytes, wire_share| {
            let mut one = one(100.0, pause_ms);
            (one.stopped_bytes, one.wire_share) = (stopped_bytes, wire_share);
            one
        };
        let machine =
            MachineLoad { seconds: 1.0, processors_busy: 1.0, processors_stolen: 0.0, load_average: 1.0 };
        let direct = vec![with(20.0, 1_000_000, 1.0), with(30.0, 1_000_000, 1.0), with(22.0, 1_000_000, 1.0)];
        let alone = vec![with(40.0, 1_000_000, 0.5), with(90.0, 0, 0.5), with(30.0, 1_000_000, 0.5)];
        let novactl = vec![with(24.0, 1_000_000, 0.5)];
        let found = report(Moves { direct, alone, novactl }, machine.clone()).unwrap();
        let measured: Vec<f64> = found.verdicts.iter().map(|verdict| verdict.measured).collect();
        assert_eq!(measured, [20.0 - 14.0, 20.0 - 22.0, 36.0 - 14.0, 90.0 - 22.0]);
        assert!(found.table().contains("by novactl"));
        assert!(report(Moves::default(), machine).is_err());
    }
}
