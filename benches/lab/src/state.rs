//! Which labs live, and removing what dead ones left.
//!
//! Each lab has a folder `/run/novacron-lab/ID` with a file `lock` that its process holds locked (flock(2)): the kernel
//! lets go of it when the process ends, however it ends. Namespaces carry the lab's ID. So what belongs to a folder
//! that nobody holds, or to no folder, is a dead lab's, and nothing else is touched.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::Serialize;

use crate::namespace;

const FOLDER: &str = "/run/novacron-lab";
const ID_TRIES: u32 = 100;

/// A lab's claim on its ID. Dropping it removes the lab's namespaces and folder.
#[derive(Debug)]
pub(crate) struct Claim {
    id: String,
    _lock: File,
}

/// What was found and removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Leavings {
    /// Labs whose process had ended.
    pub labs: Vec<String>,
    /// Their namespaces.
    pub namespaces: Vec<String>,
}

impl Claim {
    /// Removes what dead labs left, takes a free ID, and does `work` before any other lab may look.
    ///
    /// # Errors
    /// When the state folder cannot be written, and those of `work`, after which nothing is left.
    pub(crate) fn take<T>(work: impl FnOnce(&str) -> Result<T>) -> Result<(Self, T)> {
        let _all = lock_all()?;
        sweep_locked()?;
        for _ in 0..ID_TRIES {
            let id = format!("{:06x}", fastrand::u32(..0x100_0000));
            let folder = folder(&id);
            match fs::create_dir(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(error).with_context(|| format!("making {}", folder.display())),
            }
            let lock = File::create(folder.join("lock")).context("making the lab's lock")?;
            // Whoever asks which labs live may hold it for a moment.
            flock(&lock, FlockOperation::LockExclusive).context("taking the lab's lock")?;
            let claim = Self { id, _lock: lock };
            let done = work(&claim.id)?;
            return Ok((claim, done));
        }
        bail!("no free ID for a lab after {ID_TRIES} tries; `novacron-lab clean` removes what dead labs left")
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket(&self.id)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.id) {
            crate::tell(&format!("{error:#}; the next lab that starts tries again"));
        }
    }
}

/// A lab's folder.
fn folder(id: &str) -> PathBuf {
    Path::new(FOLDER).join(id)
}

/// A lab's control socket.
pub(crate) fn socket(id: &str) -> PathBuf {
    folder(id).join("control.sock")
}

/// Labs whose process lives.
///
/// # Errors
/// When the state folder cannot be read.
pub fn living() -> Result<Vec<String>> {
    let mut living = Vec::new();
    for id in ids()? {
        if !is_dead(&id)? {
            living.push(id);
        }
    }
    Ok(living)
}

/// Removes what dead labs left: their namespaces and folders.
///
/// # Errors
/// When something cannot be removed; the rest was.
pub fn sweep() -> Result<Leavings> {
    let _all = lock_all()?;
    sweep_locked()
}

fn sweep_locked() -> Result<Leavings> {
    let mut leavings = Leavings::default();
    let ids = ids()?;
    let mut dead = Vec::new();
    for id in &ids {
        if is_dead(id)? {
            dead.push(id.clone());
        }
    }
    for name in namespace::all()? {
        let Some(id) = namespace::lab_of(&name) else { continue };
        // A folder comes before its namespaces: without one the lab is gone.
        if !ids.iter().any(|known| known == id) && !dead.iter().any(|known| known == id) {
            dead.push(id.to_owned());
        }
    }
    let mut failed = None;
    for id in dead {
        match remove(&id) {
            Ok(namespaces) => leavings.namespaces.extend(namespaces),
            Err(error) => failed = Some(error),
        }
        leavings.labs.push(id);
    }
    failed.map_or(Ok(leavings), Err)
}

fn remove(id: &str) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for name in namespace::all()? {
        if namespace::lab_of(&name) == Some(id) {
            namespace::remove(&name)?;
            removed.push(name);
        }
    }
    match fs::remove_dir_all(folder(id)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder(id).display()))
        }
        _ => Ok(removed),
    }
}

fn ids() -> Result<Vec<String>> {
    let entries = match fs::read_dir(FOLDER) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {FOLDER}")),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("reading {FOLDER}"))?;
        if entry.path().is_dir() {
            ids.extend(entry.file_name().into_string().ok());
        }
    }
    ids.sort();
    Ok(ids)
}

fn is_dead(id: &str) -> Result<bool> {
    let path = folder(id).join("lock");
    let lock = match File::open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error).with_context(|| format!("opening {}", path.display())),
    };
    // Shared, so that two who look at once do not take each other for the lab.
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("asking who holds {}", path.display())),
    }
}

/// Held while labs are made or removed, so that a lab that is half made is not taken for a dead one.
fn lock_all() -> Result<File> {
    fs::create_dir_all(FOLDER).with_context(|| format!("making {FOLDER}"))?;
    fs::set_permissions(FOLDER, Permissions::from_mode(0o755))
        .with_context(|| format!("opening up {FOLDER}"))?;
    let path = Path::new(FOLDER).join("lock");
    let file = File::create(&path).with_context(|| format!("making {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}
