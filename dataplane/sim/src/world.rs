//! The clock, the queue of what happens next, and the end of a run.

use crate::check::{Cause, Coverage, Place, bounds};
use crate::gateway::Gateway;
use crate::network::{DESTINATION, MILLISECOND, Nanos, SECOND, SOURCE, Side, Stream};
use crate::plan::{Fault, Plan, Sabotage, When};
use crate::random::Random;
use bytes::Bytes;
use novacron_protocol::session::{Role, Session, State};
use novacron_protocol::time::Instant;
use novacron_protocol::wire::{Kind, Lane, ReasonCode};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};

/// No run lasts longer than this on the virtual clock: every wait of the protocol is far shorter.
const LIFETIME: Nanos = 3_600 * SECOND;
/// Nor takes more steps than this.
const STEPS_MAX: u64 = 6_000_000;
/// Once both sides have ended, how long the rest is watched.
const AFTERWARDS: Nanos = 5 * SECOND;

/// Something that happens at a given time.
#[derive(Clone, Debug)]
pub(crate) enum Happening {
    Announce { side: Side },
    OpenConnection { index: usize, incarnation: u32 },
    Connected { connection: u16, incarnation: u32 },
    Write { side: Side, connection: u16, incarnation: u32 },
    Close { side: Side, connection: u16, incarnation: u32 },
    Read { side: Side, connection: u16, incarnation: u32 },
    Tick { side: Side, at: Nanos },
    JobDone { side: Side, worker: usize, incarnation: u32 },
    Dial,
    StreamUp { stream: u32, side: Side },
    StreamLost { stream: u32, side: Side },
    Departed { stream: u32, from: Side },
    Arrived { stream: u32, from: Side, frame: Bytes },
    Acknowledged { stream: u32, from: Side, frame: (Lane, u64) },
    Strike { fault: Fault, on: Option<u32> },
    Resume { side: Side },
}

impl Happening {
    /// On whose machine it happens; `None`: outside of both.
    fn side(&self) -> Option<Side> {
        match *self {
            Happening::Announce { side }
            | Happening::Write { side, .. }
            | Happening::Close { side, .. }
            | Happening::Read { side, .. }
            | Happening::Tick { side, .. }
            | Happening::JobDone { side, .. }
            | Happening::StreamUp { side, .. }
            | Happening::StreamLost { side, .. } => Some(side),
            Happening::Departed { from, .. } | Happening::Acknowledged { from, .. } => Some(from),
            Happening::Arrived { from, .. } => Some(1 - from),
            Happening::OpenConnection { .. } => Some(SOURCE),
            Happening::Connected { .. } => Some(DESTINATION),
            Happening::Dial | Happening::Strike { .. } | Happening::Resume { .. } => None,
        }
    }
}

/// A run that did not hold what was promised.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed that shows it.
    pub seed: u64,
    /// When on the virtual clock, in nanoseconds.
    pub at_ns: u64,
    /// What did not hold.
    pub what: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "seed {} at {:.6} s: {}\n  replay: NOVACRON_SIM_SEED={} NOVACRON_SIM_TRACE=1 cargo test -p novacron-sim \
             --test seeds -- --nocapture",
            self.seed,
            self.at_ns as f64 / 1e9,
            self.what,
            self.seed
        )
    }
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Moves of both sessions.
    pub coverage: Coverage,
    /// Whether both sides finished well.
    pub finished: bool,
    /// Why the sides failed, where they did: source, destination.
    pub reasons: [Option<ReasonCode>; 2],
    /// When both had ended, on the virtual clock, in nanoseconds.
    pub ended_ns: u64,
    /// Guest bytes carried, both directions.
    pub guest_bytes: u64,
    /// A hash of everything that happened: one seed, one value.
    pub fingerprint: u64,
    /// Frames by their kind, both sides.
    pub frames: BTreeMap<String, u64>,
    /// Codec jobs that workers did.
    pub jobs: u64,
    /// Guest bytes of pages that the far side was told to take, whole or in part, from what it remembered.
    pub recalled_bytes: u64,
    /// Guest bytes of pages that were only referred to by their content.
    pub known_bytes: u64,
    /// Pages of them that the far side had not, and that were sent after all.
    pub repaired_pages: u64,
    /// Bytes that were stuck on a stream and left on another as well.
    pub repeated_bytes: u64,
    /// Things that happened.
    pub steps: u64,
}

