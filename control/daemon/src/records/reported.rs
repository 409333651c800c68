//! `migration.report`: how a migration ended, from whoever holds its hypervisors' monitors.

use novacron_control_api::control::{MigrationRecord, MigrationReport};
use novacron_control_api::{ErrorCode, RpcError, Timestamp};
use serde_json::json;

use super::history::away;
use super::migration::{migration, reported};
use crate::node::Node;

/// Writes down what is reported.
///
/// # Errors
/// When there is no such migration, when another outcome was reported before, or when it could not be kept.
pub(crate) async fn report(
    node: &Node,
    told: &MigrationReport,
    caller: &str,
) -> Result<MigrationRecord, RpcError> {
    let store = node.records.store().map_err(|error| away(&error))?;
    let session = told.session;
    let actor = node.sessions.opened_by(session);
    let mut written = node.records.written().await;
    let before = written.get(&store, session, actor.is_some()).await.map_err(|error| away(&error))?;
    // The recorder may not have come to it yet.
    let before = before
        .or_else(|| node.sessions.get(session).map(|record| migration(None, &record, actor.as_deref())))
        .ok_or_else(|| {
            let message = format!("no migration {session} was recorded here");
            let next = "report it to the control process that its session was opened at";
            RpcError::new(ErrorCode::SessionUnknown, message, "nothing", next)
        })?;
    let Some(made) = reported(&before, told, caller, Timestamp::now()) else {
        let message = format!(
            "migration {session} was reported as {} by {}",
            before.outcome.name(),
            before.reported_by.as_deref().unwrap_or_default()
        );
        let next = "look at both hypervisors; what was reported first stays";
        return Err(RpcError::new(ErrorCode::AlreadySettled, message, "nothing", next));
    };
    if made != before {
        written.put(&store, made.clone()).await.map_err(|error| away(&error))?;
        drop(written);
        node.metrics.migration_reported(made.outcome.name(), made.downtime_ms);
        let text = format!("migration {session} is {}, says {caller}", made.outcome.name());
        let data =
            json!({"outcome": made.outcome, "downtime_ms": made.downtime_ms, "total_ms": made.total_ms});
        node.events.tell("migration.reported", &session.to_string(), text, data);
    }
    Ok(made)
}
