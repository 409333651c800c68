//! All places together: file, environment and flags become one configuration.

use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use novacron_control_api::configuration::{Entry, Layers, Mistake, Origin, Raw, Resolved};

use crate::limits::FILE_BYTES_MAX;
use crate::{document, environment};

/// Where a process looks for its configuration. Kept, so that a reload looks in the same places.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file, if there is one.
    pub file: Option<PathBuf>,
    /// `KEY=VALUE` flags, as entries.
    pub flags: Vec<Entry>,
}

/// Why there is no configuration. Whatever was in force before still is.
#[derive(Debug)]
pub enum LoadError {
    /// The file cannot be read.
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// It says what cannot be taken.
    Mistakes(Vec<Mistake>),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, why } => write!(f, "{} cannot be read: {why}", path.display()),
            Self::Mistakes(mistakes) => {
                for (at, mistake) in mistakes.iter().enumerate() {
                    if at > 0 {
                        f.write_str("\n")?;
                    }
                    write!(f, "{mistake}")?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for LoadError {}

impl Sources {
    /// Reads every place and resolves what they say.
    ///
    /// # Errors
    /// When the file cannot be read or anything in any place cannot be taken.
    pub fn load(
        &self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Resolved, LoadError> {
        let mut layers = Layers::new();
        if let Some(path) = &self.file {
            let text = read(path)?;
            let name = path.display().to_string();
            layers.add(document::entries(&text, &name).map_err(LoadError::Mistakes)?);
        }
        let variables = environment::variables(environment);
        layers.add(variables.entries);
        layers.add(self.flags.iter().cloned());
        let mut resolved = layers.resolve().map_err(LoadError::Mistakes)?;
        resolved.warnings.extend(variables.warnings);
        Ok(resolved)
    }
}

fn read(path: &Path) -> Result<String, LoadError> {
    let refused = |why: String| LoadError::File { path: path.to_owned(), why };
    let file = File::open(path).map_err(|error| {
        refused(match error.kind() {
            ErrorKind::NotFound => "it does not exist; make it, or name another with --config".to_owned(),
            _ => error.to_string(),
        })
    })?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| refused(error.to_string()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(format!("it is longer than {FILE_BYTES_MAX} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| refused("it is not UTF-8".to_owned()))
}

/// A flag `KEY=VALUE` as an entry; `flag` is its name in messages.
///
/// # Errors
/// When there is no `=` in it.
pub fn setting(text: &str, flag: &str) -> Result<Entry, String> {
    let (path, value) =
        text.split_once('=').ok_or("expected KEY=VALUE, as in dwcp.transport.min_streams=8")?;
    let origin = Origin::Flag(flag.to_owned());
    Ok(Entry { path: path.to_owned(), raw: Raw::Given(value.to_owned()), origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_variables_over_the_file_over_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.yaml");
        let text = "system: {node_id: file, log_level: warn, log_format: text}\n";
        std::fs::write(&file, text).unwrap();
        let flags = vec![setting("system.node_id=flag", "--set").unwrap()];
        let variables = [("NOVACRON_NODE_ID", "variable"), ("NOVACRON_LOG_LEVEL", "error")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let resolved = Sources { file: Some(file.clone()), flags }.load(variables).unwrap();
        assert_eq!(resolved.configuration.system.node_id.as_str(), "flag");
        assert_eq!(resolved.origin("system.node_id").to_string(), "flag --set");
        assert_eq!(resolved.origin("system.log_level").to_string(), "variable NOVACRON_LOG_LEVEL");
        let place = format!("{}:1:54", file.display());
        assert_eq!(resolved.origin("system.log_format").to_string(), place);
        assert_eq!(resolved.origin("system.data_dir").to_string(), "default");
    }

    #[test]
    fn files_that_cannot_be_used_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let load = |path: &Path| Sources { file: Some(path.to_owned()), flags: vec![] }.load([]).unwrap_err();
        let missing = load(&folder.path().join("not-there")).to_string();
        assert!(missing.contains("does not exist"), "{missing}");
        let large = folder.path().join("large");
        std::fs::write(&large, vec![b'#'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(load(&large).to_string().contains("longer than"));
        let bytes = folder.path().join("bytes");
        std::fs::write(&bytes, [0xff, 0xfe]).unwrap();
        assert!(load(&bytes).to_string().contains("not UTF-8"));
    }
}
