//! Where the guest and the binaries are.
//!
//! | What | Looked for in | Built by |
//! |---|---|---|
//! | guest kernel and initrd | `$NOVACRON_GUEST_DIR`, else `guest/` of the target directory that we run from | `make setup guest` |
//! | guest's disk image | the same | `make guest-image` |
//! | our binaries | `$NOVACRON_BIN_DIR`, else beside us: the same profile's directory | `make build` |

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The guest's kernel, `vmlinuz`.
///
/// # Errors
/// When it is not there: says what to run.
pub fn kernel() -> Result<PathBuf> {
    guest_file("vmlinuz", "make setup")
}

/// The guest's initial RAM file system, `initrd`.
///
/// # Errors
/// When it is not there: says what to run.
pub fn initrd() -> Result<PathBuf> {
    guest_file("initrd", "make guest")
}

/// The disk image of the guest's programs, `image.ext4`.
///
/// # Errors
/// When it is not there: says what to run.
pub fn image() -> Result<PathBuf> {
    guest_file("image.ext4", "make guest-image")
}

/// One of our binaries, e.g. `novacron-gateway`.
///
/// # Errors
/// When it is not there: says what to run.
pub fn binary(name: &str) -> Result<PathBuf> {
    let directory = match env::var_os("NOVACRON_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => profile_directory()?,
    };
    existing(directory.join(name), "make build")
}

fn guest_file(name: &str, target: &str) -> Result<PathBuf> {
    let directory = match env::var_os("NOVACRON_GUEST_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let profile = profile_directory()?;
            // Above it stands the target directory, or, for `--target`, the triple's.
            let of_target = profile.ancestors().skip(1).take(2).map(|directory| directory.join("guest"));
            of_target
                .clone()
                .find(|directory| directory.is_dir())
                .or(of_target.into_iter().next())
                .context("this program does not run from a cargo target directory: set NOVACRON_GUEST_DIR")?
        }
    };
    existing(directory.join(name), target)
}

fn existing(path: PathBuf, target: &str) -> Result<PathBuf> {
    ensure!(path.is_file(), "{} is missing: run `{target}`", path.display());
    Ok(path)
}

/// `target/release` for `target/release/x` and for `target/release/deps/test-1234`.
fn profile_directory() -> Result<PathBuf> {
    let program = env::current_exe().context("finding out which program this is")?;
    let directory = program.parent().context("this program has no directory")?;
    Ok(match directory.file_name() {
        Some(name) if name == "deps" || name == "examples" => {
            directory.parent().unwrap_or(Path::new("/")).to_owned()
        }
        _ => directory.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_names_the_target_that_builds_it() {
        let error = binary("novacron-not-there").unwrap_err().to_string();
        assert!(error.contains("make build") && error.contains("novacron-not-there"), "{error}");
    }
}
