//! The disk image that holds Debian's programs. It is only read: a guest that moves has no disk to take along.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{chdir, chroot};
use rustix::system::finit_module;

use crate::limits::DISK_WAIT;

const DISK: &str = "/dev/vda";
/// Where the initial RAM file system keeps kernel modules; their names say in which order they are loaded.
const MODULES: &str = "/modules";
const ROOT: &str = "/image";

/// The kernel unpacks the module itself (linux/module.h).
const MODULE_INIT_COMPRESSED_FILE: i32 = 4;

/// Mounts the image and makes it this process's root. What is written goes to memory: `/run` and `/tmp`.
///
/// # Errors
/// When there is no disk, or it holds something else.
pub(crate) fn enter() -> Result<()> {
    load_modules()?;
    let began = Instant::now();
    while !Path::new(DISK).exists() {
        ensure!(
            began.elapsed() < DISK_WAIT,
            "there is no disk {DISK}: was the machine given the guest's image?"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    fs::create_dir_all(ROOT).context(ROOT)?;
    mount(DISK, ROOT, "ext4", MountFlags::RDONLY | MountFlags::NOATIME, None)
        .with_context(|| format!("mounting {DISK}"))?;
    for place in ["/dev", "/proc"] {
        mount_move(place, format!("{ROOT}{place}"))
            .with_context(|| format!("moving {place} into the image"))?;
    }
    for place in ["/run", "/tmp"] {
        mount("tmpfs", format!("{ROOT}{place}"), "tmpfs", MountFlags::empty(), None)
            .with_context(|| format!("mounting {place} of the image"))?;
    }
    chroot(ROOT).context("entering the image")?;
    chdir("/").context("entering the image")
}

fn load_modules() -> Result<()> {
    let Ok(entries) = fs::read_dir(MODULES) else { return Ok(()) };
    let mut paths: Vec<_> = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()
        .context("listing the kernel's modules")?;
    paths.sort();
    for path in paths {
        let packed = path.extension().is_some_and(|suffix| suffix != "ko");
        let flags = if packed { MODULE_INIT_COMPRESSED_FILE } else { 0 };
        match finit_module(File::open(&path)?, c"", flags) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).with_context(|| format!("loading {}", path.display())),
        }
    }
    Ok(())
}
