//! What is stored beside the audit log: sessions, migrations, path samples. The types are those that callers of the
//! control process get.

use novacron_control_api::SessionId;
pub use novacron_control_api::control::{
    KeptSample as PathSample, MigrationOutcome, MigrationRecord, SeenSession, Which,
};

/// A session is one gateway's: both ends of a migration may report to the same control process.
pub(crate) fn session_name(gateway: &str, session: SessionId) -> String {
    format!("{session}/{gateway}")
}
