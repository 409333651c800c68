//! What a session's record says of its migration.

use novacron_control_api::control::{MigrationOutcome, MigrationRecord, MigrationReport};
use novacron_control_api::{Phase, Role as SessionRole, SessionRecord, SessionState, Timestamp};

/// How a migration stands by one gateway's record of its session. A gateway sees bytes, not guests: it says where the
/// guest is only where no byte of its last state can have left.
pub(super) fn outcome(record: &SessionRecord) -> MigrationOutcome {
    match record.state {
        SessionState::Finished => MigrationOutcome::Delivered,
        SessionState::Held => MigrationOutcome::Unknown,
        SessionState::Failed => {
            let code = record.reason.as_ref().map_or("", |reason| reason.code.as_str());
            // These were last seen some time before their end.
            let unseen = matches!(code, "gateway_lost" | "unseen_end");
            let at_source = record.guest_bytes == 0 || matches!(record.phase, Phase::Setup | Phase::Precopy);
            match (unseen || !at_source, code) {
                (true, _) => MigrationOutcome::Unknown,
                (false, "cancelled") => MigrationOutcome::Cancelled,
                (false, _) => MigrationOutcome::Failed,
            }
        }
        SessionState::Waiting | SessionState::Opening | SessionState::Running | SessionState::Interrupted => {
            MigrationOutcome::Running
        }
    }
}

/// Of two ends that both say how it ended.
fn of_both(one: MigrationOutcome, other: MigrationOutcome) -> MigrationOutcome {
    use MigrationOutcome::{Cancelled, Failed, Unknown};
    match (one, other) {
        (one, other) if one == other => one,
        (Cancelled, Failed) | (Failed, Cancelled) => Cancelled,
        _ => Unknown,
    }
}

/// The migration's record after somebody who holds the hypervisors' monitors said how it ended: their word wins over
/// what bytes show, and stays. `None`: somebody said otherwise before, and was sure of it.
pub(super) fn reported(
    before: &MigrationRecord,
    report: &MigrationReport,
    by: &str,
    now: Timestamp,
) -> Option<MigrationRecord> {
    let outcome = MigrationOutcome::from(report.outcome);
    let sure = before.reported_by.is_some() && before.outcome != MigrationOutcome::Unknown;
    if sure && outcome != before.outcome {
        return None;
    }
    let same = before.reported_by.is_some() && outcome == before.outcome;
    let reason = match outcome {
        MigrationOutcome::Completed => None,
        _ if same => before.reason.clone().or_else(|| report.reason.clone()),
        _ => report.reason.clone().or_else(|| before.reason.clone()),
    };
    Some(MigrationRecord {
        outcome,
        reason,
        ended_at: before.ended_at.or(Some(now)),
        // Who reports first saw it best: `recover` comes later and knows no times.
        downtime_ms: before.downtime_ms.or(report.downtime_ms),
        total_ms: before.total_ms.or(report.total_ms),
        reported_by: before.reported_by.clone().filter(|_| same).or_else(|| Some(by.to_owned())),
        ..before.clone()
    })
}

