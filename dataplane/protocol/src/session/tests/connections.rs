//! Several connections: the order in which they are opened, what they are for, and that each has credit of its own.

use super::super::pair::*;
use super::*;
use crate::hypervisor::synthetic::{Contents, Plan};

fn opened(session: &mut Session) -> Vec<(u16, String)> {
    let opened = |event| match event {
        Event::ConnectionOpened { connection, label } => Some((connection, label)),
        _ => None,
    };
    events(session).into_iter().filter_map(opened).collect()
}

/// DWCP-45: QEMU's preempt channel says nothing, so the order in which it is connected is all that tells what it is.
#[test]
fn connections_are_opened_in_the_order_of_their_numbers() {
    let mut pair = Pair::opened();
    events(&mut pair.destination);
    let mut openings = Vec::new();
    for label in [MIGRATION, "disk-vda", MIGRATION] {
        pair.source.open_connection(label, pair.now).unwrap();
        openings.push(pair.source.next_frame(StreamId(1), Instant::START).unwrap());
    }
    for late in [2, 1] {
        deliver(&mut pair.destination, 1, openings[late].clone(), pair.now);
        assert_eq!(opened(&mut pair.destination), []);
    }
    deliver(&mut pair.destination, 1, openings[0].clone(), pair.now);
    let labels = [(0, MIGRATION.to_owned()), (1, "disk-vda".to_owned()), (2, MIGRATION.to_owned())];
    assert_eq!(opened(&mut pair.destination), labels);
    assert_eq!((pair.source.label(1), pair.destination.label(1)), ("disk-vda", "disk-vda"));
    // Repeated, because its stream was lost: no news.
    deliver(&mut pair.destination, 1, openings[1].clone(), pair.now);
    assert_eq!(opened(&mut pair.destination), []);
    assert_eq!(pair.destination.state(), &State::Running);
}

/// DWCP-45: a number that was not agreed would wait for ever for those before it.
#[test]
fn a_connection_beyond_the_count_agreed_is_refused() {
    let mut pair = Pair::opened();
    let agreed = pair.destination.config().connections_max;
    let opening = ConnectionOpen { label: MIGRATION.to_owned() };
    deliver(&mut pair.destination, 1, opening.to_frame(SESSION, 0, agreed - 1), pair.now);
    assert_eq!(pair.destination.state(), &State::Running);
    deliver(&mut pair.destination, 1, opening.to_frame(SESSION, 0, agreed), pair.now);
    let State::Failed(reason) = pair.destination.state() else { panic!("takes what was not agreed") };
    assert_eq!(reason.code, ReasonCode::Limit);
}

/// DWCP-46: a disk's bytes may look like a migration's. Nobody looks.
#[test]
fn only_the_migrations_connections_are_parsed() {
    let mut plan = Plan::filled(256, 0, 1);
    plan.passes.iter_mut().flatten().for_each(|page| page.contents = Contents::Fill(7));
    let stream = plan.build();
    for (label, indexes) in [(MIGRATION, true), ("disk", false), ("control-1", false)] {
        let mut pair = Pair::opened();
        pair.source.open_connection(label, pair.now).unwrap();
        let mut kinds = Vec::new();
        for chunk in stream.chunks(100_000) {
            write(&mut pair.source, 0, chunk, pair.now);
            while let Some(frame) = pair.source.next_frame(StreamId(1), Instant::START) {
                kinds.push(FrameHeader::read(&frame).unwrap().kind);
                deliver(&mut pair.destination, 1, frame, pair.now);
            }
            pair.drain(0);
            pair.carry(1);
        }
        assert_eq!(kinds.contains(&Kind::Index), indexes, "{label}: {kinds:?}");
        assert_eq!(pair.source.outbound.migration_progress().is_some(), indexes);
    }
}

/// A disk's bytes cannot start a guest at the destination: there is nothing to hold the source for.
#[test]
fn a_source_is_held_for_its_migration_and_not_for_its_disks() {
    for (label, held) in [(MIGRATION, true), ("disk", false)] {
        let mut pair = Pair::opened();
        pair.source.open_connection(label, pair.now).unwrap();
        write(&mut pair.source, 0, b"bytes of no known stream", pair.now);
        pair.carry(1);
        pair.source.fail(Reason::new(ReasonCode::Cancelled, "cancelled"));
        assert_eq!(pair.source.holds_source_sockets(), held, "{label}");
    }
}

/// QEMU's multifd receiver stops reading one connection until another makes progress.
#[test]
fn a_connection_that_nobody_reads_takes_no_credit_from_another() {
    const ROUNDS: usize = 40;
    let mut pair = Pair::opened();
    for _ in 0..2 {
        pair.source.open_connection(MIGRATION, pair.now).unwrap();
    }
    let fill = |pair: &mut Pair| loop {
        let budget = pair.source.read_budget(0);
        if budget == 0 {
            return;
        }
        write(&mut pair.source, 0, &vec![3; budget], pair.now);
        pair.carry(1);
    };
    fill(&mut pair);
    for _ in 0..ROUNDS {
        let budget = pair.source.read_budget(1);
        assert!(budget > 0, "held up by the other one");
        write(&mut pair.source, 1, &vec![4; budget], pair.now);
        pair.carry(1);
        pair.drain(1);
        pair.carry(1);
        pair.now = pair.now.after(Duration::from_millis(1));
    }
    assert_eq!(pair.source.read_budget(0), 0, "nobody has taken any of it");
    pair.drain(0);
    pair.carry(1);
    assert!(pair.source.read_budget(0) > 0);
}
