//! Watches processes and the link while something runs.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use novacron_testbed::Usage;

use crate::limits::{SAMPLE_INTERVAL, SAMPLES_MAX};
use crate::network::{Carried, Wire};
use crate::progress::Progress;
use crate::record::{LabHealth, Process, Sample};

/// A process that takes part.
#[derive(Clone, Debug)]
pub struct Watched {
    /// `source hypervisor`, `destination gateway` ...
    pub name: String,
    /// `source`, `destination` or `lab`.
    pub site: String,
    /// Its number.
    pub pid: u32,
}

impl Watched {
    /// A process of ours.
    pub fn new(site: &str, what: &str, pid: u32) -> Self {
        Self { name: format!("{site} {what}"), site: site.to_owned(), pid }
    }
}

/// What was seen.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// What each process used.
    pub processes: Vec<Process>,
    /// What the link carried; `None` on loopback.
    pub carried: Option<Carried>,
    /// How the lab did.
    pub lab: Option<LabHealth>,
    /// Over the time of the run.
    pub throughput: Vec<Sample>,
}

/// A watch that runs.
pub struct Meter {
    began: Instant,
    wire: Wire,
    watched: Vec<(Watched, Duration)>,
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    /// The last that each process was seen to use, in the order of `watched`.
    usage: Vec<Option<Usage>>,
    throughput: Vec<Sample>,
}

impl Meter {
    /// Starts the link's counters again and watches from now on. Memory counts from now on as well, even of processes
    /// that have had more.
    ///
    /// # Errors
    /// When a process has ended already, or the lab is gone.
    pub fn start(watched: Vec<Watched>, wire: Wire, progress: &Progress) -> Result<Self> {
        let lab = wire.process().map(|pid| Watched { name: "lab".into(), site: "lab".into(), pid });
        let watched = watched.into_iter().chain(lab).map(|one| {
            // Not allowed, or not there in this kernel: then the peak is that of its whole life.
            let _ = fs::write(format!("/proc/{}/clear_refs", one.pid), "5");
            let before = cpu(one.pid).with_context(|| format!("watching {}", one.name))?;
            Ok((one, before))
        });
        let watched = watched.collect::<Result<Vec<_>>>()?;
        wire.reset()?;
        let seen = Arc::new(Mutex::new(Seen { usage: vec![None; watched.len()], throughput: Vec::new() }));
        let stop = Arc::new(AtomicBool::new(false));
        let began = Instant::now();
        let thread = {
            let pids: Vec<u32> = watched.iter().map(|(one, _)| one.pid).collect();
            let (wire, seen, stop, progress) =
                (wire.clone(), Arc::clone(&seen), Arc::clone(&stop), progress.clone());
            thread::Builder::new()
                .name("meter".into())
                .spawn(move || watch(began, &pids, &wire, &seen, &stop, &progress))
                .context("starting the meter")?
        };
        Ok(Self { began, wire, watched, seen, stop, thread })
    }

    /// How long it has watched.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Ends the watch. Processes may have ended, but must not have been waited for.
    ///
    /// # Errors
    /// When the lab is gone.
    pub fn stop(self) -> Result<Measured> {
        let ended: Vec<_> = self.watched.iter().map(|(one, _)| (cpu(one.pid), Usage::of(one.pid))).collect();
        let (carried, lab) = (self.wire.carried()?, self.wire.health()?);
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow!("the meter panicked"))?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let throughput = std::mem::take(&mut seen.throughput);
        let processes =
            self.watched.iter().zip(ended).enumerate().map(|(index, ((one, before), (cpu, usage)))| {
                // Of one that has ended, memory is known from the last look.
                let usage = usage.ok().or(seen.usage.get(index).copied().flatten());
                let cpu = cpu.ok().or(usage.map(|usage| usage.cpu)).unwrap_or(*before);
                Process {
                    name: one.name.clone(),
                    site: one.site.clone(),
                    cpu_s: cpu.saturating_sub(*before).as_secs_f64(),
                    memory_bytes_max: usage.map_or(0, |usage| usage.rss_bytes_max),
                }
            });
        Ok(Measured { processes: processes.collect(), carried, lab, throughput: thinned(throughput) })
    }
}

/// Processor time of a process, one that has ended and was not waited for included.
fn cpu(pid: u32) -> Result<Duration> {
    Usage::cpu_of(pid)
}

fn watch(
    began: Instant,
    pids: &[u32],
    wire: &Wire,
    seen: &Mutex<Seen>,
    stop: &AtomicBool,
    progress: &Progress,
) {
    let mut before = 0;
    let mut next = began + SAMPLE_INTERVAL;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        next = (next + SAMPLE_INTERVAL).max(Instant::now());
        // A lab that is gone is the main thread's to complain of.
        let carried = wire.carried().ok().flatten();
        let at_ms = began.elapsed().as_secs_f64() * 1e3;
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (pid, last) in pids.iter().zip(&mut seen.usage) {
            *last = Usage::of(*pid).ok().or(*last);
        }
        if let Some(carried) = carried {
            seen.throughput.push(Sample { at_ms, bytes: carried.forward.saturating_sub(before) });
            before = carried.forward;
            progress.bytes(before);
            if seen.throughput.len() > 2 * SAMPLES_MAX {
                let all = std::mem::take(&mut seen.throughput);
                seen.throughput = thinned(all);
            }
        }
    }
}

/// At most [`SAMPLES_MAX`] points: neighbours become one, of the time of both.
fn thinned(mut samples: Vec<Sample>) -> Vec<Sample> {
    while samples.len() > SAMPLES_MAX {
        let pair = |pair: &[Sample]| Sample {
            at_ms: pair.last().map_or(0.0, |last| last.at_ms),
            bytes: pair.iter().map(|sample| sample.bytes).sum(),
        };
        samples = samples.chunks(2).map(pair).collect();
    }
    samples
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_every_byte_and_the_end() {
        let all: Vec<Sample> =
            (0..3 * SAMPLES_MAX as u64).map(|at| Sample { at_ms: at as f64, bytes: at }).collect();
        let sum = |samples: &[Sample]| samples.iter().map(|sample| sample.bytes).sum::<u64>();
        let thin = thinned(all.clone());
        assert!(thin.len() <= SAMPLES_MAX && thin.len() > SAMPLES_MAX / 3);
        assert_eq!(sum(&thin), sum(&all));
        assert_eq!(thin.last().map(|last| last.at_ms), all.last().map(|last| last.at_ms));
    }

    #[test]
    fn a_process_that_ends_meanwhile_is_counted() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"])
            .spawn()
            .unwrap();
        let watched = vec![Watched::new("source", "shell", child.id())];
        let meter = Meter::start(watched, Wire::default(), &Progress::quiet()).unwrap();
        let began = Instant::now();
        let zombie = || {
            fs::read_to_string(format!("/proc/{}/stat", child.id())).is_ok_and(|stat| stat.contains(") Z "))
        };
        while !zombie() && began.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(5));
        }
        let measured = meter.stop().unwrap();
        child.wait().unwrap();
        assert!(measured.processes[0].cpu_s > 0.0, "{measured:?}");
        assert_eq!((measured.carried, measured.lab), (None, None));
    }
}
