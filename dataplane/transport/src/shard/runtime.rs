//! Starting shards.

use super::heartbeat::{self, Heart};
use super::spawn;
use crate::limits::{MEMLOCK_BYTES_MIN, SHARDS_MAX};
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};
use std::fmt;
use std::time::Duration;

/// How many shards, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Number of shards.
    pub shards: usize,
    /// Processors to pin to, one a shard, used again from the start when there are fewer than shards. Empty: not pinned.
    pub cpus: Vec<usize>,
    /// How long tasks that never wait may run before sockets and timers are looked at. At least [`PREEMPT_AFTER_MIN`].
    pub preempt_after: Duration,
    /// How long an idle shard spins before it sleeps. Zero: an idle shard costs no processor time.
    pub spin: Duration,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self { shards: 1, cpus: Vec::new(), preempt_after: Duration::from_millis(20), spin: Duration::ZERO }
    }
}

/// Shortest time after which tasks that never wait are interrupted.
pub const PREEMPT_AFTER_MIN: Duration = Duration::from_millis(1);

/// Shards could not start. Those before the one that failed may run: end the process.
#[derive(Debug)]
pub enum RuntimeError {
    /// The number of shards is zero or beyond the limit.
    ShardCount(usize),
    /// `RLIMIT_MEMLOCK` is too small for io_uring's rings.
    LockedMemory {
        /// The limit that holds, bytes.
        limit_bytes: u64,
        /// The limit that is needed, bytes.
        needed_bytes: u64,
    },
    /// An executor could not be made: io_uring may be missing or forbidden.
    Start {
        /// The shard.
        shard: usize,
        /// glommio's words.
        detail: String,
    },
}

impl fmt::Display for RuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShardCount(count) => {
                write!(f, "{count} shards were asked for, 1 to {SHARDS_MAX} are possible")
            }
            Self::LockedMemory { limit_bytes, needed_bytes } => write!(
                f,
                "the limit on locked memory is {limit_bytes} bytes and io_uring needs {needed_bytes} a shard; \
                 raise it (ulimit -l, or LimitMEMLOCK= in the unit)"
            ),
            Self::Start { shard, detail } => write!(
                f,
                "shard {shard} could not start: {detail}; check that io_uring is allowed (kernel.io_uring_disabled, seccomp)"
            ),
        }
    }
}

impl std::error::Error for RuntimeError {}

/// Where a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Index, from 0.
    pub index: usize,
    /// Number of shards.
    pub count: usize,
    /// The processor that it is pinned to; `None` when none was asked for, or when this process may not use it.
    pub cpu: Option<usize>,
}

/// A shard's task panicked; the text says where, when the panic carried text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPanicked {
    /// The shard.
    pub shard: usize,
    /// What is known.
    pub detail: String,
}

impl fmt::Display for ShardPanicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {} stopped: {}", self.shard, self.detail)
    }
}

impl std::error::Error for ShardPanicked {}

/// Shards that run. They end when the function that each was given ends.
#[derive(Debug)]
pub struct RunningShards {
    handles: Vec<ExecutorJoinHandle<()>>,
    shards: Vec<Shard>,
}

impl RunningShards {
    /// The shards, with the placement that each got.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Waits for all of them. The first that panicked is reported after the others have ended.
    pub fn join(self) -> Result<(), ShardPanicked> {
        let mut result = Ok(());
        for (shard, handle) in self.handles.into_iter().enumerate() {
            if let Err(e) = handle.join()
                && result.is_ok()
            {
                result = Err(ShardPanicked { shard, detail: e.to_string() });
            }
        }
        result
    }
}

/// Starts the shards and runs `main` on each. What `main` spawns is dropped when `main` returns.
pub fn run_shards<F, Fut>(config: &RuntimeConfig, main: F) -> Result<RunningShards, RuntimeError>
where
    F: Fn(Shard) -> Fut + Send + Clone + 'static,
    Fut: Future<Output = ()> + 'static,
{
    if config.shards == 0 || config.shards > SHARDS_MAX {
        return Err(RuntimeError::ShardCount(config.shards));
    }
    check_locked_memory(getrlimit(Resource::Memlock).current)?;
    let allowed = sched_getaffinity(None).ok();
    let mut running = RunningShards { handles: Vec::new(), shards: Vec::new() };
    let preempt_after = config.preempt_after.max(PREEMPT_AFTER_MIN);
    let mut hearts = Vec::new();
    for index in 0..config.shards {
        let cpu = choose_cpu(&config.cpus, index, allowed.as_ref());
        let shard = Shard { index, count: config.shards, cpu };
        let main = main.clone();
        let heart = Heart::default();
        hearts.push(heart.clone());
        // Made here, so that a shard whose executor fails counts as ended.
        let beating = heart.until_dropped();
        let handle = LocalExecutorBuilder::new(cpu.map_or(Placement::Unbound, Placement::Fixed))
            .name(&format!("shard-{index}"))
            .preempt_timer(preempt_after)
            .spin_before_park(config.spin)
            // Registered buffers serve file I/O only, which the dataplane does not do: the least that glommio allows.
            .io_memory(64 * 1024)
            .ring_depth(1024)
            .spawn(move || async move {
                let _beating = beating;
                let _served = spawn(heart.serve());
                main(shard).await;
            })
            .map_err(|e| RuntimeError::Start { shard: index, detail: e.to_string() })?;
        running.handles.push(handle);
        running.shards.push(shard);
    }
    heartbeat::start(hearts, preempt_after).map_err(|e| RuntimeError::Start {
        shard: config.shards,
        detail: format!("the heartbeat thread: {e}"),
    })?;
    Ok(running)
}

