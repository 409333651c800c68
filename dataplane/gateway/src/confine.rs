//! What this process will never need of the system is taken from it before it reads a byte of a stranger.

use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::collections::BTreeMap;

/// System calls that a gateway never makes, and that whoever takes it over would make first: other programs, other
/// processes' memory, the kernel's own, other file systems and namespaces.
const NEVER: &[(i64, &str)] = &[
    (libc::SYS_execve, "execve"),
    (libc::SYS_execveat, "execveat"),
    (libc::SYS_ptrace, "ptrace"),
    (libc::SYS_process_vm_readv, "process_vm_readv"),
    (libc::SYS_process_vm_writev, "process_vm_writev"),
    (libc::SYS_process_madvise, "process_madvise"),
    (libc::SYS_pidfd_getfd, "pidfd_getfd"),
    (libc::SYS_kcmp, "kcmp"),
    (libc::SYS_mount, "mount"),
    (libc::SYS_umount2, "umount2"),
    (libc::SYS_move_mount, "move_mount"),
    (libc::SYS_open_tree, "open_tree"),
    (libc::SYS_fsopen, "fsopen"),
    (libc::SYS_fsmount, "fsmount"),
    (libc::SYS_mount_setattr, "mount_setattr"),
    (libc::SYS_pivot_root, "pivot_root"),
    (libc::SYS_chroot, "chroot"),
    (libc::SYS_setns, "setns"),
    (libc::SYS_unshare, "unshare"),
    (libc::SYS_init_module, "init_module"),
    (libc::SYS_finit_module, "finit_module"),
    (libc::SYS_delete_module, "delete_module"),
    (libc::SYS_kexec_load, "kexec_load"),
    (libc::SYS_kexec_file_load, "kexec_file_load"),
    (libc::SYS_bpf, "bpf"),
    (libc::SYS_perf_event_open, "perf_event_open"),
    (libc::SYS_userfaultfd, "userfaultfd"),
    (libc::SYS_add_key, "add_key"),
    (libc::SYS_request_key, "request_key"),
    (libc::SYS_keyctl, "keyctl"),
    (libc::SYS_open_by_handle_at, "open_by_handle_at"),
    (libc::SYS_swapon, "swapon"),
    (libc::SYS_swapoff, "swapoff"),
    (libc::SYS_reboot, "reboot"),
    (libc::SYS_acct, "acct"),
    (libc::SYS_quotactl, "quotactl"),
    (libc::SYS_settimeofday, "settimeofday"),
    (libc::SYS_clock_settime, "clock_settime"),
    (libc::SYS_sethostname, "sethostname"),
    (libc::SYS_personality, "personality"),
    (libc::SYS_mknodat, "mknodat"),
    (libc::SYS_setuid, "setuid"),
    (libc::SYS_setgid, "setgid"),
    (libc::SYS_setreuid, "setreuid"),
    (libc::SYS_setresuid, "setresuid"),
    (libc::SYS_setgroups, "setgroups"),
];

/// What a gateway that was started with privileges keeps of them: to reach hypervisors' sockets whoever owns them, to listen below
/// port 1024, to choose a congestion control that others may not, and to lock its memory.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::IPC_LOCK);

/// Gives up every other privilege of this thread, and of those that it starts from now on. Who has none keeps none.
pub(crate) fn give_up_privileges() -> Result<(), String> {
    let failed = |error: rustix::io::Errno| format!("privileges could not be given up: {error}");
    let CapabilitySets { effective, permitted, .. } = rustix::thread::capabilities(None).map_err(failed)?;
    let sets = CapabilitySets {
        effective: effective.intersection(KEPT),
        permitted: permitted.intersection(KEPT),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, sets).map_err(failed)
}

/// Refuses these calls (EPERM) to every thread that is started from now on. Call it before any is.
pub(crate) fn confine() -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("no system call could be taken away: {error}");
    let arch: TargetArch = std::env::consts::ARCH.try_into().map_err(|error| failed(&error))?;
    let rules: BTreeMap<i64, _> = NEVER.iter().map(|(number, _)| (*number, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter =
        SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(|error| failed(&error))?;
    let program: BpfProgram = filter.try_into().map_err(|error| failed(&error))?;
    seccompiler::apply_filter(&program).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_program_cannot_be_started() {
        // On a thread of its own: the others of this process go on as they were.
        std::thread::spawn(|| {
            std::process::Command::new("/bin/true").status().unwrap();
            confine().unwrap();
            let refused = std::process::Command::new("/bin/true").status().unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied, "{refused}");
            // What a gateway does all day is left to it.
            std::fs::read("/proc/self/status").unwrap();
            std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            std::thread::spawn(|| ()).join().unwrap();
        })
        .join()
        .unwrap();
    }

    #[test]
    fn no_privilege_is_left_but_those_that_are_kept() {
        // On a thread of its own, as above.
        std::thread::spawn(|| {
            give_up_privileges().unwrap();
            let left = rustix::thread::capabilities(None).unwrap();
            assert!(KEPT.contains(left.effective) && KEPT.contains(left.permitted), "{left:?}");
            assert!(
                !KEPT
                    .intersects(CapabilitySet::SYS_ADMIN | CapabilitySet::SYS_PTRACE | CapabilitySet::SETUID)
            );
            // They do not come back.
            let all = CapabilitySets {
                effective: CapabilitySet::SYS_ADMIN,
                permitted: CapabilitySet::SYS_ADMIN,
                inheritable: CapabilitySet::empty(),
            };
            assert!(rustix::thread::set_capabilities(None, all).is_err());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn every_call_stands_once() {
        let numbers: std::collections::BTreeSet<_> = NEVER.iter().map(|(number, _)| number).collect();
        assert_eq!(numbers.len(), NEVER.len());
    }
}