/// A run in progress.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) now: Nanos,
    queue: BinaryHeap<Reverse<(Nanos, u64, usize)>>,
    happenings: HashMap<usize, Happening>,
    next_happening: usize,
    pub(crate) gateways: [Gateway; 2],
    pub(crate) streams: BTreeMap<u32, Stream>,
    pub(crate) next_stream: u32,
    pub(crate) dark_until: Nanos,
    pub(crate) sent: HashMap<(Side, Kind), u64>,
    pub(crate) sequenced: [u64; 2],
    /// How many pauses of each side have not ended, and what would have happened there.
    pub(crate) paused: [u32; 2],
    held_back: [VecDeque<Happening>; 2],
    pub(crate) sabotaged: bool,
    pub(crate) all_closed: bool,
    pub(crate) report: Report,
    trace: bool,
}

/// Carries out a plan. An error is a promise that was not kept.
pub fn run(plan: Plan, trace: bool) -> Result<Report, Failure> {
    let seed = plan.seed;
    let mut world = World::new(plan, trace);
    match world.live() {
        Ok(()) => Ok(world.report),
        Err(what) => Err(Failure { seed, at_ns: world.now, what }),
    }
}

impl World {
    fn new(plan: Plan, trace: bool) -> Self {
        // The plan was drawn from the seed itself; what happens is drawn from its neighbourhood.
        let mut random = Random::new(plan.seed ^ 0x5eed_5eed);
        let gateways = [Gateway::new(SOURCE, &mut random), Gateway::new(DESTINATION, &mut random)];
        World {
            plan,
            random,
            now: 0,
            queue: BinaryHeap::new(),
            happenings: HashMap::new(),
            next_happening: 0,
            gateways,
            streams: BTreeMap::new(),
            next_stream: 0,
            dark_until: 0,
            sent: HashMap::new(),
            sequenced: [0; 2],
            paused: [0; 2],
            held_back: Default::default(),
            sabotaged: false,
            all_closed: false,
            report: Report::default(),
            trace,
        }
    }

