//! Messages on standard error: a JSON object a line, or for people. The least level can be changed while running.

use novacron_control_api::configuration::{LogFormat, LogLevel};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, reload};

/// Changes the least level.
#[derive(Clone)]
pub(crate) struct Levels(reload::Handle<LevelFilter, Registry>);

fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

impl Levels {
    pub(crate) fn set(&self, level: LogLevel) {
        // The subscriber lives as long as the process.
        let _ = self.0.reload(filter(level));
    }
}

/// Begins; once a process.
pub(crate) fn start(format: LogFormat, level: LogLevel) -> Levels {
    let (level, levels) = reload::Layer::new(filter(level));
    let to = fmt::layer().with_writer(std::io::stderr);
    let messages = match format {
        LogFormat::Json => to.json().flatten_event(true).boxed(),
        LogFormat::Text => to.boxed(),
    };
    tracing_subscriber::registry().with(level).with(messages).init();
    Levels(levels)
}
