//! What a seed asks a run to be.

use crate::gated::Gate;
use crate::hypervisor::Content;
use crate::network::{DESTINATION, MICROSECOND, MILLISECOND, Nanos, PathPlan, SECOND, SOURCE, Side};
use crate::random::Random;
use novacron_protocol::hypervisor::synthetic::{Contents, Plan as StreamPlan, PlannedPage};
use novacron_protocol::limits::{
    BATCH_LEN_MAX, CONTENT_PAGE_BYTES, LANES_MAX, MEMORY_PAGE_BYTES, MEMORY_WINDOW_LANE_BYTES_MIN,
    RECEIVE_WINDOW_BYTES,
};
use novacron_protocol::page::policy::Mode;
use novacron_protocol::wire::Kind;

/// What a run is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scenario {
    /// Nothing breaks.
    Calm,
    /// Streams die and come back; never all of them for long.
    Cuts,
    /// All streams die at once, for less than the session may wait.
    Dark,
    /// All streams die for longer than that.
    Outage,
    /// A gateway restarts and has forgotten everything.
    Restart,
    /// A caller cancels on one side.
    Cancel,
    /// A hypervisor dies.
    Death,
    /// A bit of a frame flips on the way.
    Corruption,
    /// The destination's gateway learns of the session late, or never.
    Unannounced,
    /// One connection is read only after another has made progress, and credit is short.
    Gated,
    /// Streams stop for a long time without dying, one at a time.
    Stuck,
    /// A gateway's machine stands still for a while: its clock jumps.
    Jump,
}

/// When a fault strikes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum When {
    At(Nanos),
    /// Just as a side hands its nth frame of a kind to a stream.
    Frame {
        side: Side,
        kind: Kind,
        nth: u64,
    },
    /// Once every hypervisor has closed, and only last words are missing.
    Closed,
}

/// What strikes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The stream that the triggering frame took, or any.
    CutOne,
    /// Each stream with even chance.
    CutSome,
    /// All of them, and none can be opened for a time.
    CutAll {
        dark: Nanos,
    },
    /// A stream moves nothing in either direction for so long, and lives.
    StallOne {
        time: Nanos,
    },
    /// A side's machine stands still for so long, its hypervisors with it.
    Pause {
        side: Side,
        time: Nanos,
    },
    Restart {
        side: Side,
        /// Its caller announces the session again when it is back.
        again: bool,
    },
    Cancel {
        side: Side,
    },
    /// The hypervisor's process dies; `reset`: its sockets break rather than end.
    Death {
        side: Side,
        reset: bool,
    },
}

/// How a frame is damaged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Damage {
    pub(crate) side: Side,
    pub(crate) nth: u64,
    pub(crate) header: bool,
}

/// When a hypervisor closes a connection's writing side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// As soon as it has written everything.
    Written,
    /// When it has also read everything, and thought about it.
    ReadAll { thinks: Nanos },
}

/// One end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct EndPlan {
    pub(crate) content: Content,
    pub(crate) bytes: u64,
    pub(crate) chunk: (u64, u64),
    pub(crate) pause: (Nanos, Nanos),
    /// Bytes that it reads before it writes.
    pub(crate) writes_after: u64,
    pub(crate) close: Close,
    pub(crate) socket: u64,
    pub(crate) reads: (u64, u64),
    pub(crate) read_pause: (Nanos, Nanos),
    /// Its reader waits until another connection's has taken so much.
    pub(crate) reads_after: Option<Gate>,
    /// Reads in a million that stall, and how long at most.
    pub(crate) stalls_per_million: u64,
    pub(crate) stall: Nanos,
    /// Closes its socket altogether once it has written everything, whatever comes back.
    pub(crate) leaves: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct ConnectionPlan {
    pub(crate) opened_at: Nanos,
    pub(crate) connect: Nanos,
    pub(crate) ends: [EndPlan; 2],
}

/// What breaks in the harness itself, to show that the checkers look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The network swallows the nth sequenced frame of the source without the stream's dying.
    DropFrame(u64),
    /// A bit flips in bytes that were already verified.
    FlipOutput,
    /// Verified bytes are handed to the hypervisor twice.
    RepeatOutput,
    /// The source's gateway reads more than its budget.
    IgnoreBudget,
    /// The source's gateway does not say that a stream was lost.
    HideLoss,
    /// The source's gateway has one credit for all connections.
    ShareCredit,
    /// Codec workers forget after each job what their lanes carried.
    ForgetLanes,
}