    pub(crate) fn instant(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    pub(crate) fn at(&mut self, when: Nanos, happening: Happening) {
        let id = self.next_happening;
        self.next_happening += 1;
        self.happenings.insert(id, happening);
        self.queue.push(Reverse((when.max(self.now), id as u64, id)));
    }

    pub(crate) fn after(&mut self, wait: Nanos, happening: Happening) {
        self.at(self.now.saturating_add(wait), happening);
    }

    pub(crate) fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>14.6} {}", self.now as f64 / 1e9, text());
        }
    }

    /// Does something to a session and looks whether it moved along a documented edge, within its bounds.
    pub(crate) fn with_session<T>(
        &mut self,
        side: Side,
        cause: Cause,
        act: impl FnOnce(&mut Session) -> T,
    ) -> Result<Option<T>, String> {
        let Some(session) = &mut self.gateways[side].session else { return Ok(None) };
        let role = session.config().role;
        let before = Place::of(session.state());
        let result = act(session);
        let after = Place::of(session.state());
        let receives = self.plan.windows[1 - side];
        bounds(session, receives).map_err(|what| format!("{role:?}: {what}"))?;
        if before != after {
            let state = format!("{:?}", session.state());
            self.report.coverage.count(role, before, after, cause)?;
            self.say(|| format!("{role:?} {before:?} -> {state} through {cause:?}"));
        }
        Ok(Some(result))
    }

    fn live(&mut self) -> Result<(), String> {
        self.begin();
        let mut ended = None;
        while let Some(Reverse((at, _, id))) = self.queue.pop() {
            let Some(happening) = self.happenings.remove(&id) else { continue };
            if ended.is_some_and(|ended| at > ended + AFTERWARDS) {
                break;
            }
            self.now = at;
            self.report.steps += 1;
            if at > LIFETIME || self.report.steps > STEPS_MAX {
                return Err(format!("no end in sight: {}", self.standing()));
            }
            self.step(happening)?;
            if ended.is_none() && self.is_over() {
                ended = Some(self.now);
                self.report.ended_ns = self.now;
            }
        }
        if ended.is_none() {
            return Err(format!("nothing happens any more, and no end: {}", self.standing()));
        }
        self.judge()
    }

    fn begin(&mut self) {
        let plan = self.plan.clone();
        if plan.announced != u64::MAX {
            self.at(plan.announced, Happening::Announce { side: DESTINATION });
        }
        let opens = self.random.spread(0, SECOND);
        self.at(opens, Happening::Announce { side: SOURCE });
        for _ in 0..plan.streams {
            let at = self.random.spread(0, 3 * SECOND);
            self.at(at, Happening::Dial);
        }
        for (when, fault) in plan.faults {
            if let When::At(at) = when {
                self.at(at, Happening::Strike { fault, on: None });
            }
        }
    }

    fn step(&mut self, happening: Happening) -> Result<(), String> {
        if let Some(side) = happening.side()
            && self.paused[side] > 0
        {
            self.held_back[side].push_back(happening);
            return Ok(());
        }
        match happening {
            Happening::Announce { side } => self.announce(side),
            Happening::OpenConnection { index, incarnation } => self.open_connection(index, incarnation),
            Happening::Connected { connection, incarnation } => self.connected(connection, incarnation),
            Happening::Write { side, connection, incarnation } => {
                self.hypervisor_writes(side, connection, incarnation)
            }
            Happening::Close { side, connection, incarnation } => {
                self.hypervisor_closes(side, connection, incarnation)
            }
            Happening::Read { side, connection, incarnation } => {
                self.hypervisor_reads(side, connection, incarnation)
            }
            Happening::Tick { side, at } => self.tick(side, at),
            Happening::JobDone { side, worker, incarnation } => self.job_done(side, worker, incarnation),
            Happening::Dial => {
                self.dial();
                Ok(())
            }
            Happening::StreamUp { stream, side } => self.stream_up(stream, side),
            Happening::StreamLost { stream, side } => self.stream_lost(stream, side),
            Happening::Departed { stream, from } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.departed(from);
                }
                self.work(from)
            }
            Happening::Arrived { stream, from, frame } => self.arrived(stream, from, frame),
            Happening::Acknowledged { stream, from, frame } => self.acknowledged(stream, from, frame),
            Happening::Strike { fault, on } => self.strike(fault, on),
            Happening::Resume { side } => {
                self.paused[side] -= 1;
                // What came meanwhile is found all at once, in its order, at a time far later than it was before.
                while self.paused[side] == 0
                    && let Some(happening) = self.held_back[side].pop_front()
                {
                    self.step(happening)?;
                }
                Ok(())
            }
        }
    }

    fn tick(&mut self, side: Side, at: Nanos) -> Result<(), String> {
        if self.gateways[side].tick_at != Some(at) {
            return Ok(());
        }
        self.gateways[side].tick_at = None;
        let now = self.instant();
        self.with_session(side, Cause::Tick, |session| session.tick(now))?;
        if let Some(session) = &self.gateways[side].session
            && session.deadline().is_some_and(|deadline| deadline <= now)
        {
            return Err(format!(
                "side {side}: after a tick the deadline still lies in the past, a gateway would spin"
            ));
        }
        self.work(side)
    }

    /// Sets the clock for a session's next deadline. Gateways are late at times, never early.
    pub(crate) fn set_tick(&mut self, side: Side) {
        let Some(deadline) = self.gateways[side].session.as_ref().and_then(Session::deadline) else {
            self.gateways[side].tick_at = None;
            return;
        };
        if self.gateways[side].deadline != Some(deadline) || self.gateways[side].tick_at.is_none() {
            let late = self.random.range(0, 2 * MILLISECOND);
            let at = deadline.as_nanos().saturating_add(late).max(self.now);
            self.gateways[side].deadline = Some(deadline);
            self.gateways[side].tick_at = Some(at);
            self.at(at, Happening::Tick { side, at });
        }
    }

    fn is_over(&self) -> bool {
        self.gateways.iter().all(|gateway| match &gateway.session {
            Some(session) => session.state().is_over(),
            None => gateway.forgotten || (gateway.side == DESTINATION && self.plan.announced == u64::MAX),
        })
    }

    fn standing(&self) -> String {
        let side = |gateway: &Gateway| match &gateway.session {
            None => "no session".to_owned(),
            Some(session) => format!(
                "{:?} of {:?}, streams {:?}, sent {:?}, received {:?}, retained {:?}, frames wait {}",
                session.state(),
                session.config().role,
                session.streams(),
                session
                    .outbound()
                    .states()
                    .map(|s| (s.connection, s.position, s.verified, s.consumed, s.ended))
                    .collect::<Vec<_>>(),
                session
                    .inbound()
                    .states()
                    .map(|r| (r.connection, r.verified, r.consumed, r.ended))
                    .collect::<Vec<_>>(),
                session.outbound().retained_bytes(),
                session.has_frames(),
            ),
        };
        format!("{}\n  {}", side(&self.gateways[0]), side(&self.gateways[1]))
    }

    /// What must hold at the end.
    fn judge(&mut self) -> Result<(), String> {
        let standing = self.standing();
        for side in [SOURCE, DESTINATION] {
            let gateway = &self.gateways[side];
            let Some(session) = &gateway.session else { continue };
            if let State::Failed(reason) = session.state() {
                self.report.reasons[side] = Some(reason.code);
                let own_fault = matches!(
                    reason.code,
                    ReasonCode::Protocol | ReasonCode::Decode | ReasonCode::DigestMismatch
                );
                let damaged = self.plan.damage.is_some();
                if own_fault && !damaged {
                    return Err(format!("a session broke its own protocol: {standing}"));
                }
                if self.plan.survivable() && reason.code != ReasonCode::Outage {
                    return Err(format!("only streams were lost, and the session did not wait: {standing}"));
                }
                if reason.code == ReasonCode::Finished && gateway.incarnation == 0 {
                    return Err(format!("a session failed because all went well: {standing}"));
                }
                if reason.text.is_empty() {
                    return Err(format!("a session failed without saying why: {standing}"));
                }
            }
        }
        let finished = |side: Side| {
            self.gateways[side].session.as_ref().is_some_and(|s| matches!(s.state(), State::Finished))
        };
        self.report.finished = finished(SOURCE) && finished(DESTINATION);
        if self.plan.must_finish() && !self.report.finished {
            return Err(format!("every fault was survivable, yet not both sides finished: {standing}"));
        }
        for side in [SOURCE, DESTINATION] {
            if !finished(side) {
                continue;
            }
            let Some(session) = &self.gateways[side].session else { continue };
            let expected = self.plan.digest.then_some(true);
            if session.digest_equal() != expected {
                let equal = session.digest_equal();
                return Err(format!("side {side} finished, and says digest_equal {equal:?}: {standing}"));
            }
            self.judge_finished(side)?;
        }
        // Two generals: with a fault nothing survives, one side may have finished and the other not know it. The
        // source is the side that decides, so what it calls finished was all verified by the destination.
        if finished(SOURCE)
            && let Some(destination) = &self.gateways[DESTINATION].session
        {
            for sending in self.gateways[SOURCE].session.iter().flat_map(|s| s.outbound().states()) {
                let there = destination
                    .inbound()
                    .states()
                    .find(|r| r.connection == sending.connection)
                    .map(|r| r.verified);
                if there != Some(sending.position) && self.gateways[DESTINATION].incarnation == 0 {
                    return Err(format!(
                        "the source finished, the destination has not everything: {standing}"
                    ));
                }
            }
        }
        for session in self.gateways.iter().filter_map(|gateway| gateway.session.as_ref()) {
            let bytes = session.outbound().bytes();
            self.report.guest_bytes += bytes.guest;
            self.report.recalled_bytes += bytes.unchanged + bytes.delta;
            self.report.known_bytes += bytes.known;
            self.report.repaired_pages += bytes.repaired_pages;
            self.report.repeated_bytes += bytes.repeated;
        }
        for ((_, kind), count) in &self.sent {
            *self.report.frames.entry(format!("{kind:?}")).or_default() += count;
        }
        self.report.fingerprint = crate::random::mix(self.random.next_u64() ^ self.report.steps ^ self.now);
        Ok(())
    }

    /// A finished side has handed its hypervisors everything that the others wrote.
    fn judge_finished(&self, side: Side) -> Result<(), String> {
        let there = &self.gateways[1 - side];
        for (connection, socket) in &self.gateways[side].sockets {
            let Some(other) = there.sockets.get(connection) else { continue };
            if there.incarnation > 0 {
                continue;
            }
            if socket.delivered != other.writer.written || !socket.eof_delivered {
                return Err(format!(
                    "side {side} finished, but connection {connection} got {} of {} bytes, its end {}",
                    socket.delivered, other.writer.written, socket.eof_delivered
                ));
            }
        }
        Ok(())
    }

    /// Whether the harness is to break now.
    pub(crate) fn sabotage(&mut self, sabotage: Sabotage) -> bool {
        if self.sabotaged || self.plan.sabotage != Some(sabotage) {
            return false;
        }
        self.sabotaged = true;
        self.say(|| format!("the harness itself goes wrong: {sabotage:?}"));
        true
    }
}

/// The role of a side.
pub(crate) fn role(side: Side) -> Role {
    if side == SOURCE { Role::Source } else { Role::Destination }
}
