//! Codec work among shards: what sessions hand out goes to the shards that own the lanes, and comes back done.
//!
//! ```text
//!  home shard                                   another shard
//!  running ── jobs ──▶ hand_out ── Work ──▶ receive ─▶ turns ─▶ work (encode, decode)
//!     ▲  └──── its own lanes' ─▶ turns ─▶ work                    │
//!     └── results ── receive ◀─────────────── Done ───────────────┘
//! ```
//!
//! Nothing is shared: a job carries all that it needs, its bytes are moved and not copied. How much may be under way is
//! bounded by the sessions themselves, so that an inbox cannot overflow.

use super::running::Running;
use crate::clock::Monotonic;
use crate::limits::CODEC_ERRANDS_MAX;
use novacron_protocol::stream::{CodecWorker, Done, Job};
use novacron_transport::shard::{Notify, Receiver, Sender, mailbox, yield_if_needed, yield_now};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

/// Results go home once they took this long together: what is cheap travels in company, what is dear at once.
const COMPANY_WAIT: Duration = Duration::from_micros(250);

/// Most results that wait for company.
const COMPANY_MAX: usize = 16;

/// A session of some shard, as codec work names it: its home, and its number there, never used again.
type Origin = (usize, u64);

/// What shards send each other.
pub(crate) enum Errand {
    /// Jobs of one session, in its order.
    Work { origin: Origin, jobs: Vec<Job> },
    /// Some of them are done.
    Done { session: u64, done: Vec<Done> },
    /// A session has ended: what workers remember of its lanes is needed no more.
    Ended,
}

/// How codec work reaches a shard.
#[derive(Clone)]
pub(crate) struct CodecInbox {
    errands: Sender<Errand>,
}

impl CodecInbox {
    /// An inbox, and what the shard receives on.
    pub(crate) fn new() -> (CodecInbox, Receiver<Errand>) {
        let (errands, received) = mailbox(CODEC_ERRANDS_MAX);
        (CodecInbox { errands }, received)
    }
}

/// A shard that jobs were meant for has stopped.
#[derive(Debug)]
pub(crate) struct ShardStopped {
    pub(crate) shard: usize,
}

/// One shard's share of the codec work, its own sessions' and others'.
pub(crate) struct CodecWork {
    index: usize,
    shards: Vec<CodecInbox>,
    turns: RefCell<Turns>,
    /// A session has ended whose lanes the worker may remember.
    ended: Cell<bool>,
    /// There is something to do.
    wake: Notify,
    sessions: RefCell<HashMap<u64, Weak<Running>>>,
    sessions_ever: Cell<u64>,
}

impl CodecWork {
    pub(crate) fn new(index: usize, shards: Vec<CodecInbox>) -> Rc<CodecWork> {
        Rc::new(CodecWork {
            index,
            shards,
            turns: RefCell::default(),
            ended: Cell::new(false),
            wake: Notify::new(),
            sessions: RefCell::default(),
            sessions_ever: Cell::new(0),
        })
    }

    /// How many shards work for a session.
    pub(crate) fn workers(&self) -> u16 {
        u16::try_from(self.shards.len()).unwrap_or(u16::MAX).max(1)
    }

    /// A session of this shard will hand out jobs under the number returned.
    pub(crate) fn begin(&self, running: &Rc<Running>) -> u64 {
        let number = self.sessions_ever.get();
        self.sessions_ever.set(number + 1);
        self.sessions.borrow_mut().insert(number, Rc::downgrade(running));
        number
    }

    /// A session is over: what is still done for it goes nowhere.
    pub(crate) fn end(&self, session: u64) {
        self.sessions.borrow_mut().remove(&session);
        self.turns.borrow_mut().forget((self.index, session));
        self.forget_lanes();
        for shard in (0..self.shards.len()).filter(|shard| *shard != self.index) {
            // One that has stopped remembers nothing.
            let _ = self.send(shard, Errand::Ended);
        }
    }

    /// The worker looks which lanes nobody needs any more.
    fn forget_lanes(&self) {
        self.ended.set(true);
        self.wake.notify();
    }