/// A whole run, drawn from a seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where everything was drawn from.
    pub seed: u64,
    /// What the run is to show.
    pub scenario: Scenario,
    pub(crate) streams: usize,
    pub(crate) path: PathPlan,
    pub(crate) digest: bool,
    pub(crate) windows: [u64; 2],
    /// Bytes that a gateway's sessions may promise together; `None`: windows alone hold.
    pub(crate) memory: Option<u64>,
    pub(crate) outage: Nanos,
    pub(crate) open_timeout: Nanos,
    pub(crate) expect_timeout: Nanos,
    /// When the destination's caller announces the session.
    pub(crate) announced: Nanos,
    pub(crate) connections: Vec<ConnectionPlan>,
    pub(crate) lanes: u16,
    pub(crate) codec: Mode,
    /// Codec workers of each side; one: the session does the work itself.
    pub(crate) codec_workers: [u16; 2],
    /// Longest that a worker takes for a job.
    pub(crate) job_time: Nanos,
    /// The first connection carries a stream that the gateways understand: while its guest is stopped, a session
    /// survives only a short outage.
    pub(crate) structured: bool,
    pub(crate) faults: Vec<(When, Fault)>,
    pub(crate) damage: Option<Damage>,
    pub(crate) sabotage: Option<Sabotage>,
}

impl Plan {
    /// What a side may spend on remembering: nothing, pages alone, or a window as well, by the number of lanes. The source would
    /// spend more than the destination.
    pub(crate) fn memory_bytes(&self, side: usize) -> u64 {
        let of_lane = match self.lanes % 4 {
            0 => 0,
            1 => MEMORY_WINDOW_LANE_BYTES_MIN,
            _ => 20 * MEMORY_PAGE_BYTES,
        };
        let more = if side == 0 { 1 << 20 } else { 0 };
        u64::from(self.lanes) * of_lane + more
    }

    /// What the destination's content store may spend: nothing, or more or less than the guest needs.
    pub(crate) fn content_bytes(&self) -> u64 {
        match self.seed % 4 {
            0 => 0,
            1 => 300 * CONTENT_PAGE_BYTES,
            _ => 60 * CONTENT_PAGE_BYTES,
        }
    }

