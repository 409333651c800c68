//! What a guest does: from a scenario's words to the testbed's options.

use anyhow::Result;
use novacron_testbed::{Guest, GuestOptions, QemuOptions, Workload};

use crate::record::Work;
use crate::scenario::GuestPart;

/// Whether a scenario's words make sense.
///
/// # Errors
/// What is wrong and what was expected.
pub fn check(guest: &GuestPart) -> Result<(), String> {
    let workload = of(guest)?;
    if guest.mix.is_some_and(|mix| mix.iter().map(|&share| u64::from(share)).sum::<u64>() == 0) {
        return Err("`mix` adds up to nothing, expected shares of zero, text and random pages".to_owned());
    }
    if guest.mix.is_some() && workload == Workload::Random {
        return Err("`mix` is given for random pages, expected it with the workload \"dirty\"".to_owned());
    }
    if guest.rate.is_some_and(|rate| !rate.is_finite() || rate < 0.0) {
        return Err(format!("`rate`: expected {} a second, 0 or more", workload.unit()));
    }
    if let Some(work) = guest.work_mib
        && (work == 0 || work >= memory_mib(guest))
    {
        return Err(format!("`work_mib` is {work}, expected 1 to less than `memory_mib`"));
    }
    Ok(())
}

/// The workload of a name.
///
/// # Errors
/// Names those that there are.
pub fn of(guest: &GuestPart) -> Result<Workload, String> {
    Workload::ALL.into_iter().find(|workload| workload.name() == guest.workload).ok_or_else(|| {
        let names: Vec<&str> = Workload::ALL.iter().map(|workload| workload.name()).collect();
        format!("workload {:?} is not known, expected of: {}", guest.workload, names.join(", "))
    })
}

/// The guest's memory, MiB: the scenario's, else its workload's.
pub fn memory_mib(guest: &GuestPart) -> u32 {
    guest.memory_mib.unwrap_or_else(|| of(guest).map_or(0, Workload::default_memory_mib))
}

/// "dirty, 20 MB/s in 64 MiB", "redis, 300 requests/s".
pub fn text(guest: &GuestPart) -> String {
    let Ok(workload) = of(guest) else { return guest.workload.clone() };
    let mut text = guest.workload.clone();
    let rate = guest.rate.unwrap_or(workload.default_rate());
    if rate > 0.0 {
        text += &format!(", {rate} {}/s", workload.unit());
    }
    if let Some(work) = guest.work_mib {
        text += &format!(" in {work} MiB");
    }
    text
}

/// The machine of such a guest.
///
/// # Errors
/// When the workload is not known or its disk is missing.
pub fn options(guest: &GuestPart) -> Result<QemuOptions> {
    let usual = GuestOptions::default();
    let workload = of(guest).map_err(anyhow::Error::msg)?;
    let options = GuestOptions {
        workload,
        rate: guest.rate,
        work_mib: guest.work_mib.unwrap_or(workload.default_work_mib()),
        mix: match guest.mix {
            Some([zero, text, random]) => (zero, text, random),
            // A guest that is filled has no zero pages anywhere.
            None if guest.fill => (0, 60, 30),
            None => usual.mix,
        },
        fill: guest.fill,
        ..usual
    };
    Ok(QemuOptions { memory_mib: memory_mib(guest), ..QemuOptions::for_workload(&options)? })
}

/// What the guest has done each second of its own time since it was last asked: its time stands still in the pause.
///
/// # Errors
/// When it does not answer.
pub fn work(guest: &Guest) -> Result<Work> {
    let work = guest.work()?;
    Ok(Work { set: (work.set > 0.0).then_some(work.set), achieved: work.achieved, unit: work.unit })
}
