//! What is going on, on standard error: a bar where somebody looks, plain lines where nobody does.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// Tells how far the harness is. Clones tell the same.
#[derive(Clone)]
pub struct Progress(Arc<Shared>);

struct Shared {
    began: Instant,
    show: Show,
    now: Mutex<Now>,
}

enum Show {
    Nothing,
    Lines,
    Bar(ProgressBar),
}

#[derive(Default)]
struct Now {
    run: String,
    phase: String,
    bytes: u64,
}

impl Progress {
    /// For `runs` runs in all.
    pub fn new(runs: u64) -> Self {
        let show = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(runs);
            let style = ProgressStyle::with_template("{elapsed_precise} [{bar:24}] {pos}/{len} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.enable_steady_tick(Duration::from_millis(200));
            Show::Bar(bar)
        } else {
            Show::Lines
        };
        Self::showing(show)
    }

    /// Tells nobody.
    pub fn quiet() -> Self {
        Self::showing(Show::Nothing)
    }

    fn showing(show: Show) -> Self {
        Self(Arc::new(Shared { began: Instant::now(), show, now: Mutex::default() }))
    }

    /// A run begins: scenario, contender and which of how many.
    pub fn run(&self, run: &str) {
        self.change(|now| *now = Now { run: run.to_owned(), ..Now::default() });
    }

    /// What the run is doing.
    pub fn phase(&self, phase: &str) {
        self.change(|now| {
            now.phase = phase.to_owned();
            now.bytes = 0;
        });
    }

    /// A phase that tells itself how far it is.
    pub fn moving(&self, phase: &str, bytes: u64) {
        self.change(|now| (now.phase, now.bytes) = (phase.to_owned(), bytes));
    }

    /// What the link has carried of it.
    pub fn bytes(&self, bytes: u64) {
        self.change(|now| now.bytes = bytes);
    }

    /// A run has ended, and how.
    pub fn done(&self, result: &str) {
        let run = self.0.now.lock().unwrap_or_else(PoisonError::into_inner).run.clone();
        self.say(&format!("{run}: {result}"));
        if let Show::Bar(bar) = &self.0.show {
            bar.inc(1);
        }
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        match &self.0.show {
            Show::Nothing => {}
            Show::Lines => eprintln!("[{:6.1} s] {line}", self.0.began.elapsed().as_secs_f32()),
            Show::Bar(bar) => bar.println(line),
        }
    }

    /// Nothing more comes.
    pub fn finish(&self) {
        if let Show::Bar(bar) = &self.0.show {
            bar.finish_and_clear();
        }
    }

    fn change(&self, change: impl FnOnce(&mut Now)) {
        let mut now = self.0.now.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut now);
        if let Show::Bar(bar) = &self.0.show {
            let bytes = if now.bytes > 0 { format!(", {}", HumanBytes(now.bytes)) } else { String::new() };
            bar.set_message(format!("{}: {}{bytes}", now.run, now.phase));
        }
    }
}
