//! Ctrl-C leaves nothing behind but the runs that had ended.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result, bail};
use novacron_testbed::Scratch;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::limits::INTERRUPT_WAIT;
use crate::network::Wire;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static LABS: Mutex<Vec<Wire>> = Mutex::new(Vec::new());

fn labs() -> MutexGuard<'static, Vec<Wire>> {
    LABS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A lab that goes when we are interrupted. Dropping this forgets it.
pub struct Removed(());

impl Removed {
    /// Remembers the lab of the scenario that runs; there is one at a time.
    pub fn when_interrupted(wire: Wire) -> Self {
        *labs() = vec![wire];
        Self(())
    }
}

impl Drop for Removed {
    fn drop(&mut self) {
        labs().clear();
    }
}

/// Ends the process on the first signal, after the lab and our directories are removed. The processes that it started
/// end with it: the kernel kills them when we are gone. `kept` says what stays; `partial` is a file of ours that is of
/// no use before it is whole.
///
/// # Errors
/// When signals cannot be received.
pub fn clean_up_when_interrupted(kept: String, partial: Option<PathBuf>) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("asking to be told of ctrl-C")?;
    thread::Builder::new()
        .name("interrupt".into())
        .spawn(move || {
            let Some(signal) = signals.forever().next() else { return };
            INTERRUPTED.store(true, Ordering::SeqCst);
            eprintln!("\ninterrupted: putting things away; {kept}");
            thread::spawn(move || {
                thread::sleep(INTERRUPT_WAIT);
                std::process::exit(128 + signal);
            });
            for wire in labs().drain(..) {
                wire.remove();
            }
            if let Some(partial) = partial {
                // It may not have been made yet.
                let _ = std::fs::remove_file(partial);
            }
            Scratch::remove_all_of(std::process::id());
            std::process::exit(128 + signal);
        })
        .context("starting the thread that waits for ctrl-C")?;
    Ok(())
}

/// Fails once we are interrupted, so that what is being put away is not taken for a contender's failure.
///
/// # Errors
/// Then.
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::SeqCst) {
        // The other thread ends the process.
        thread::sleep(INTERRUPT_WAIT);
        bail!("interrupted");
    }
    Ok(())
}
