//! Messages to standard error.

use crate::args::{Args, LogFormat};

/// Starts logging. A message that cannot be written (a full disk, a closed pipe) is dropped: migrations go on.
pub(crate) fn start(args: &Args) {
    let builder = tracing_subscriber::fmt()
        .with_max_level(args.log_level)
        .with_writer(std::io::stderr)
        .with_target(false)
        // Complaining on the same full disk would panic.
        .log_internal_errors(false);
    match args.log_format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
