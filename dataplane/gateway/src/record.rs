//! The record of a session, from the session.

use novacron_control_api as api;
use novacron_control_api::{
    CodecBytes, CodecTimes, ConnectionDirection, ConnectionRecord, ContentRecord, DeltaMemory, Digest, Role,
    SessionId, SessionOpen, SessionRecord, SessionSide, SessionState, StreamCount, Timestamp,
};
use novacron_protocol::hypervisor::{StreamKind, StreamPhase};
use novacron_protocol::session::{Session, State};

/// The record of a session that has only been asked for.
pub(crate) fn asked(open: &SessionOpen) -> SessionRecord {
    let (peer, listen, connect) = match &open.side {
        SessionSide::Source { peer, listen } => (Some(peer.clone()), Some(listen.clone()), None),
        SessionSide::Destination { connect } => (None, None, Some(connect.clone())),
    };
    SessionRecord {
        session: open.session,
        label: open.label.clone(),
        tenant: open.tenant.clone(),
        role: open.side.role(),
        state: match open.side.role() {
            Role::Source => SessionState::Opening,
            Role::Destination => SessionState::Waiting,
        },
        reason: None,
        phase: api::Phase::Setup,
        iteration: 0,
        opened_at: Timestamp::now(),
        ended_at: None,
        elapsed_ms: 0,
        peer,
        listen,
        connect,
        encrypted: false,
        peer_identity: None,
        labelled: open.labelled.clone(),
        from: open.from.clone(),
        refused_connections: 0,
        streams: StreamCount::default(),
        guest_bytes: 0,
        encoded_bytes: 0,
        wire_bytes_sent: 0,
        repeated_bytes: 0,
        wire_bytes_received: 0,
        pages: 0,
        zero_pages: 0,
        ram_total_bytes: 0,
        rate_bytes_per_s: 0,
        rtt_us: 0,
        window_bytes: 0,
        codec: CodecBytes::default(),
        codec_times: CodecTimes::default(),
        delta_memory: DeltaMemory::default(),
        content: ContentRecord::default(),
        connections: Vec::new(),
        digest_equal: None,
        mode: None,
        mode_changes: Vec::new(),
    }
}

/// Brings a record up to date.
pub(crate) fn update(record: &mut SessionRecord, session: &Session) {
    record.state = match session.state() {
        State::Opening { .. } => SessionState::Opening,
        State::Expecting { .. } => SessionState::Waiting,
        State::Running => SessionState::Running,
        State::Interrupted { .. } => SessionState::Interrupted,
        State::Finished => SessionState::Finished,
        State::Failed(_) if session.holds_source_sockets() => SessionState::Held,
        State::Failed(_) => SessionState::Failed,
    };
    if let State::Failed(reason) = session.state() {
        let (code, message) = (reason.code.name().to_owned(), reason.text.clone());
        record.reason = Some(api::Reason { code, message });
    }
    let (open, ever) = session.streams();
    (record.streams.open, record.streams.ever) = (u32::try_from(open).unwrap_or(u32::MAX), ever);

    let source = record.role == Role::Source;
    let (out, back) = match source {
        true => (ConnectionDirection::Forward, ConnectionDirection::Return),
        false => (ConnectionDirection::Return, ConnectionDirection::Forward),
    };
    record.connections.clear();
    for sending in session.outbound().states() {
        if let Some(round_trip) = sending.round_trip.filter(|_| source) {
            record.rtt_us = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
            record.rate_bytes_per_s = sending.rate.unwrap_or(0);
            record.window_bytes = sending.window;
        }
        record.connections.push(ConnectionRecord {
            connection: u32::from(sending.connection),
            label: session.label(sending.connection).to_owned(),
            direction: out,
            position: sending.position,
            verified: sending.verified,
            consumed: sending.consumed,
            digest: sending.digest.map(Digest),
            ended: sending.ended,
        });
    }
    for receiving in session.inbound().states() {
        record.connections.push(ConnectionRecord {
            connection: u32::from(receiving.connection),
            label: session.label(receiving.connection).to_owned(),
            direction: back,
            position: receiving.verified,
            verified: receiving.verified,
            consumed: receiving.consumed,
            digest: receiving.digest.map(Digest),
            ended: receiving.ended,
        });
    }
    let bytes = session.outbound().bytes();
    record.encoded_bytes = bytes.encoded;
    record.wire_bytes_sent = bytes.wire;
    record.repeated_bytes = bytes.repeated;
    record.wire_bytes_received = session.received_bytes();
    record.codec = CodecBytes {
        raw: bytes.raw,
        lz4: bytes.lz4,
        zstd: bytes.zstd,
        unchanged: bytes.unchanged,
        delta: bytes.delta,
        uniform: bytes.uniform,
        known: bytes.known,
    };
    record.codec_times = CodecTimes {
        memory_us: bytes.time.memory_ns / 1000,
        raw_us: bytes.time.raw_ns / 1000,
        lz4_us: bytes.time.lz4_ns / 1000,
        zstd_us: bytes.time.zstd_ns / 1000,
    };
    let (held, agreed) = session.remembered_bytes();
    record.delta_memory = DeltaMemory { held, agreed };
    let (held, most) = session.inbound().content_bytes();
    // A destination asks, a source answers.
    let repaired_pages = bytes.repaired_pages.max(session.inbound().asked_pages());
    record.content = ContentRecord { held, most, repaired_pages, repair_bytes: bytes.repair };
    record.guest_bytes = record
        .connections
        .iter()
        .filter(|connection| connection.direction == ConnectionDirection::Forward)
        .map(|connection| connection.position)
        .sum();
    if let Some(progress) = session.outbound().migration_progress() {
        record.phase = match (progress.kind, progress.phase) {
            (StreamKind::Opaque, _) => api::Phase::Opaque,
            (_, StreamPhase::Setup) => api::Phase::Setup,
            (_, StreamPhase::Precopy) => api::Phase::Precopy,
            (_, StreamPhase::Switchover) => api::Phase::Switchover,
            (_, StreamPhase::Postcopy) => api::Phase::Postcopy,
            (_, StreamPhase::Ended) => api::Phase::Ended,
        };
        record.iteration = u64::from(progress.iterations);
        record.pages = progress.pages.saturating_add(progress.zero_pages);
        record.zero_pages = progress.zero_pages;
        record.ram_total_bytes = progress.ram_total_bytes;
    }
    record.digest_equal = session.digest_equal();
    let now = Timestamp::now();
    record.elapsed_ms = now.unix_ms().saturating_sub(record.opened_at.unix_ms());
    if record.state.is_ended() {
        record.ended_at = Some(now);
        record.phase = if record.state == SessionState::Finished { api::Phase::Ended } else { record.phase };
    }
}

/// The name under which people know a session.
pub(crate) fn name(session: u64) -> SessionId {
    SessionId(session)
}
