//! Processor time of a gateway's shards, each a thread.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Processor time of the threads named `shard-N` or `shard-N-…` of a process, by N.
///
/// # Errors
/// When there is no such process, or it has no such thread.
pub fn shards(pid: u32) -> Result<Vec<Duration>> {
    let mut shards: BTreeMap<usize, Duration> = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).context("/proc/PID/task")? {
        let folder = entry.context("/proc/PID/task")?.path();
        // A thread may have ended since the folder was read.
        let Ok(name) = fs::read_to_string(folder.join("comm")) else { continue };
        // The runtime adds a number of its own; what helps a shard with blocking calls is named after it.
        let Some(rest) = name.trim().strip_prefix("shard-") else { continue };
        let Some(number) = rest.split('-').next().and_then(|number| number.parse().ok()) else { continue };
        // Nanoseconds on a processor, then time waited for one, then turns (proc(5)).
        let schedstat = fs::read_to_string(folder.join("schedstat")).context("schedstat of a shard")?;
        let ns = schedstat.split_whitespace().next().and_then(|ns| ns.parse().ok());
        *shards.entry(number).or_default() +=
            Duration::from_nanos(ns.context("schedstat is not understood")?);
    }
    ensure!(!shards.is_empty(), "process {pid} has no shards");
    Ok(shards.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_told_apart_by_their_numbers() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let stopped = std::sync::Arc::new(std::sync::Mutex::new(stopped));
        let threads: Vec<_> = (0..2)
            .map(|number| {
                let stopped = std::sync::Arc::clone(&stopped);
                let wait = move || drop(stopped.lock().map(|stopped| stopped.recv()));
                std::thread::Builder::new().name(format!("shard-{number}")).spawn(wait).unwrap()
            })
            .collect();
        // Names are there once the threads run.
        let named = || Ok(shards(std::process::id()).ok().filter(|shards| shards.len() == 2));
        crate::wait::until("two named threads", Duration::from_secs(10), named).unwrap();
        drop(stop);
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(shards(0).is_err());
    }
}
