//! Ctrl-C leaves nothing behind.

use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
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
                remove_directories(&std::env::temp_dir(), std::process::id());
                std::process::exit(128 + signal);
            }
        })
        .context("starting the thread that waits for ctrl-C")?;
    Ok(())
}

/// Removes what [`novacron_testbed::Scratch`] made for a process.
fn remove_directories(within: &Path, process: u32) {
    let prefix = format!("novacron-{process}-");
    for entry in std::fs::read_dir(within).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            // Somebody may still write into it; what then remains is a few small files in a temporary place.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_testbed::Scratch;

    #[test]
    fn only_directories_of_that_process_go() {
        let scratch = Scratch::new().unwrap();
        for name in ["novacron-7-0", "novacron-77-0"] {
            std::fs::create_dir(scratch.file(name)).unwrap();
        }
        remove_directories(scratch.path(), 7);
        assert!(!scratch.file("novacron-7-0").exists() && scratch.file("novacron-77-0").exists());
    }
}
