//! The identity folder: who this gateway is, whom it believes, what they may do.

use super::{Believed, vouches};
use crate::limits::IDENTITY_FILE_BYTES_MAX;
use novacron_control_api::{PeerIdentity, Peers};
use novacron_transport::{TlsCredentials, TlsFiles};
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The variable that may hold the key itself, PEM.
const KEY_VARIABLE: &str = "NOVACRON_GATEWAY_KEY";

const CHAIN: &str = "gateway.crt";
const KEY: &str = "gateway.key";
const AUTHORITIES: &str = "authorities.pem";
const REVOKED: &str = "revoked.pem";
const PEERS: &str = "peers.toml";

/// A text file that decides who may do what, if nobody but its owner can have written it.
pub(crate) fn text_of_owner(path: &Path) -> Result<String, String> {
    String::from_utf8(limited(path, not_written_by_others)?).map_err(|_| "it is not UTF-8".to_owned())
}

fn limited(path: &Path, check: impl FnOnce(&Metadata) -> Result<(), String>) -> Result<Vec<u8>, String> {
    let told = |why: String| format!("{} cannot be used: {why}", path.display());
    let file = File::open(path).map_err(|error| told(error.to_string()))?;
    // Of the file that is open, not of whatever has its name by now.
    let metadata = file.metadata().map_err(|error| told(error.to_string()))?;
    check(&metadata).map_err(told)?;
    let mut bytes = Vec::new();
    file.take(IDENTITY_FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| told(error.to_string()))?;
    if bytes.len() as u64 > IDENTITY_FILE_BYTES_MAX {
        return Err(told(format!("it is longer than {IDENTITY_FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn owner_only(metadata: &Metadata) -> Result<(), String> {
    if metadata.mode() & 0o077 != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(format!(
            "others may read or change it (mode {mode:04o}): set its mode to 0600, and replace the key"
        ));
    }
    Ok(())
}

fn not_written_by_others(metadata: &Metadata) -> Result<(), String> {
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o777;
        return Err(format!(
            "others may change it (mode {mode:04o}): set its mode to 0644 and look at what it says"
        ));
    }
    Ok(())
}

/// The key: from the environment, from a systemd credential, or from the folder.
fn key(folder: &Path) -> Result<Vec<u8>, String> {
    if let Ok(key) = std::env::var(KEY_VARIABLE) {
        return Ok(key.into_bytes());
    }
    if let Some(credentials) = std::env::var_os("CREDENTIALS_DIRECTORY") {
        let path = Path::new(&credentials).join(KEY);
        if path.exists() {
            // systemd keeps these for the service alone, whatever their mode says.
            return limited(&path, |_| Ok(()));
        }
    }
    limited(&folder.join(KEY), owner_only)
}

/// Reads the folder, all of it or none.
pub(crate) fn read(folder: &Path) -> Result<Believed, String> {
    let plain = |name: &str| limited(&folder.join(name), not_written_by_others);
    let chain = plain(CHAIN)?;
    let key = key(folder)?;
    let authorities = plain(AUTHORITIES)?;
    // A site that has revoked nothing may have no list yet.
    let revoked = if folder.join(REVOKED).exists() { plain(REVOKED)? } else { Vec::new() };
    let peers = String::from_utf8(plain(PEERS)?).map_err(|_| format!("{PEERS} is not UTF-8"))?;
    let peers = Peers::parse(&peers).map_err(|why| format!("{PEERS}: {why}"))?;
    let files = TlsFiles { chain: &chain, key: &key, authorities: &authorities, revoked: &revoked };
    let credentials = TlsCredentials::read(files, vouches).map_err(|error| error.to_string())?;
    let own: PeerIdentity =
        credentials.identity().parse().map_err(|error| format!("the gateway's certificate: {error}"))?;
    Ok(Believed { credentials, peers, own })
}

/// What the folder looked like, to see that it has changed without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FolderStamp(Vec<Option<FileStamp>>);

/// Device, inode, time of the last change in seconds and nanoseconds, size.
type FileStamp = (u64, u64, i64, i64, u64);

impl FolderStamp {
    pub(crate) fn of(folder: &Path) -> Self {
        let credential = std::env::var_os("CREDENTIALS_DIRECTORY").map(|path| PathBuf::from(path).join(KEY));
        let paths = [CHAIN, KEY, AUTHORITIES, REVOKED, PEERS].map(|name| folder.join(name));
        let stamp = |path: &PathBuf| {
            fs::metadata(path)
                .ok()
                .map(|found| (found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.size()))
        };
        Self(paths.iter().chain(&credential).map(stamp).collect())
    }
}
