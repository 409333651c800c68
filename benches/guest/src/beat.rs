//! The heartbeat: a numbered line at a steady pace.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::serial::Serial;

/// Starts to print `H <n>` every `interval`, for as long as the guest lives.
pub(crate) fn start(serial: Arc<Serial>, interval: Duration) -> Result<()> {
    thread::Builder::new().name("beat".into()).spawn(move || {
        // The one processor is shared with the dirtier and the sweep: ahead of both, or it would measure them.
        if let Err(error) = rustix::process::setpriority_process(None, -20) {
            let _ = serial.line(&format!("ERROR heartbeat runs at normal priority: {error}"));
        }
        let mut next = Instant::now();
        let mut number = 0u64;
        while serial.line(&format!("H {number}")).is_ok() {
            number += 1;
            next += interval;
            let now = Instant::now();
            // A beat that is late is not made up for by a burst of early ones.
            next = next.max(now);
            thread::sleep(next - now);
        }
    })?;
    Ok(())
}
