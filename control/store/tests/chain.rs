//! Whatever is done to an audit log between its first and its last entry is found, at the right entry.

use novacron_store::audit::{
    AuditDraft, AuditEntry, AuditOutcome, Fault, Head, LineFault, Verifier, seal, verify_lines, write_line,
};
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    // Control characters, quotes and characters of several bytes included.
    proptest::collection::vec(prop_oneof![Just('"'), Just('\n'), Just('\u{1F600}'), any::<char>()], 0..12)
        .prop_map(|chars| chars.into_iter().filter(|c| *c != '\0').collect())
}

fn draft() -> impl Strategy<Value = AuditDraft> {
    (text(), text(), text(), text(), 0..4usize, 0..2_000_000_000_000u64).prop_map(
        |(actor, origin, subject, detail, outcome, at_ms)| {
            let outcomes =
                [AuditOutcome::Begun, AuditOutcome::Done, AuditOutcome::Refused, AuditOutcome::Failed];
            let mut draft = AuditDraft::new(actor, "a.method", outcomes[outcome]).unwrap();
            // A clock that jumps back and forth.
            draft.at = (std::time::UNIX_EPOCH + std::time::Duration::from_millis(at_ms)).into();
            (draft.origin, draft.subject, draft.detail) = (origin, subject, detail);
            draft
        },
    )
}

fn log() -> impl Strategy<Value = Vec<AuditEntry>> {
    proptest::collection::vec(draft(), 2..12).prop_map(|drafts| {
        let mut head = Head::START;
        drafts
            .into_iter()
            .map(|draft| {
                let entry = seal(head, draft);
                head = entry.head();
                entry
            })
            .collect()
    })
}

/// Follows the log, knowing where it should end.
fn follow(log: &[AuditEntry], end: Head) -> Result<Head, (u64, Fault)> {
    let mut verifier = Verifier::new(Head::START).expect(end);
    for entry in log {
        verifier.push(entry).map_err(|broken| (broken.seq, broken.fault))?;
    }
    verifier.finish().map_err(|broken| (broken.seq, broken.fault))
}

fn change(draft: &mut AuditDraft, field: u8) {
    match field % 8 {
        0 => draft.id.push('0'),
        1 => draft.actor.push('x'),
        2 => draft.role.push('x'),
        3 => draft.origin.push('x'),
        4 => draft.method.push('x'),
        5 => draft.subject.push('x'),
        6 => draft.detail.push('x'),
        _ => {
            let other = [AuditOutcome::Begun, AuditOutcome::Refused];
            draft.outcome = other[usize::from(draft.outcome == other[0])];
        }
    }
}

