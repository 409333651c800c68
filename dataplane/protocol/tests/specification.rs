//! The tables of `docs/spec/dwcp.md` say what the code does.

use novacron_protocol::limits;
use novacron_protocol::wire::{FRAME_HEADER_BYTES, FrameHeader, Kind, Reason, ReasonCode};

const SPECIFICATION: &str = include_str!("../../../docs/spec/dwcp.md");

/// Cells of the table row that begins with `first`.
fn row(first: &str) -> Vec<&'static str> {
    let start = format!("| {first} |");
    let line = SPECIFICATION.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("the specification has no row `{first}`"));
    line.trim_matches('|').split('|').map(str::trim).collect()
}

#[test]
fn bounds_are_those_of_the_code() {
    let bounds = [
        ("BATCH_BYTES_MAX", limits::BATCH_BYTES_MAX as u64),
        ("CARRY_BYTES_MAX", limits::CARRY_BYTES_MAX as u64),
        ("BATCH_LEN_MAX", limits::BATCH_LEN_MAX as u64),
        ("FRAME_PAYLOAD_MAX", limits::FRAME_PAYLOAD_MAX as u64),
        ("REASON_TEXT_MAX", limits::REASON_TEXT_MAX as u64),
        ("LABEL_MAX", limits::LABEL_MAX as u64),
        ("HELLO_AUTH_MAX", limits::HELLO_AUTH_MAX as u64),
        ("LANES_MAX", u64::from(limits::LANES_MAX)),
        ("CONNECTIONS_MAX", u64::from(limits::CONNECTIONS_MAX)),
        ("RECEIVE_WINDOW_BYTES", limits::RECEIVE_WINDOW_BYTES),
        ("PROMISE_BYTES_MIN", limits::PROMISE_BYTES_MIN),
        ("RECEIVE_SLACK_BYTES", limits::RECEIVE_SLACK_BYTES),
        ("BATCHES_UNDER_WAY_MAX", limits::BATCHES_UNDER_WAY_MAX as u64),
        ("PROGRESS_ENTRIES_MAX", limits::PROGRESS_ENTRIES_MAX as u64),
        ("CONTENT_PAGE_BYTES", limits::CONTENT_PAGE_BYTES),
        ("KNOWN_PAGES_MAX", limits::KNOWN_PAGES_MAX),
        ("OPEN_REPEAT", limits::OPEN_REPEAT.as_secs()),
        ("OUTAGE_RUNNING", limits::OUTAGE_RUNNING.as_secs()),
        ("OUTAGE_SWITCHOVER", limits::OUTAGE_SWITCHOVER.as_secs()),
        ("STALL_MIN", limits::STALL_MIN.as_secs()),
        ("REPORT_WAIT", limits::REPORT_WAIT.as_secs()),
    ];
    for (name, value) in bounds {
        let said = row(&format!("`{name}`"))[1].replace([',', 's', ' '], "");
        assert_eq!(said, value.to_string(), "{name}");
    }
}

#[test]
fn reason_codes_are_those_of_the_code() {
    let known = (1..u16::MAX).map_while(|code| {
        let mut payload = code.to_le_bytes().to_vec();
        // No text, and a proof that nobody looks at here.
        payload.extend_from_slice(&[0; 34]);
        let reason = Reason::read(&payload).unwrap();
        (!matches!(reason.code, ReasonCode::Other(_))).then_some((code, reason.code.name()))
    });
    let reasons = SPECIFICATION.split("| Code | Name | Meaning |").nth(1).expect("a table of reasons");
    let said: Vec<(u16, &str)> = reasons
        .lines()
        .skip(2)
        .map_while(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            Some((cells.first()?.parse().ok()?, cells.get(1)?.trim_matches('`')))
        })
        .collect();
    assert_eq!(said, known.collect::<Vec<_>>());
}

#[test]
fn kinds_are_those_of_the_code() {
    let mut said = 0;
    for kind in 0..=u8::MAX {
        // A header of that kind: patch a good one and put its check value right.
        let mut bytes = [0; FRAME_HEADER_BYTES];
        FrameHeader::unordered(Kind::Open, 0, 0).write(0, &mut bytes);
        bytes[4] = kind;
        let check = crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), &bytes[24..]);
        bytes[20..24].copy_from_slice(&check.to_le_bytes());
        let Ok(header) = FrameHeader::read(&bytes) else { continue };
        let number = if kind >= 0x40 { format!("{kind:#04x}") } else { kind.to_string() };
        let name = format!("| {number} | `{:?}` |", header.kind);
        assert!(SPECIFICATION.contains(&name), "no row `{name}`");
        said += 1;
    }
    assert_eq!(said, 15, "a kind that the specification does not count");
}