/// The migration's record after `record` was seen. What `before` knows and `record` cannot say stays: who ordered it,
/// and the other end, where both gateways report to one database.
pub(super) fn migration(
    before: Option<&MigrationRecord>,
    record: &SessionRecord,
    actor: Option<&str>,
) -> MigrationRecord {
    let ended = record.state.is_ended().then(|| record.clone());
    let known =
        |side: fn(&MigrationRecord) -> &Option<SessionRecord>| before.and_then(|one| side(one).clone());
    let (source, destination) = match record.role {
        SessionRole::Source => (ended.clone(), known(|one| &one.destination)),
        SessionRole::Destination => (known(|one| &one.source), ended.clone()),
    };
    let was = before.map(|one| one.outcome);
    let own = match (was, outcome(record)) {
        // It was held: the last byte may have been delivered, and releasing its sockets changed nothing of that.
        (Some(MigrationOutcome::Unknown), MigrationOutcome::Failed | MigrationOutcome::Cancelled)
            if ended.is_some() =>
        {
            MigrationOutcome::Unknown
        }
        (_, own) => own,
    };
    let far = match record.role {
        SessionRole::Source => &destination,
        SessionRole::Destination => &source,
    };
    let told = before.filter(|one| one.reported_by.is_some());
    let outcome = match (told, far) {
        (Some(told), _) => told.outcome,
        (_, Some(far)) if ended.is_some() => of_both(own, outcome(far)),
        _ => own,
    };
    let well = matches!(outcome, MigrationOutcome::Completed | MigrationOutcome::Delivered);
    let peer = match record.role {
        SessionRole::Source => record.peer.clone(),
        SessionRole::Destination => None,
    };
    MigrationRecord {
        session: record.session,
        label: record.label.clone(),
        tenant: record.tenant.clone(),
        actor: actor.or(before.map(|one| one.actor.as_str())).unwrap_or_default().to_owned(),
        outcome,
        reason: match told.and_then(|one| one.reason.as_ref()) {
            _ if well => None,
            Some(told) => Some(told.clone()),
            None => record.reason.clone(),
        },
        started_at: before.map_or(record.opened_at, |one| one.started_at.min(record.opened_at)),
        ended_at: record.ended_at.or_else(|| told.and_then(|one| one.ended_at)),
        downtime_ms: before.and_then(|one| one.downtime_ms),
        total_ms: before.and_then(|one| one.total_ms),
        reported_by: before.and_then(|one| one.reported_by.clone()),
        source,
        destination,
        peer: peer.or_else(|| before.and_then(|one| one.peer.clone())).or_else(|| record.peer.clone()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use novacron_control_api::Reason;
    use novacron_control_api::control::ReportedOutcome;
    use serde_json::{Value, json};

    /// A record as a gateway writes it, with some members replaced.
    pub(in crate::records) fn record(more: &Value) -> SessionRecord {
        let mut all = json!({
            "session": "00c0ffee00c0ffee", "label": "vm1", "role": "source", "state": "running",
            "phase": "precopy", "iteration": 1, "opened_at": "2026-11-21T08:00:00.000Z", "elapsed_ms": 5,
            "peer": "tcp:192.0.2.1:7400", "streams": {"open": 1, "ever": 1}, "guest_bytes": 1,
            "encoded_bytes": 1, "wire_bytes_sent": 1, "wire_bytes_received": 1, "pages": 0, "zero_pages": 0,
            "ram_total_bytes": 0, "rate_bytes_per_s": 0, "rtt_us": 0, "window_bytes": 0,
            "codec": {"raw": 0, "lz4": 0, "zstd": 0}, "connections": [],
        });
        for (name, value) in more.as_object().unwrap() {
            all[name] = value.clone();
        }
        serde_json::from_value(all).unwrap()
    }

    fn ended(state: &str, phase: &str, code: &str) -> SessionRecord {
        let reason = if code.is_empty() { Value::Null } else { json!({"code": code, "message": "m"}) };
        record(
            &json!({"state": state, "phase": phase, "reason": reason, "ended_at": "2026-11-21T08:00:01.000Z"}),
        )
    }

    #[test]
    fn where_the_guest_is_is_said_only_where_it_is_certain() {
        use MigrationOutcome::{Cancelled, Delivered, Failed, Running, Unknown};
        for (state, phase, code, expected) in [
            ("running", "switchover", "", Running),
            ("interrupted", "precopy", "", Running),
            ("finished", "ended", "", Delivered),
            ("held", "ended", "peer_lost", Unknown),
            ("failed", "precopy", "peer_lost", Failed),
            ("failed", "precopy", "cancelled", Cancelled),
            ("failed", "switchover", "cancelled", Unknown),
            ("failed", "postcopy", "peer_lost", Unknown),
            ("failed", "opaque", "peer_lost", Unknown),
            ("failed", "precopy", "gateway_lost", Unknown),
        ] {
            assert_eq!(outcome(&ended(state, phase, code)), expected, "{state} {phase} {code}");
        }
        let untouched = record(&json!({"state": "failed", "phase": "opaque", "guest_bytes": 0}));
        assert_eq!(outcome(&untouched), Failed, "no byte ever left");
    }

    #[test]
    fn a_held_session_that_is_released_stays_unknown() {
        let held = migration(None, &ended("held", "precopy", "peer_lost"), Some("uid:0"));
        assert_eq!((held.outcome, held.source.is_some()), (MigrationOutcome::Unknown, false));
        let released = migration(Some(&held), &ended("failed", "precopy", "peer_lost"), None);
        assert_eq!(released.outcome, MigrationOutcome::Unknown);
        assert_eq!((released.actor.as_str(), released.source.is_some()), ("uid:0", true));
    }

    #[test]
    fn both_ends_of_one_database_make_one_record() {
        let source = migration(None, &ended("finished", "ended", ""), Some("uid:7"));
        assert_eq!((source.outcome, &source.reason), (MigrationOutcome::Delivered, &None));
        let mut far = ended("finished", "ended", "");
        far.role = SessionRole::Destination;
        let both = migration(Some(&source), &far, None);
        assert_eq!(both.outcome, MigrationOutcome::Delivered);
        assert!(both.source.is_some() && both.destination.is_some());
        assert_eq!((both.actor.as_str(), both.peer), ("uid:7", source.peer.clone()));
        let mut lost = ended("failed", "ended", "peer_lost");
        lost.role = SessionRole::Destination;
        assert_eq!(migration(Some(&source), &lost, None).outcome, MigrationOutcome::Unknown);
    }

    fn report(outcome: ReportedOutcome, downtime_ms: Option<u64>) -> MigrationReport {
        let reason = Some(Reason { code: "hypervisor".into(), message: "m".into() });
        let session = record(&json!({})).session;
        MigrationReport { session, outcome, downtime_ms, total_ms: downtime_ms.map(|ms| ms * 10), reason }
    }

    fn at(text: &str) -> Timestamp {
        serde_json::from_value(json!(text)).unwrap()
    }

    #[test]
    fn what_hypervisors_show_wins_over_bytes_and_stays() {
        let now = at("2026-11-21T08:00:02.000Z");
        let running = migration(None, &record(&json!({})), Some("uid:7"));
        let told = reported(&running, &report(ReportedOutcome::Completed, Some(12)), "uid:7", now).unwrap();
        assert_eq!((told.outcome, told.ended_at), (MigrationOutcome::Completed, Some(now)));
        assert_eq!((told.downtime_ms, told.total_ms, &told.reason), (Some(12), Some(120), &None));
        // What the gateway shows of the bytes afterwards changes nothing of it, whatever that is.
        for after in
            [record(&json!({})), ended("finished", "ended", ""), ended("failed", "ended", "peer_lost")]
        {
            let kept = migration(Some(&told), &after, None);
            assert_eq!((kept.outcome, kept.downtime_ms, kept.total_ms), (told.outcome, Some(12), Some(120)));
            assert_eq!(
                (kept.reason, kept.ended_at.is_some(), kept.reported_by),
                (None, true, Some("uid:7".into()))
            );
        }
        let failed = reported(&running, &report(ReportedOutcome::Failed, None), "uid:7", now).unwrap();
        let delivered = migration(Some(&failed), &ended("finished", "ended", ""), None);
        assert_eq!(
            (delivered.outcome, delivered.reason.unwrap().code.as_str()),
            (MigrationOutcome::Failed, "hypervisor")
        );
    }

    #[test]
    fn a_report_is_taken_once_and_only_doubt_may_be_settled_later() {
        use ReportedOutcome::{Cancelled, Completed, Failed, Unknown};
        let now = at("2026-11-21T08:00:02.000Z");
        let delivered = migration(None, &ended("finished", "ended", ""), None);
        for first in [Completed, Failed, Cancelled, Unknown] {
            let told = reported(&delivered, &report(first, Some(5)), "uid:7", now).unwrap();
            let again =
                reported(&told, &report(first, Some(9)), "uid:8", at("2026-11-21T09:00:00.000Z")).unwrap();
            assert_eq!(again, told, "{first:?}: a repeat changes nothing");
            for other in [Completed, Failed, Cancelled, Unknown].into_iter().filter(|other| *other != first) {
                let changed = reported(&told, &report(other, None), "uid:8", now);
                assert_eq!(changed.is_some(), first == Unknown, "{first:?}, then {other:?}");
                if let Some(changed) = changed {
                    assert_eq!((changed.outcome, changed.reported_by), (other.into(), Some("uid:8".into())));
                    assert_eq!(changed.downtime_ms, Some(5));
                }
            }
        }
    }
}
