//! Ctrl-C leaves nothing behind.

use std::thread;

use anyhow::{Context, Result};
use novacron_testbed::Scratch;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Ends the process on the first signal, after its directories are removed. The processes that it started end with it:
/// the kernel kills them when we are gone.
pub(crate) fn clean_up_when_interrupted() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("asking to be told of ctrl-C")?;
    thread::Builder::new()
        .name("interrupt".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                eprintln!("interrupted: nothing was written");
                Scratch::remove_all_of(std::process::id());
                std::process::exit(128 + signal);
            }
        })
        .context("starting the thread that waits for ctrl-C")?;
    Ok(())
}
