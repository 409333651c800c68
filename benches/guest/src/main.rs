//! The `/init` of the guest that tests, the demonstration and the benchmarks migrate.
//!
//! ```text
//! beat     H <n> on the serial port, every few milliseconds: what the pause is measured with
//! drive    an open loop: steps of work at a set rate
//! workset  the work of the dirtier: rewrites pages of its memory, verifying each one before it does
//! console  commands from the serial port: verify, corrupt, rate, work
//! ```
//!
//! It proves that a migration kept every byte: the contents of each page follow from its index, its generation
//! and the seed, and the generations are kept apart from the pages. Lines it prints, one subject each:
//!
//! | Line | When |
//! |---|---|
//! | `INIT` | the process has started |
//! | `READY work=<pages> fill=<pages> fill_ms=<ms>` | all memory is written, work begins |
//! | `H <n>` | every heartbeat, `n` grows by one |
//! | `VERIFIED checked=<n> bad=<n> done=<steps>` | after `verify` |
//! | `BAD page=<i> generation=<g>` | a page is not what was written to it |
//! | `CORRUPTED page=<i>` | after `corrupt`, which damages one page on purpose |
//! | `RATE set=<n>` | after `rate <units a second>` |
//! | `WORK set=<n> achieved=<n> unit=<name> us=<n>` | after `work`: units a second of the guest's clock since the last `work` or `rate`, and how long ago that was |
//! | `ERROR <text>`, `FATAL <text>` | a command was not understood; the guest gives up and restarts |

mod beat;
mod console;
mod drive;
mod limits;
mod pace;
mod page;
mod params;
mod serial;
mod system;
mod workset;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::params::Params;
use crate::serial::Serial;
use crate::workset::Workset;

fn main() {
    if let Err(error) = run() {
        system::give_up(&format!("{error:#}"));
    }
}

/// Boots, fills the memory and serves commands. Returns only with an error: process 1 has no end of its own.
fn run() -> Result<()> {
    system::mount_all()?;
    system::give_up_on_panic();
    let serial = Arc::new(Serial::open()?);
    serial.line("INIT")?;
    let params = Params::read().context("reading the kernel's command line")?;

    let began = Instant::now();
    let work = params.work_pages();
    let fill = if params.fill { system::free_pages()?.saturating_sub(work) } else { 0 };
    let workset = Workset::new(params.seed, params.mix, work, fill);
    serial.line(&format!("READY work={work} fill={fill} fill_ms={}", began.elapsed().as_millis()))?;

    let drive = Arc::new(drive::Drive::new(Box::new(workset), params.rate, Arc::clone(&serial)));
    beat::start(Arc::clone(&serial), params.beat).context("starting the heartbeat")?;
    drive::start(Arc::clone(&drive)).context("starting the work")?;
    console::serve(&serial, &drive)
}
