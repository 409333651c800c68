//! The records file: what happened, a JSON object a line.

use novacron_control_api::SessionRecord;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;

/// Starts the thread that appends records to `path`, or forgets them where there is none. A record that cannot be
/// written is reported and lost; the session that it speaks of is not affected, and `session.list` still has it.
pub(crate) fn start(path: Option<PathBuf>, records: Receiver<SessionRecord>) -> Result<(), String> {
    let file =
        match &path {
            Some(path) => {
                let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
                Some(opened.map_err(|error| {
                    format!("the records file {} cannot be opened: {error}", path.display())
                })?)
            }
            None => None,
        };
    let write = move || {
        let mut file = file;
        for record in records {
            let Some(file) = &mut file else { continue };
            let line = novacron_control_api::to_line(&record);
            // One write a line: a full disk leaves no half of a record before a whole one.
            if let Err(error) = file.write_all(&line) {
                tracing::warn!(session = %record.session, %error, "a session's record was not written");
            }
        }
    };
    std::thread::Builder::new()
        .name("records".to_owned())
        .spawn(write)
        .map(drop)
        .map_err(|error| format!("no thread for the records: {error}"))
}
