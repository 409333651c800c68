//! Guest memory stays out of swap and core dumps.

use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use std::io;

/// No core dump of this process, whoever asks for one, and no debugger of another process of the same user.
///
/// Both are said: a limit of zero does not keep a core from a program that the system pipes cores to, but a process that
/// cannot be dumped gives none.
pub fn forbid_core_dumps() -> io::Result<()> {
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Keeps every page of this process, present and future, out of swap, from its first use on. That covers what no pool of
/// buffers could: codecs, ciphers, stacks. Refused where the system limits locked memory (`RLIMIT_MEMLOCK`): a limit that is
/// met later would make allocations fail, so it is all or nothing.
pub fn keep_out_of_swap() -> io::Result<()> {
    let limit = getrlimit(Resource::Memlock);
    if limit.current.is_some() {
        setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None })?;
    }
    // On first use: what is reserved and never touched, stacks above all, costs nothing.
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn status(field: &str) -> Option<u64> {
        let text = fs::read_to_string("/proc/self/status").unwrap();
        let line = text.lines().find(|line| line.starts_with(field))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// One test, because both change the process that all tests of this crate run in.
    #[test]
    fn nothing_is_dumped_and_nothing_is_swapped() {
        forbid_core_dumps().unwrap();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        // Of a process that cannot be dumped, nobody but root owns the entries.
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        match keep_out_of_swap() {
            Ok(()) => {
                let before = status("VmLck:").unwrap();
                let memory = vec![1u8; 8 << 20];
                let after = status("VmLck:").unwrap();
                assert!(
                    after >= before + (4 << 10),
                    "{before} kB locked before, {after} after {} bytes",
                    memory.len()
                );
            }
            // Unprivileged, with a limit: refused as a whole, and allocations go on.
            Err(_) => assert!(getrlimit(Resource::Memlock).current.is_some()),
        }
    }
}