    /// The plan that `seed` stands for.
    pub fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed);
        let scenario = *random.pick(&[
            Scenario::Calm,
            Scenario::Calm,
            Scenario::Cuts,
            Scenario::Cuts,
            Scenario::Cuts,
            Scenario::Cuts,
            Scenario::Cuts,
            Scenario::Dark,
            Scenario::Dark,
            Scenario::Dark,
            Scenario::Dark,
            Scenario::Outage,
            Scenario::Restart,
            Scenario::Restart,
            Scenario::Cancel,
            Scenario::Cancel,
            Scenario::Death,
            Scenario::Death,
            Scenario::Corruption,
            Scenario::Unannounced,
            Scenario::Gated,
            Scenario::Gated,
            Scenario::Gated,
            Scenario::Stuck,
            Scenario::Stuck,
            Scenario::Stuck,
            Scenario::Jump,
            Scenario::Jump,
        ]);
        Plan::of(scenario, seed, random)
    }

    /// A plan of a given kind.
    pub fn for_scenario(scenario: Scenario, seed: u64) -> Self {
        Plan::of(scenario, seed, &mut Random::new(seed))
    }

    /// This plan with something wrong in the harness itself.
    pub fn sabotaged(mut self, sabotage: Sabotage) -> Self {
        self.sabotage = Some(sabotage);
        self
    }

    /// This plan with so many codec workers at the source and at the destination, and time that they take.
    pub fn with_workers(mut self, codec_workers: [u16; 2]) -> Self {
        (self.codec_workers, self.job_time) = (codec_workers, MILLISECOND);
        self
    }

    /// Whether both sides must finish well: every fault lies within what a session survives.
    pub fn must_finish(&self) -> bool {
        self.scenario == Scenario::Calm || (self.survivable() && !self.structured)
    }

    /// Whether nothing strikes that could end a session but the loss of streams, for less than its outage.
    pub(crate) fn survivable(&self) -> bool {
        matches!(
            self.scenario,
            Scenario::Calm
                | Scenario::Cuts
                | Scenario::Dark
                | Scenario::Gated
                | Scenario::Stuck
                | Scenario::Jump
        )
    }

    fn of(scenario: Scenario, seed: u64, random: &mut Random) -> Self {
        let path = draw_path(random);
        // A window below two batches is legal, and the hardest for the rule against slivers.
        let mut window = || match random.range(0, 9) {
            0 => random.spread(1, 5_000),
            1..4 => random.spread(5_000, 4 * BATCH_LEN_MAX as u64),
            4..8 => random.spread(2 * BATCH_LEN_MAX as u64, RECEIVE_WINDOW_BYTES),
            _ => RECEIVE_WINDOW_BYTES,
        };
        let windows = [window(), window()];
        let mut connections = draw_connections(random, windows);
        let structured = random.percent(35) && windows[DESTINATION] > 100_000;
        if structured {
            // The main one, and others as multifd's are.
            let all = random.percent(30);
            for connection in connections.iter_mut().take(if all { usize::MAX } else { 1 }) {
                let [forward, back] = &mut connection.ends;
                let stream = draw_stream(random);
                forward.bytes = stream.len() as u64;
                forward.chunk.1 = forward.chunk.1.max(forward.bytes / 2_000);
                forward.reads.1 = forward.reads.1.max(forward.bytes / 2_000);
                forward.content = Content::Stream(stream);
                back.writes_after = back.writes_after.min(forward.bytes);
            }
        }
        let digest = scenario == Scenario::Corruption || random.percent(90);
        let short = matches!(scenario, Scenario::Outage | Scenario::Restart | Scenario::Unannounced);
        let outage = if short { random.range(2 * SECOND, 20 * SECOND) } else { 60 * SECOND };
        let open_timeout = if short { 10 * SECOND } else { 120 * SECOND };
        let mut plan = Plan {
            seed,
            scenario,
            streams: random.range(1, 6) as usize,
            path,
            digest,
            windows,
            memory: None,
            outage,
            open_timeout,
            expect_timeout: if short { 30 * SECOND } else { 240 * SECOND },
            announced: 0,
            connections,
            lanes: random.spread(1, u64::from(LANES_MAX)) as u16,
            codec: *random.pick(&[
                Mode::Adaptive { level: 3 },
                Mode::None,
                Mode::Lz4,
                Mode::Lz4,
                Mode::Zstd { level: 1 },
            ]),
            codec_workers: [1, 1],
            job_time: 0,
            structured,
            faults: Vec::new(),
            damage: None,
            sabotage: None,
        };
        plan.draw_faults(random);
        // Drawn last: a seed of a run without workers stays the run that it was.
        if random.percent(50) {
            plan.codec_workers = [random.range(1, 4) as u16, random.range(1, 4) as u16];
            plan.job_time = random.spread(0, 20 * MILLISECOND);
        }
        plan
    }

    fn draw_faults(&mut self, random: &mut Random) {
        let cuts = |random: &mut Random| match random.range(0, 2) {
            0 | 1 => Fault::CutOne,
            _ => Fault::CutSome,
        };
        match self.scenario {
            Scenario::Calm => {}
            Scenario::Cuts => {
                for _ in 0..random.range(1, 12) {
                    self.faults.push((draw_when(random), cuts(random)));
                }
            }
            Scenario::Dark => {
                for _ in 0..random.range(1, 4) {
                    let dark = random.spread(MILLISECOND, 40 * SECOND);
                    self.faults.push((draw_when(random), Fault::CutAll { dark }));
                    if random.percent(50) {
                        self.faults.push((draw_when(random), cuts(random)));
                    }
                }
                if random.percent(60) {
                    self.slow_tail(random);
                }
            }
            Scenario::Outage => {
                let dark = self.outage + random.range(SECOND, 60 * SECOND);
                self.faults.push((draw_when(random), Fault::CutAll { dark }));
            }
            Scenario::Restart => {
                let fault = Fault::Restart { side: random.range(0, 1) as Side, again: random.percent(50) };
                self.faults.push((draw_when(random), fault));
            }
            Scenario::Cancel => {
                let fault = Fault::Cancel { side: random.range(0, 1) as Side };
                self.faults.push((draw_when(random), fault));
                if random.percent(50) {
                    self.faults.push((draw_when(random), cuts(random)));
                }
            }
            Scenario::Death => {
                let fault = Fault::Death { side: random.range(0, 1) as Side, reset: random.percent(50) };
                self.faults.push((draw_when(random), fault));
                if random.percent(50) {
                    self.faults.push((draw_when(random), cuts(random)));
                }
            }
            Scenario::Corruption => {
                self.damage = Some(Damage {
                    side: random.range(0, 1) as Side,
                    nth: random.spread(0, 60),
                    header: random.percent(30),
                });
            }
            Scenario::Gated => {
                self.draw_gates(random);
                for _ in 0..random.range(0, 3) {
                    self.faults.push((draw_when(random), cuts(random)));
                }
            }
            Scenario::Stuck => {
                self.streams = self.streams.max(2);
                for _ in 0..random.range(1, 5) {
                    let fault = Fault::StallOne { time: random.spread(10 * MILLISECOND, 30 * SECOND) };
                    self.faults.push((draw_when(random), fault));
                }
                if random.percent(40) {
                    self.faults.push((draw_when(random), cuts(random)));
                }
            }
            Scenario::Jump => {
                for _ in 0..random.range(1, 3) {
                    let time = random.spread(MILLISECOND, 15 * SECOND);
                    let fault = Fault::Pause { side: random.range(0, 1) as Side, time };
                    self.faults.push((draw_when(random), fault));
                }
                if random.percent(40) {
                    self.faults.push((draw_when(random), cuts(random)));
                }
            }
            Scenario::Unannounced => {
                self.announced = if random.percent(50) { u64::MAX } else { random.spread(1, 10 * SECOND) };
            }
        }
    }

    /// All hypervisors have closed, one side's are slow to read the rest, and then the network goes.
    fn slow_tail(&mut self, random: &mut Random) {
        let side = random.range(0, 1) as Side;
        self.structured = false;
        for connection in &mut self.connections {
            for end in &mut connection.ends {
                if let Content::Stream(_) = end.content {
                    end.content = Content::Words(random.next_u64());
                }
                (end.close, end.leaves) = (Close::Written, false);
            }
            // More than the socket holds, less than the window: all is verified while much is still to be read.
            let writes = &mut connection.ends[1 - side];
            writes.bytes = random.range(2_000, 8_000).min(self.windows[side]);
            (writes.socket, writes.writes_after) = (1_000, 0);
            (writes.reads, writes.read_pause) = ((1, 1_000), (0, SECOND));
        }
        let dark = random.range(15 * SECOND, 40 * SECOND);
        self.faults = vec![(When::Closed, Fault::CutAll { dark })];
    }
}

