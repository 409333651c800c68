//! Files of keys and of trust: whole or not at all, on the disk before anybody is told, and secrets for one owner.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::limits::FILE_BYTES_MAX;
use crate::secret::Secret;

/// A file could not be read or written. What stood there before stands there still.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is not there.
    #[error("{0} does not exist")]
    Absent(PathBuf),
    /// The system refused.
    #[error("{path} cannot be {what}: {why}; nothing in it was changed")]
    System {
        /// Which.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// The system's words.
        why: std::io::Error,
    },
    /// Others than its owner may read a secret.
    #[error(
        "{path} holds a secret and has mode {mode:04o}: others than its owner can reach it, so it is not used; \
         run 'chmod 600 {path}', and replace it if others may have read it"
    )]
    Open {
        /// Which.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A secret that belongs to another user.
    #[error("{path} holds a secret and belongs to user {owner}, not to the one who reads it: it is not used")]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// Larger than anything that belongs there.
    #[error("{0} is larger than {FILE_BYTES_MAX} bytes: nothing of keys or certificates is")]
    Large(PathBuf),
    /// Another process is changing the folder.
    #[error("{0} is being changed by another novactl; nothing was done: try again when it has ended")]
    Busy(PathBuf),
}

/// Whether others may see a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// 0600: its owner only.
    Secret,
    /// 0644: certificates, revocation lists, rules.
    Public,
}

impl Mode {
    fn bits(self) -> u32 {
        match self {
            Self::Secret => 0o600,
            Self::Public => 0o644,
        }
    }
}

fn failed(path: &Path, what: &'static str) -> impl FnOnce(std::io::Error) -> StoreError {
    let path = path.to_owned();
    move |why| match why.kind() {
        ErrorKind::NotFound if what == "read" => StoreError::Absent(path),
        _ => StoreError::System { path, what, why },
    }
}

/// Reads a file that anybody may see.
pub fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    let file = File::open(path).map_err(failed(path, "read"))?;
    bounded(path, file)
}

/// Reads a text that anybody may see; what is no text is replaced, for parsers to refuse.
pub fn read_text(path: &Path) -> Result<String, StoreError> {
    read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads a secret; refused when others than its owner may reach it, or when it is somebody else's. Who may is asked
/// of the open file, not of the path, which could change in between.
pub fn read_secret(path: &Path) -> Result<Secret, StoreError> {
    let file = File::open(path).map_err(failed(path, "read"))?;
    let about = file.metadata().map_err(failed(path, "read"))?;
    if about.mode() & 0o077 != 0 {
        return Err(StoreError::Open { path: path.to_owned(), mode: about.mode() & 0o7777 });
    }
    let reader = rustix::process::geteuid();
    // Who administers the host may look at a gateway's key: he can anyway.
    if !reader.is_root() && about.uid() != reader.as_raw() {
        return Err(StoreError::Foreign { path: path.to_owned(), owner: about.uid() });
    }
    bounded(path, file).map(Secret::new)
}

/// Reads a secret from systemd's folder of credentials. systemd keeps others out by the folder and by access lists,
/// which show as group bits of the file: its mode says nothing here.
pub fn read_credential(path: &Path) -> Result<Secret, StoreError> {
    read(path).map(Secret::new)
}

fn bounded(path: &Path, file: File) -> Result<Vec<u8>, StoreError> {
    // Room at once: a buffer that grows leaves copies of a secret behind.
    let length = file.metadata().map_or(0, |about| about.len()).min(FILE_BYTES_MAX);
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed(path, "read"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(StoreError::Large(path.to_owned()));
    }
    Ok(bytes)
}

/// Writes a file whole: a new one beside it, through to the disk, then in its place. A reader sees the old one or
/// the new one; a crash leaves one of them.
pub fn write(path: &Path, bytes: &[u8], mode: Mode) -> Result<(), StoreError> {
    let system = |what| failed(path, what);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = folder.join(name);
    // What a crash of a process with the same id left.
    let _ = fs::remove_file(&beside);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode.bits()).open(&beside)?;
        // A gateway runs as a user of its own, and its keys are issued by root: what stands in a folder belongs to whom
        // the folder belongs to.
        if rustix::process::geteuid().is_root() {
            let about = fs::metadata(folder)?;
            std::os::unix::fs::fchown(&file, Some(about.uid()), Some(about.gid()))?;
        }
        // Whatever the umask took away or a default access list gave.
        rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode.bits()))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written.map_err(system("written"))
}

/// Makes a folder that only its owner enters, with those above it that are missing; one that is there stays as it is.
pub fn folder(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path, "made"))
}

/// A folder that nobody else changes meanwhile.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the folder, or says that another has it. It is given back when this is dropped, or the process ends.
    pub fn take(path: &Path) -> Result<Self, StoreError> {
        let lock = path.join(".lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock)
            .map_err(failed(&lock, "opened"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Busy(path.to_owned())),
            Err(why) => Err(StoreError::System { path: lock, what: "locked", why: why.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("a file").mode() & 0o777
    }

    #[test]
    fn files_have_their_mode_whatever_was_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("gateway.key");
        fs::write(&path, "open").expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("a mode");
        assert!(matches!(read_secret(&path), Err(StoreError::Open { mode: 0o666, .. })));
        write(&path, b"secret", Mode::Secret).expect("written");
        assert_eq!((mode(&path), read_secret(&path).expect("read").expose()), (0o600, &b"secret"[..]));
        write(&path, b"public", Mode::Public).expect("written");
        assert_eq!(mode(&path), 0o644);
        let names: Vec<_> = fs::read_dir(dir.path()).expect("a folder").collect();
        assert_eq!(names.len(), 1, "nothing is left beside: {names:?}");
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was_there() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("authorities.pem");
        // A folder in the file's place cannot be replaced, by any user.
        fs::create_dir_all(path.join("x")).expect("a folder");
        let why = write(&path, b"new", Mode::Public).expect_err("refused").to_string();
        assert!(why.contains("nothing in it was changed") && path.join("x").is_dir(), "{why}");
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn what_stands_in_a_gateways_folder_belongs_to_the_gateway() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root writes for another user, and this test does not run as root");
            return;
        }
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("identity");
        fs::create_dir(&folder).expect("a folder");
        std::os::unix::fs::chown(&folder, Some(4242), Some(4243)).expect("given away");
        let path = folder.join("gateway.key");
        write(&path, b"secret", Mode::Secret).expect("written");
        let about = fs::metadata(&path).expect("a file");
        assert_eq!((about.uid(), about.gid(), about.mode() & 0o777), (4242, 4243, 0o600));
        assert_eq!(read_secret(&path).expect("its administrator may").expose(), b"secret");
    }

    #[test]
    fn endless_files_are_refused() {
        assert!(matches!(read(Path::new("/dev/zero")), Err(StoreError::Large(_))));
    }

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let held = Lock::take(dir.path()).expect("free");
        assert!(matches!(Lock::take(dir.path()), Err(StoreError::Busy(_))));
        drop(held);
        assert!(Lock::take(dir.path()).is_ok());
    }
}