fn check_locked_memory(limit: Option<u64>) -> Result<(), RuntimeError> {
    match limit {
        Some(limit_bytes) if limit_bytes < MEMLOCK_BYTES_MIN => {
            Err(RuntimeError::LockedMemory { limit_bytes, needed_bytes: MEMLOCK_BYTES_MIN })
        }
        _ => Ok(()),
    }
}

fn choose_cpu(cpus: &[usize], shard: usize, allowed: Option<&CpuSet>) -> Option<usize> {
    let cpu = *cpus.get(shard.checked_rem(cpus.len())?)?;
    let usable = cpu < CpuSet::MAX_CPU && allowed.is_none_or(|set| set.is_set(cpu));
    usable.then_some(cpu)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn each_shard_runs_where_it_was_put() {
        let sum = Arc::new(AtomicUsize::new(0));
        let config = RuntimeConfig { shards: 3, cpus: vec![0], ..RuntimeConfig::default() };
        let seen = Arc::clone(&sum);
        let shards = run_shards(&config, move |shard| {
            let seen = Arc::clone(&seen);
            async move {
                assert_eq!(shard.count, 3);
                if shard.cpu == Some(0) {
                    assert_eq!(rustix::thread::sched_getcpu(), 0);
                }
                seen.fetch_add(1 << (8 * shard.index), Ordering::SeqCst);
            }
        })
        .unwrap();
        shards.join().unwrap();
        assert_eq!(sum.load(Ordering::SeqCst), 0x01_01_01);
    }

    #[test]
    fn a_forbidden_or_absurd_processor_means_unpinned() {
        let mut allowed = CpuSet::new();
        allowed.set(1);
        assert_eq!(choose_cpu(&[0, 1], 0, Some(&allowed)), None);
        assert_eq!(choose_cpu(&[0, 1], 1, Some(&allowed)), Some(1));
        assert_eq!(choose_cpu(&[0, 1], 3, Some(&allowed)), Some(1));
        assert_eq!(choose_cpu(&[usize::MAX], 0, None), None);
        assert_eq!(choose_cpu(&[], 0, None), None);
    }

    #[test]
    fn too_little_locked_memory_is_said_with_the_remedy() {
        let error = check_locked_memory(Some(65536)).unwrap_err();
        assert!(error.to_string().contains("ulimit -l"), "{error}");
        assert!(check_locked_memory(Some(MEMLOCK_BYTES_MIN)).is_ok());
        assert!(check_locked_memory(None).is_ok());
    }

    #[test]
    fn no_shards_and_too_many_are_refused() {
        for shards in [0, SHARDS_MAX + 1] {
            let config = RuntimeConfig { shards, ..RuntimeConfig::default() };
            assert!(matches!(run_shards(&config, |_| async {}), Err(RuntimeError::ShardCount(_))));
        }
    }

    /// Without heartbeats this hangs in most runs: the noise takes the processor between a wake-up and the task.
    #[test]
    fn a_ready_task_runs_although_the_preemption_timer_was_first() {
        use crate::net::{OpenSocket, SocketOptions};
        use std::io::{Read, Write};
        use std::os::fd::OwnedFd;
        use std::os::unix::net::UnixStream;
        use std::sync::atomic::AtomicBool;
        use std::time::Instant;

        let stop = Arc::new(AtomicBool::new(false));
        let noise: Vec<_> = (0..6)
            .map(|_| {
                let stop = Arc::clone(&stop);
                std::thread::spawn(move || while !stop.load(Ordering::Relaxed) {})
            })
            .collect();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let ours = Arc::new(std::sync::Mutex::new(Some(OwnedFd::from(ours))));
        let config = RuntimeConfig { preempt_after: PREEMPT_AFTER_MIN, ..RuntimeConfig::default() };
        let shards = run_shards(&config, move |_| {
            let open = OpenSocket::adopt(ours.lock().unwrap().take().unwrap()).unwrap();
            async move {
                let stream = crate::HypervisorStream::attach(open, &SocketOptions::default()).unwrap();
                let mut byte = [0];
                while stream.read_slice(&mut byte).await.unwrap() == 1 {
                    stream.write_all(bytes::Bytes::copy_from_slice(&byte)).await.unwrap();
                }
            }
        })
        .unwrap();
        theirs.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(4) {
            theirs.write_all(b"x").unwrap();
            theirs.read_exact(&mut [0]).expect("an echo within 10 s");
        }
        drop(theirs);
        stop.store(true, Ordering::Relaxed);
        shards.join().unwrap();
        for thread in noise {
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_panic_is_reported_by_join() {
        let shards = run_shards(&RuntimeConfig::default(), |_| async { panic!("on purpose") }).unwrap();
        assert_eq!(shards.join().unwrap_err().shard, 0);
    }
}