/// A migration's main connection: a few passes over a small guest.
fn draw_stream(random: &mut Random) -> bytes::Bytes {
    let pages = random.spread(1, 600);
    let mut plan = StreamPlan::filled(pages, random.range(0, 5), random.next_u64());
    plan.passes.clear();
    for _ in 0..random.range(1, 4) {
        let planned = |random: &mut Random| {
            let contents = match random.range(0, 2) {
                0 => Contents::Zero,
                1 => Contents::Noise,
                _ => Contents::Fill(random.next_u64() as u8),
            };
            let page = random.range(0, pages - 1);
            // By the page's number, not by another draw: a seed's run keeps its shape. Most guests change little of a page.
            let contents = match (contents, page % 3) {
                (Contents::Noise, 1) => Contents::Again { changed_bytes: 0 },
                (Contents::Noise, 2) => Contents::Again { changed_bytes: (page % 200) as u16 },
                (Contents::Noise, _) if page % 6 == 3 => Contents::Copy { of: page / 2 },
                (other, _) => other,
            };
            PlannedPage { block: 0, page, contents }
        };
        let pass = (0..random.range(0, pages)).map(|_| planned(random)).collect();
        plan.passes.push(pass);
    }
    plan.section_pages = random.spread(1, 1000) as usize;
    plan.device_bytes = random.spread(0, 80_000) as usize;
    plan.build().into()
}