    /// Jobs of a session of this shard go to their workers: worker 0 is here, the others are the shards after this one.
    pub(crate) fn hand_out(&self, session: u64, jobs: Vec<Job>) -> Result<(), ShardStopped> {
        let origin = (self.index, session);
        let mut away: Vec<(usize, Vec<Job>)> = Vec::new();
        for job in jobs {
            let shard = (self.index + job.worker()) % self.shards.len();
            if shard == self.index {
                self.turns.borrow_mut().push(origin, job);
                self.wake.notify();
                continue;
            }
            match away.iter_mut().find(|(to, _)| *to == shard) {
                Some((_, jobs)) => jobs.push(job),
                None => away.push((shard, vec![job])),
            }
        }
        for (shard, jobs) in away {
            self.send(shard, Errand::Work { origin, jobs })?;
        }
        Ok(())
    }

    fn send(&self, shard: usize, errand: Errand) -> Result<(), ShardStopped> {
        // It never is full: sessions bound what they hand out.
        self.shards[shard].errands.try_send(errand).map_err(|_| ShardStopped { shard })
    }

    fn take_back(&self, (home, session): Origin, done: Vec<Done>) {
        if home != self.index {
            // A home that has stopped has no session left.
            let _ = self.send(home, Errand::Done { session, done });
            return;
        }
        let running = self.sessions.borrow().get(&session).and_then(Weak::upgrade);
        if let Some(running) = running {
            running.jobs_done(done);
        }
    }
}

/// Receives what other shards send, for as long as the shard runs.
pub(crate) async fn receive(codecs: Rc<CodecWork>, mut errands: Receiver<Errand>) {
    while let Some(errand) = errands.receive().await {
        match errand {
            Errand::Work { origin, jobs } => {
                let mut turns = codecs.turns.borrow_mut();
                for job in jobs {
                    turns.push(origin, job);
                }
                drop(turns);
                codecs.wake.notify();
            }
            Errand::Done { session, done } => codecs.take_back((codecs.index, session), done),
            Errand::Ended => codecs.forget_lanes(),
        }
        yield_if_needed().await;
    }
}

/// Does codec work, one bounded job after the other, everything else on the shard in between.
pub(crate) async fn work(codecs: Rc<CodecWork>) {
    let mut worker = CodecWorker::new();
    let mut company: Vec<Done> = Vec::new();
    let mut since = Instant::now();
    loop {
        let woken = codecs.wake.notified();
        if codecs.ended.take() {
            worker.release_ended();
        }
        let next = codecs.turns.borrow_mut().next();
        let Some((origin, job)) = next else {
            woken.await;
            continue;
        };
        if company.is_empty() {
            since = Instant::now();
        }
        company.push(worker.carry_out(job, &Monotonic));
        let same_follows = codecs.turns.borrow().follows(origin);
        if !same_follows || company.len() >= COMPANY_MAX || since.elapsed() >= COMPANY_WAIT {
            codecs.take_back(origin, std::mem::take(&mut company));
        }
        yield_now().await;
    }
}

/// Jobs that wait for this shard, by session; sessions take turns, so that a hot one does not hold up the others.
#[derive(Default)]
struct Turns {
    /// Sessions with jobs; the first of them is next.
    order: VecDeque<Origin>,
    jobs: HashMap<Origin, VecDeque<Job>>,
    /// Jobs of the first session since its turn came.
    taken: usize,
}

impl Turns {
    fn push(&mut self, origin: Origin, job: Job) {
        let jobs = self.jobs.entry(origin).or_default();
        if jobs.is_empty() {
            self.order.push_back(origin);
        }
        jobs.push_back(job);
    }

    fn next(&mut self) -> Option<(Origin, Job)> {
        if self.taken >= COMPANY_MAX {
            self.order.rotate_left(1.min(self.order.len()));
            self.taken = 0;
        }
        let origin = *self.order.front()?;
        self.taken += 1;
        let jobs = self.jobs.get_mut(&origin)?;
        let job = jobs.pop_front()?;
        if jobs.is_empty() {
            self.jobs.remove(&origin);
            self.order.pop_front();
            self.taken = 0;
        }
        Some((origin, job))
    }

    /// Whether the next job is another of the same session.
    fn follows(&self, origin: Origin) -> bool {
        self.taken < COMPANY_MAX && self.order.front() == Some(&origin)
    }

    fn forget(&mut self, origin: Origin) {
        if self.jobs.remove(&origin).is_some() {
            self.order.retain(|other| *other != origin);
            self.taken = 0;
        }
    }
}