proptest! {
    #[test]
    fn an_untouched_log_verifies(log in log()) {
        let end = log.last().unwrap().head();
        prop_assert_eq!(follow(&log, end), Ok(end));
        let mut lines = Vec::new();
        for entry in &log {
            write_line(entry, &mut lines).unwrap();
        }
        prop_assert_eq!(verify_lines(&mut lines.as_slice(), Head::START, &[end]).unwrap(), end);
        // From the middle on, as after retention.
        let base = log[0].head();
        let rest = lines.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        prop_assert_eq!(verify_lines(&mut &lines[rest..], base, &[end]).unwrap(), end);
    }

    #[test]
    fn a_changed_entry_is_named(log in log(), index in any::<prop::sample::Index>(), field in any::<u8>()) {
        let end = log.last().unwrap().head();
        let index = index.index(log.len());
        let mut log = log;
        change(&mut log[index].draft, field);
        prop_assert_eq!(follow(&log, end), Err((index as u64 + 1, Fault::Changed)));
    }

    /// Whoever knows how computes the changed entry's hash anew: then the next one does not fit, or the end.
    #[test]
    fn an_entry_made_anew_is_found_at_the_next(log in log(), index in any::<prop::sample::Index>(), field in any::<u8>()) {
        let end = log.last().unwrap().head();
        let index = index.index(log.len());
        let mut log = log;
        let before = if index == 0 { Head::START } else { log[index - 1].head() };
        let mut draft = log[index].draft.clone();
        change(&mut draft, field);
        log[index] = seal(before, draft);
        let found = follow(&log, end);
        if index + 1 < log.len() {
            prop_assert_eq!(found, Err((index as u64 + 2, Fault::Unlinked)));
        } else {
            prop_assert_eq!(found, Err((index as u64 + 1, Fault::Rewritten)));
        }
    }

    /// Even all that follow: then only a head that was kept elsewhere tells.
    #[test]
    fn a_log_written_anew_is_found_by_a_kept_head_alone(log in log(), index in any::<prop::sample::Index>()) {
        let end = log.last().unwrap().head();
        let index = index.index(log.len());
        let mut log = log;
        change(&mut log[index].draft, 1);
        let mut head = if index == 0 { Head::START } else { log[index - 1].head() };
        for entry in &mut log[index..] {
            *entry = seal(head, entry.draft.clone());
            head = entry.head();
        }
        prop_assert_eq!(follow(&log, head), Ok(head));
        prop_assert_eq!(follow(&log, end), Err((log.len() as u64, Fault::Rewritten)));
    }

    #[test]
    fn a_removed_entry_is_named(log in log(), index in any::<prop::sample::Index>()) {
        let end = log.last().unwrap().head();
        let index = index.index(log.len());
        let mut log = log;
        log.remove(index);
        let expected = match log.get(index) {
            Some(next) => Fault::Missing { found: next.seq },
            None => Fault::Truncated { last: end.seq },
        };
        prop_assert_eq!(follow(&log, end), Err((index as u64 + 1, expected)));
    }

    #[test]
    fn an_inserted_entry_is_named(log in log(), index in any::<prop::sample::Index>(), draft in draft()) {
        let end = log.last().unwrap().head();
        let index = index.index(log.len());
        let mut log = log;
        let before = if index == 0 { Head::START } else { log[index - 1].head() };
        // Sealed in its place, as well as can be.
        log.insert(index, seal(before, draft));
        let found = follow(&log, end);
        // In the last one's place it is not the entry that the head names; elsewhere its number comes twice.
        if index + 1 == end.seq as usize {
            prop_assert_eq!(found, Err((end.seq, Fault::Rewritten)));
        } else {
            prop_assert_eq!(found, Err((index as u64 + 2, Fault::Missing { found: index as u64 + 1 })));
        }
    }

    #[test]
    fn a_moved_entry_is_named(log in log(), a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
        let end = log.last().unwrap().head();
        let (a, b) = (a.index(log.len()), b.index(log.len()));
        prop_assume!(a != b);
        let mut log = log;
        log.swap(a, b);
        let (seq, _) = follow(&log, end).unwrap_err();
        prop_assert_eq!(seq, a.min(b) as u64 + 1);
        // Numbered anew as well, it is found all the same.
        for (index, entry) in log.iter_mut().enumerate() {
            entry.seq = index as u64 + 1;
        }
        prop_assert_eq!(follow(&log, end).unwrap_err().0, a.min(b) as u64 + 1);
    }

    /// Any byte of an exported log, and any line of it.
    #[test]
    fn a_changed_byte_of_an_export_is_found(log in log(), at in any::<prop::sample::Index>(), bits in 1..=255u8) {
        let end = log.last().unwrap().head();
        let mut lines = Vec::new();
        for entry in &log {
            write_line(entry, &mut lines).unwrap();
        }
        let at = at.index(lines.len());
        let line = lines[..at].iter().filter(|byte| **byte == b'\n').count() as u64 + 1;
        lines[at] ^= bits;
        match verify_lines(&mut lines.as_slice(), Head::START, &[end]).unwrap_err() {
            LineFault::Broken(broken) => prop_assert_eq!(broken.seq, line),
            LineFault::Unreadable { line: found, .. } => prop_assert_eq!(found, line),
            LineFault::Read { .. } => prop_assert!(false, "memory can be read"),
        }
    }

    /// What is no log is refused without a panic.
    #[test]
    fn anything_else_is_refused(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
        prop_assert!(verify_lines(&mut bytes.as_slice(), Head::START, &[]).is_err());
    }
}
