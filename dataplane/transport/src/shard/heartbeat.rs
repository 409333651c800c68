//! Waking shards from outside, so that no task that is ready stays asleep.
//!
//! glommio 0.9 may go to sleep with ready tasks: if the preemption timer fires before any of them ran (the thread lost its
//! processor for that long just then), `run_task_queues` says that nothing ran, and the executor parks without looking
//! whether something could. Whatever wakes the shard next runs them, unless it meets the same fate; so the wake-ups come
//! from a thread, which does not depend on any of them having been served. It wakes those shards whose threads have lately
//! waited for a processor about as long as the fault needs (the kernel counts that), and the others ten times less often,
//! for what the kernel cannot count: a virtual machine that was not run.

use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// How long a ready task sleeps at most, if its shard's processor is not taken away again at the very next wake-up.
const HEARTBEAT: Duration = Duration::from_millis(20);

/// Beats between two that come without a reason.
const REST_BEATS: u32 = 10;

/// Beats that follow one with a reason, because that reason may have met the shard before it went to sleep.
const REPEATED_BEATS: u32 = 3;

/// Beats that a shard may leave unserved before no more are queued for it: glommio counts them in 16 bits.
const UNSERVED_MAX: u32 = 1000;

/// A shard's side of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Heart {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    unserved: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    waker: Option<Waker>,
    ended: bool,
    // The shard thread's counters, opened on that thread; none if the kernel does not keep them.
    schedstat: Option<File>,
    waited: Duration,
    rested_beats: u32,
    repeat_beats: u32,
}

impl State {
    /// Whether the shard needs a beat now.
    fn is_due(&mut self, suspicious: Duration) -> bool {
        let waited = self.schedstat.as_ref().and_then(waited);
        let grown = waited.is_none_or(|now| now.saturating_sub(self.waited) >= suspicious);
        self.waited = waited.unwrap_or_default();
        if grown {
            self.repeat_beats = REPEATED_BEATS;
        } else if self.repeat_beats > 0 {
            self.repeat_beats -= 1;
        } else {
            self.rested_beats += 1;
            if self.rested_beats < REST_BEATS {
                return false;
            }
        }
        self.rested_beats = 0;
        true
    }
}

/// How long a thread has waited for a processor in its life: the second number, nanoseconds (kernel
/// Documentation/scheduler/sched-stats.rst). A wait is added as it ends.
fn waited(schedstat: &File) -> Option<Duration> {
    let mut text = [0; 96];
    let len = schedstat.read_at(&mut text, 0).ok()?;
    let text = std::str::from_utf8(text.get(..len)?).ok()?;
    text.split_ascii_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

impl Heart {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Single assignments: nothing is ever half changed.
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task that is woken. It runs on the shard until it is dropped.
    pub(super) async fn serve(self) {
        poll_fn(|cx| {
            self.shared.unserved.store(0, Ordering::Relaxed);
            let mut state = self.lock();
            if !state.ended && state.waker.is_none() {
                state.schedstat = File::open("/proc/thread-self/schedstat").ok();
                state.waker = Some(cx.waker().clone());
            }
            Poll::<()>::Pending
        })
        .await;
    }

    /// Drop it on the shard when the shard ends, however it ends.
    pub(super) fn until_dropped(&self) -> Beating {
        Beating(self.clone())
    }

    /// Wakes the shard if that is due; false once it has ended.
    fn beat(&self, suspicious: Duration) -> bool {
        let mut state = self.lock();
        if state.is_due(suspicious)
            && let Some(waker) = &state.waker
            && self.shared.unserved.fetch_add(1, Ordering::Relaxed) < UNSERVED_MAX
        {
            // By reference: the waker itself is only ever dropped on its shard.
            waker.wake_by_ref();
        }
        !state.ended
    }
}

pub(super) struct Beating(Heart);

impl Drop for Beating {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.ended = true;
        state.waker = None;
        state.schedstat = None;
    }
}

/// Starts the thread that wakes the shards of `hearts`, whose preemption timer is `preempt_after`. It ends with the last
/// of them.
pub(super) fn start(hearts: Vec<Heart>, preempt_after: Duration) -> io::Result<()> {
    let suspicious = preempt_after / 2;
    let thread = std::thread::Builder::new().name("heartbeat".into());
    thread.spawn(move || {
        loop {
            std::thread::sleep(HEARTBEAT);
            // Every heart, not only up to the first that beats.
            let alive = hearts.iter().filter(|heart| heart.beat(suspicious)).count();
            if alive == 0 {
                return;
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn waiting_for_a_processor_is_seen() {
        let counters = File::open("/proc/thread-self/schedstat").unwrap();
        assert!(waited(&counters).is_some());
        // More threads than processors, so that this one has to wait.
        let until = Instant::now() + Duration::from_millis(300);
        let others = std::thread::available_parallelism().unwrap().get() * 3;
        let noise: Vec<_> =
            (0..others).map(|_| std::thread::spawn(move || while Instant::now() < until {})).collect();
        let before = waited(&counters).unwrap();
        while Instant::now() < until {}
        assert!(waited(&counters).unwrap() > before);
        for thread in noise {
            thread.join().unwrap();
        }
    }

    #[test]
    fn beats_rest_unless_there_is_a_reason_or_nothing_is_known() {
        let mut unknown = State::default();
        assert!((0..20).all(|_| unknown.is_due(Duration::from_millis(1))));
        let mut calm =
            State { schedstat: File::open("/proc/thread-self/schedstat").ok(), ..State::default() };
        let never = Duration::from_secs(1 << 30);
        let due = (0..100).filter(|_| calm.is_due(never)).count();
        assert_eq!(due, 10);
        assert!(calm.is_due(Duration::ZERO));
        let after = (0..REPEATED_BEATS).filter(|_| calm.is_due(never)).count();
        assert_eq!(after, REPEATED_BEATS as usize);
        assert!(!calm.is_due(never));
    }
}
