//! Shards: pinned threads, each with an executor of its own, and what tasks on them need.

mod heartbeat;
mod mailbox;
mod notify;
mod placement;
mod queue;
mod runtime;
mod shutdown;
mod task;
#[cfg(test)]
pub(crate) mod testing;
mod time;

pub use mailbox::{MailboxFull, Receiver, SendError, Sender, mailbox};
pub use notify::{Notified, Notify};
pub use placement::{CpuList, Topology};
pub use queue::{LocalQueue, PushError};
pub use runtime::{
    PREEMPT_AFTER_MIN, RunningShards, RuntimeConfig, RuntimeError, Shard, ShardPanicked, run_shards,
};
pub use shutdown::{Shutdown, shutdown_on_signals};
pub use task::{Either, LocalTask, blocking, race, spawn, yield_if_needed, yield_now};
pub use time::{Interval, sleep, sleep_until, timeout};
