//! What whoever holds the hypervisors' monitors tells of a migration: gateways see bytes, and no guests.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::MigrationOutcome;
use crate::ident::SessionId;
use crate::limits::{REASON_CODE_BYTES_MAX, REASON_MESSAGE_BYTES_MAX};
use crate::record::Reason;

/// How a migration ended, as the hypervisors show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ReportedOutcome {
    /// The guest runs at the destination.
    Completed,
    /// It failed; the guest is at the source.
    Failed,
    /// It was cancelled; the guest is at the source.
    Cancelled,
    /// Where the guest runs is not known; a later report may say it.
    Unknown,
}

impl From<ReportedOutcome> for MigrationOutcome {
    fn from(reported: ReportedOutcome) -> Self {
        match reported {
            ReportedOutcome::Completed => Self::Completed,
            ReportedOutcome::Failed => Self::Failed,
            ReportedOutcome::Cancelled => Self::Cancelled,
            ReportedOutcome::Unknown => Self::Unknown,
        }
    }
}

/// Parameters of `migration.report`. It is idempotent: the same report changes nothing, another outcome than the one that
/// was reported is refused, unless that was `unknown`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MigrationReport {
    /// The migration's session.
    pub session: SessionId,
    /// How it ended.
    pub outcome: ReportedOutcome,
    /// How long the guest ran nowhere, in milliseconds, as QEMU's source says; `null` where nobody knows.
    #[serde(default)]
    pub downtime_ms: Option<u64>,
    /// From the order to the guest seen running at the destination, or else to the end, in milliseconds.
    #[serde(default)]
    pub total_ms: Option<u64>,
    /// Why it did not complete: a code of at most 64 bytes, a message of at most 2048.
    #[serde(default, deserialize_with = "bounded")]
    pub reason: Option<Reason>,
}

fn bounded<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Reason>, D::Error> {
    let reason: Option<Reason> = Option::deserialize(from)?;
    if let Some(reason) = &reason
        && (reason.code.len() > REASON_CODE_BYTES_MAX || reason.message.len() > REASON_MESSAGE_BYTES_MAX)
    {
        return Err(D::Error::custom(format!(
            "a reason has a code of at most {REASON_CODE_BYTES_MAX} bytes and a message of at most \
             {REASON_MESSAGE_BYTES_MAX}"
        )));
    }
    Ok(reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_is_read_as_it_is_written_and_bounded() {
        let told = json!({"session": "00c0ffee00c0ffee", "outcome": "completed", "downtime_ms": 12});
        let report: MigrationReport = serde_json::from_value(told).unwrap();
        assert_eq!((report.downtime_ms, report.total_ms, &report.reason), (Some(12), None, &None));
        let again: MigrationReport = serde_json::from_value(json!(report)).unwrap();
        assert_eq!(again, report);
        for wrong in [
            json!({"session": "00c0ffee00c0ffee", "outcome": "delivered"}),
            json!({"session": "00c0ffee00c0ffee", "outcome": "failed", "reason": {"code": "x".repeat(65), "message": ""}}),
            json!({"session": "00c0ffee00c0ffee", "outcome": "failed", "reason": {"code": "", "message": "x".repeat(2049)}}),
            json!({"session": "00c0ffee00c0ffee", "outcome": "failed", "guest": 1}),
            json!({"session": "00c0ffee00c0ffee", "outcome": "failed", "downtime_ms": -1}),
        ] {
            assert!(serde_json::from_value::<MigrationReport>(wrong).is_err());
        }
    }
}
