//! Telling every shard to stop, from any thread.

use crate::waiters::{Ticket, Waiters};
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;

/// A request to stop that can be made more insistent. Clones are the same request.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    requests: AtomicU32,
    waiters: Waiters,
}

impl Shutdown {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks once more. Safe on any thread; not inside a signal handler (use [`shutdown_on_signals`]).
    pub fn request(&self) {
        let _ = self.shared.requests.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_add(1));
        self.shared.waiters.wake_all();
    }

    /// How often it was asked for.
    pub fn requests(&self) -> u32 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Whether it was asked for.
    pub fn is_requested(&self) -> bool {
        self.requests() > 0
    }

    /// Waits until it was asked for at least `times` times: 1 means stop, 2 means stop now. Await it on a shard.
    pub async fn requested(&self, times: u32) {
        let mut waiting = Waiting { shutdown: self, ticket: Ticket::default() };
        poll_fn(|cx| {
            for enter in [true, false] {
                if self.requests() >= times {
                    return Poll::Ready(());
                }
                if enter {
                    self.shared.waiters.enter(&mut waiting.ticket, cx.waker());
                }
            }
            Poll::Pending
        })
        .await;
    }
}

struct Waiting<'a> {
    shutdown: &'a Shutdown,
    ticket: Ticket,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shutdown.shared.waiters.leave(&mut self.ticket);
    }
}

/// From now on each SIGTERM and SIGINT requests `shutdown` once, through a thread that waits for them. Call it before any
/// other thread is started, because it blocks both signals for the calling thread and all that it starts.
pub fn shutdown_on_signals(shutdown: Shutdown) -> io::Result<()> {
    wait_for_signals(shutdown).map(drop)
}

fn wait_for_signals(shutdown: Shutdown) -> io::Result<JoinHandle<()>> {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigemptyset` initialises the set that it is given, the others get a set that is initialised, and the null
    // pointer says that the old mask is not wanted.
    let set = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        let mut set = set.assume_init();
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        let rc = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        if rc != 0 {
            return Err(io::Error::from_raw_os_error(rc));
        }
        set
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        loop {
            let mut signal = 0;
            // SAFETY: both pointers are valid; the set is initialised and blocked in this thread, as sigwait(3) asks.
            let rc = unsafe { libc::sigwait(&raw const set, &raw mut signal) };
            if rc != 0 {
                return;
            }
            shutdown.request();
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{RuntimeConfig, race, run_shards, sleep};
    use std::os::unix::thread::JoinHandleExt;
    use std::time::Duration;

    #[test]
    fn every_shard_hears_it_and_insistence_counts() {
        let shutdown = Shutdown::new();
        let heard = shutdown.clone();
        let shards = run_shards(&RuntimeConfig { shards: 2, ..RuntimeConfig::default() }, move |_| {
            let heard = heard.clone();
            async move {
                heard.requested(1).await;
                assert!(race(heard.requested(2), sleep(Duration::from_millis(20))).await.right().is_some());
                heard.requested(2).await;
            }
        })
        .unwrap();
        std::thread::sleep(Duration::from_millis(30));
        assert!(!shutdown.is_requested());
        shutdown.request();
        std::thread::sleep(Duration::from_millis(100));
        shutdown.request();
        shards.join().unwrap();
    }

    #[test]
    fn a_signal_becomes_a_request() {
        let shutdown = Shutdown::new();
        let heard = shutdown.clone();
        // In a thread of its own, so that the mask of the test runner's threads stays as it is.
        let waiting = std::thread::spawn(move || wait_for_signals(heard).unwrap()).join().unwrap();
        for sent in 1..=2 {
            // SAFETY: the thread runs as long as its handle is held, for it never ends by itself. The signal goes to that
            // thread alone, which blocks and awaits it.
            let rc = unsafe { libc::pthread_kill(waiting.as_pthread_t(), libc::SIGTERM) };
            assert_eq!(rc, 0);
            let until = std::time::Instant::now() + Duration::from_secs(5);
            while shutdown.requests() < sent && std::time::Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(shutdown.requests(), sent);
        }
    }
}