fn draw_when(random: &mut Random) -> When {
    if random.percent(20) {
        return When::Closed;
    }
    if random.percent(50) {
        return When::At(random.spread(MILLISECOND, 20 * SECOND));
    }
    let kinds = [
        Kind::Open,
        Kind::Accept,
        Kind::ConnectionOpen,
        Kind::Batch,
        Kind::Progress,
        Kind::ConnectionEnd,
        Kind::Refuse,
        Kind::Fail,
    ];
    let kind = *random.pick(&kinds);
    let most = if matches!(kind, Kind::Batch | Kind::Progress) { 40 } else { 3 };
    let side = match kind {
        Kind::Open | Kind::ConnectionOpen => SOURCE,
        Kind::Accept => DESTINATION,
        _ => random.range(0, 1) as Side,
    };
    When::Frame { side, kind, nth: random.spread(0, most) }
}

fn draw_path(random: &mut Random) -> PathPlan {
    let delay = random.spread(10 * MICROSECOND, 150 * MILLISECOND);
    let rate = random.spread(2_000_000, 4_000_000_000);
    PathPlan {
        delay: (delay, delay * random.range(1, 3)),
        jitter: random.spread(0, delay),
        rate: (rate / 2, rate),
        stalls_per_million: if random.percent(30) { 5_000 } else { 0 },
        stall: 2 * SECOND,
        queue_frames: random.range(1, 8) as usize,
        notice: random.spread(MILLISECOND, 3 * SECOND),
        duplicates_per_million: if random.percent(20) { random.spread(1_000, 300_000) } else { 0 },
    }
}

fn draw_connections(random: &mut Random, windows: [u64; 2]) -> Vec<ConnectionPlan> {
    let count = if random.percent(40) { 1 } else { random.range(2, 6) };
    let small = random.percent(30);
    let mut connections: Vec<_> = (0..count)
        .map(|index| {
            let most = if small { 20_000 } else { 12_000_000 / count };
            // Through a window of a few bytes only few bytes come in a lifetime.
            let bytes = random.spread(0, most).min(windows[DESTINATION].saturating_mul(40));
            let forward = draw_end(random, bytes, 2 * index);
            let most = [0, 20, 2_000, 200_000][random.range(0, 3) as usize];
            let back = random.spread(0, most).min(windows[SOURCE].saturating_mul(40));
            let mut back = draw_end(random, back, 2 * index + 1);
            back.leaves = false;
            back.writes_after = random.range(0, forward.bytes);
            if random.percent(20) {
                // The source's hypervisor is slow to take even the last answer.
                back.reads = (1, back.bytes / 20 + 1);
                back.read_pause = (0, SECOND);
            }
            if random.percent(60) {
                back.close = Close::ReadAll { thinks: random.spread(0, 40 * SECOND) };
            }
            let mut ends = [forward, back];
            if random.percent(20) && ends[DESTINATION].close == Close::Written {
                ends[SOURCE].close = Close::ReadAll { thinks: random.spread(0, 2 * SECOND) };
                ends[SOURCE].leaves = false;
            }
            ConnectionPlan {
                opened_at: if random.percent(30) { 0 } else { random.spread(0, 4 * SECOND) },
                connect: random.spread(0, SECOND),
                ends,
            }
        })
        .collect();
    connections.sort_by_key(|connection| connection.opened_at);
    connections
}

fn draw_end(random: &mut Random, bytes: u64, key: u64) -> EndPlan {
    // A stream of single bytes is cut into a batch each: as many as may be under way, and not many more.
    let slivers = random.percent(8) && bytes < 100_000;
    let chunk = if slivers { 2 } else { random.spread(bytes / 2_000 + 1, 1 << 20) };
    let pause = random.spread(0, 20 * MILLISECOND);
    let reads = random.spread(bytes / 2_000 + 1, 1 << 20);
    let read_pause = if random.percent(50) { 0 } else { random.spread(0, 20 * MILLISECOND) };
    EndPlan {
        content: Content::Words(random.next_u64() ^ key),
        bytes: if slivers { bytes.min(6_000) } else { bytes },
        chunk: (1, chunk),
        pause: (0, pause),
        writes_after: 0,
        close: Close::Written,
        socket: if slivers { 200_000 } else { random.spread(4096, 1 << 20) },
        reads: (1, reads),
        read_pause: (0, read_pause),
        reads_after: None,
        stalls_per_million: if random.percent(30) { 10_000 } else { 0 },
        stall: 5 * SECOND,
        leaves: random.percent(15),
    }
}
