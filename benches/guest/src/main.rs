//! The `/init` of the guest that tests, the demonstration and the benchmarks migrate.
//!
//! ```text
//! beat     H <n> on the serial port, every few milliseconds: what the pause is measured with
//! drive    an open loop: steps of work at a set rate
//! workset  the work of the dirtier: rewrites pages of its memory, verifying each one before it does
//! redis, database, compile, disk: the work of Debian's programs, from a disk image that is only read
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
mod compile;
mod console;
mod database;
mod disk;
mod drive;
mod image;
mod limits;
mod pace;
mod page;
mod params;
mod program;
mod random;
mod redis;
mod resp;
mod serial;
mod system;
mod workset;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::compile::Compile;
use crate::database::Database;
use crate::disk::Disk;
use crate::drive::Work;
use crate::params::{Params, Workload};
use crate::redis::Redis;
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
    let work = begin(&params).with_context(|| format!("beginning {:?}", params.workload))?;
    serial.line(&format!("READY work={} fill={} fill_ms={}", work.1, work.2, began.elapsed().as_millis()))?;

    let drive = Arc::new(drive::Drive::new(work.0, params.rate, Arc::clone(&serial)));
    beat::start(Arc::clone(&serial), params.beat).context("starting the heartbeat")?;
    drive::start(Arc::clone(&drive)).context("starting the work")?;
    console::serve(&serial, &drive)
}

/// Sets the work up: what it is, how many things it keeps, and how many more only stand there.
fn begin(params: &Params) -> Result<(Box<dyn Work>, u64, u64)> {
    if params.workload != Workload::Memory {
        image::enter().context("the guest's disk image")?;
    }
    let seed = params.seed;
    Ok(match params.workload {
        Workload::Memory => {
            let work = params.work_pages();
            let fill = if params.fill { system::free_pages()?.saturating_sub(work) } else { 0 };
            (Box::new(Workset::new(seed, params.mix, work, fill)), work, fill)
        }
        Workload::Redis => {
            let redis = Redis::start(seed, params.work_bytes())?;
            let keys = redis.keys();
            (Box::new(redis), keys, 0)
        }
        Workload::Database => {
            let database = Database::start(seed, params.work_bytes())?;
            let rows = database.rows();
            (Box::new(database), rows, 0)
        }
        Workload::Compile => {
            let compile = Compile::start()?;
            let sources = compile.sources();
            (Box::new(compile), sources, 0)
        }
        Workload::Disk => {
            let disk = Disk::read(seed)?;
            let blocks = disk.blocks();
            (Box::new(disk), blocks, 0)
        }
    })
}
