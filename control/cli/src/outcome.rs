//! Tells control processes how a migration ended. Gateways see bytes and no guests; whoever holds the monitors knows more.
//! What cannot be told is a warning: the migration is over, and nothing of it depends on who hears of it.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Instant;

use novacron_control_api::ErrorCode;
use novacron_control_api::control::{MigrationRecord, MigrationReport, NodeInfo, ReportedOutcome};
use novacron_control_api::limits::{REASON_CODE_BYTES_MAX, REASON_MESSAGE_BYTES_MAX};
use serde_json::{Value, json};

use crate::limits::{OUTCOME_AGAIN, OUTCOME_TOLD, RPC_ANSWER};
use crate::rpc::{Gateway, GatewayError};

/// The first `control_version` that takes a report.
const TAKES_REPORTS: u32 = 3;

/// Those of the sockets behind which a control process keeps books of migrations.
pub(crate) struct Witnesses(Vec<PathBuf>);

impl Witnesses {
    /// Asks each socket what it is. One that is a gateway's own, or that nobody answers at, keeps no books.
    pub(crate) fn find(sockets: [&Path; 2]) -> Self {
        let keeps = |path: &&Path| {
            let asked = Gateway::connect(path)
                .and_then(|mut one| one.ask::<NodeInfo>("node.info", &json!({}), RPC_ANSWER));
            asked.is_ok_and(|node| node.control_version >= TAKES_REPORTS)
        };
        let mut found: Vec<PathBuf> =
            sockets.iter().filter(|path| keeps(path)).map(|path| path.to_path_buf()).collect();
        found.dedup();
        Self(found)
    }

    /// Whether it is a control process that answers at this socket.
    pub(crate) fn keep_books_at(&self, path: &Path) -> bool {
        self.0.iter().any(|one| one == path)
    }

    /// Tells all of them. Returns a warning for each that did not take it.
    pub(crate) fn tell(&self, report: &MigrationReport) -> Vec<String> {
        let params = params(report);
        let deadline = Instant::now() + OUTCOME_TOLD;
        self.0
            .iter()
            .filter_map(|path| told(path, &params, deadline).err())
            .map(|error| format!("the outcome is not in the records of a control process: {error}"))
            .collect()
    }
}

/// A repeat after a lost answer has the same key, and so is carried out once.
fn params(report: &MigrationReport) -> Value {
    let mut report = report.clone();
    if let Some(reason) = &mut report.reason {
        shorten(&mut reason.code, REASON_CODE_BYTES_MAX);
        shorten(&mut reason.message, REASON_MESSAGE_BYTES_MAX);
    }
    let word = match report.outcome {
        ReportedOutcome::Completed => "completed",
        ReportedOutcome::Failed => "failed",
        ReportedOutcome::Cancelled => "cancelled",
        ReportedOutcome::Unknown => "unknown",
    };
    let by = if report.total_ms.is_some() { "migrate" } else { "recover" };
    let mut params = json!(report);
    params["idempotency_key"] = json!(format!("novactl-{by}-{}-{word}", report.session));
    params
}

fn shorten(text: &mut String, bytes_max: usize) {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or_default());
}

fn told(path: &Path, params: &Value, deadline: Instant) -> Result<(), GatewayError> {
    loop {
        let wait = deadline.saturating_duration_since(Instant::now()).min(RPC_ANSWER);
        let asked = Gateway::connect(path)
            .and_then(|mut one| one.ask::<MigrationRecord>("migration.report", params, wait));
        let error = match asked {
            Ok(_) => return Ok(()),
            // Its session was never opened there: there is no record that could say more.
            Err(GatewayError::Answered { error, .. })
                if error.known_code() == Some(ErrorCode::SessionUnknown) =>
            {
                return Ok(());
            }
            Err(error) => error,
        };
        let again = match &error {
            // It may have been killed, and be started again.
            GatewayError::Gone { .. } | GatewayError::Lost { .. } => true,
            GatewayError::Answered { error, .. } => matches!(
                error.known_code(),
                Some(ErrorCode::NotRecorded | ErrorCode::LimitReached | ErrorCode::Draining)
            ),
            _ => false,
        };
        if !again || Instant::now() + OUTCOME_AGAIN >= deadline {
            return Err(error);
        }
        sleep(OUTCOME_AGAIN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_control_api::{Reason, SessionId};

    #[test]
    fn a_report_fits_whatever_its_reason_says() {
        let reason = Some(Reason { code: "c".repeat(200), message: "\u{e9}".repeat(3000) });
        let outcome = ReportedOutcome::Failed;
        let report =
            MigrationReport { session: SessionId(7), outcome, downtime_ms: None, total_ms: Some(1), reason };
        let mut sent = params(&report);
        let key = sent.as_object_mut().and_then(|sent| sent.remove("idempotency_key"));
        assert_eq!(key, Some(json!("novactl-migrate-0000000000000007-failed")));
        let read: MigrationReport = serde_json::from_value(sent).expect("the other side takes it");
        assert_eq!(read.reason.map(|reason| (reason.code.len(), reason.message.len())), Some((64, 2048)));
    }
}
