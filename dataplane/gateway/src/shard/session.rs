//! A session's own task: its timers, its listener or its connecting, its record.

use super::connection::{self, Connection};
use super::idle::Idle;
use super::running::Running;
use super::{Shard, transport_address};
use crate::clock;
use crate::limits::{DIAL_TIMEOUT, LAST_WORD_WAIT, PUBLISH_INTERVAL};
use crate::record;
use novacron_control_api::{Endpoint, Origin};
use novacron_protocol::session::MIGRATION;
use novacron_protocol::wire::{Reason, ReasonCode};
use novacron_transport::shard::{race, sleep, spawn, timeout, yield_now};
use novacron_transport::{Address, HypervisorStream, Listener, Peer, SocketOptions};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Shortest sleep of a session's timer: deadlines are milliseconds, not microseconds.
const TIMER_MIN: Duration = Duration::from_micros(500);

/// Runs a session to its end.
pub(super) async fn run(shard: Rc<Shard>, running: Rc<Running>) {
    let mut published = Instant::now();
    let mut idle = Idle::new();
    while !running.over.get() {
        let wake = running.wake.notified();
        connect_what_was_opened(&shard, &running);
        running.tick();
        if published.elapsed() >= PUBLISH_INTERVAL {
            published = Instant::now();
            let record = running.record();
            if let Some(reason) = running.idle_timeout.and_then(|limit| idle.over(&record, limit)) {
                running.fail(reason);
                continue;
            }
            shard.registry.publish(record);
        }
        let deadline = running.plan().map_or(PUBLISH_INTERVAL, |at| at.since(clock::now()));
        race(wake, sleep(deadline.clamp(TIMER_MIN, PUBLISH_INTERVAL))).await;
    }
    // The last acknowledgement, or the reason of a failure, is to reach the peer before this side forgets.
    let since = Instant::now();
    // Without a stream there is nobody to tell.
    while running.has_frames() && running.peer.stream_count() > 0 && since.elapsed() < LAST_WORD_WAIT {
        running.peer.wake_streams();
        sleep(Duration::from_millis(5)).await;
    }
    if running.is_held() {
        let session = record::name(running.id);
        tracing::warn!(
            %session,
            "the session failed after the last byte may have been delivered, and the destination may start by itself: \
             the source's sockets are held open until the source closes them or `session.release` is called"
        );
        shard.registry.publish(running.record());
        while running.is_held() {
            running.wake.notified().await;
        }
    }
    shard.forget(&running);
    shard.registry.end(running.record(), Some(running.witness()));
    running.answer_failed();
}

/// Listens for hypervisors.
pub(super) async fn bind(endpoint: &Endpoint) -> Result<Listener, String> {
    let address = transport_address(endpoint)?;
    Listener::bind(&address).await.map_err(|error| error.to_string())
}

/// Where hypervisors come in: one for each label of a session.
pub(super) struct Door {
    pub(super) label: String,
    pub(super) listener: Listener,
    /// Who may come in.
    pub(super) from: Vec<Origin>,
    /// How long the session waits for its first connection.
    pub(super) wait: Duration,
}

impl Door {
    /// Whether who connected may. Origins bind listeners of their kind: addresses TCP, users unix sockets.
    fn admits(&self, peer: &Peer) -> bool {
        let tcp = matches!(self.listener.address(), Address::Tcp { .. });
        let mut named =
            self.from.iter().filter(|origin| matches!(origin, Origin::Address(_)) == tcp).peekable();
        if named.peek().is_none() {
            return true;
        }
        named.any(|origin| match peer {
            Peer::Tcp(address) => origin.is_address(address.ip()),
            Peer::Unix { uid, .. } => origin.is_user(*uid),
            Peer::Unknown => false,
        })
    }
}

/// Takes a source's hypervisor connections until the session is over.
pub(super) async fn accept(shard: Rc<Shard>, running: Rc<Running>, door: Door) {
    loop {
        let accepted = {
            let next = race(door.listener.accept(), running.ended_notice.notified());
            if running.over.get() {
                return;
            }
            // A migration may follow its disks by hours: whichever connection comes first ends the wait.
            if door.label == MIGRATION && running.connection_count() == 0 {
                match timeout(door.wait, next).await {
                    Some(accepted) => accepted,
                    None if running.connection_count() > 0 => continue,
                    None => {
                        let text = format!(
                            "no hypervisor connected to {} within {} ms",
                            door.listener.address(),
                            door.wait.as_millis()
                        );
                        running.fail(Reason::new(ReasonCode::Timeout, text));
                        return;
                    }
                }
            } else {
                next.await
            }
        };
        let Some(accepted) = accepted.left() else { return };
        let socket = match accepted {
            Ok(socket) => socket,
            Err(error) => {
                running.fail(Reason::new(
                    ReasonCode::SourceLost,
                    format!("no connection can be accepted: {error}"),
                ));
                return;
            }
        };
        let from = socket.peer();
        if !door.admits(&from) {
            let named: Vec<_> = door.from.iter().map(ToString::to_string).collect();
            refused(&running, &door, &from, &format!("only {} may connect", named.join(" ")));
            continue;
        }
        let session = record::name(running.id);
        match running.open_connection(&door.label) {
            Ok(id) => match HypervisorStream::attach(socket, &SocketOptions::for_hypervisors()) {
                Ok(stream) => {
                    tracing::info!(%session, connection = id, label = %door.label, %from, "hypervisor connected");
                    let connection = Connection::new(id);
                    running.add_connection(Rc::clone(&connection));
                    connection::serve(&running, &connection, stream, &shard.pool);
                }
                Err(error) => {
                    running.fail(Reason::new(
                        ReasonCode::SourceLost,
                        format!("a connection cannot be served: {error}"),
                    ));
                    return;
                }
            },
            // The socket closes here: the hypervisor that opens one too many learns it at once.
            Err(reason) => refused(&running, &door, &from, &reason.to_string()),
        }
        // Whoever connects without end gets its turn after the others of this shard.
        yield_now().await;
    }
}

/// Counts a connection that is turned away, and says so: the first, and then ever more rarely, so that who comes without
/// end does not fill the log.
fn refused(running: &Running, door: &Door, from: &Peer, why: &str) {
    let count = running.count_refused();
    if count.is_power_of_two() {
        let (session, at) = (record::name(running.id), door.listener.address());
        tracing::warn!(%session, %from, %at, label = %door.label, count, why, "a connection was refused");
    }
}

/// Connects to the destination's hypervisor for each connection that the source's side opened: one after the other, since
/// QEMU tells a preempt channel, which says nothing, from its main one by their order (DWCP-45).
fn connect_what_was_opened(shard: &Rc<Shard>, running: &Rc<Running>) {
    if running.to_connect.borrow().is_empty() || running.connecting.replace(true) {
        return;
    }
    let (shard, running) = (Rc::clone(shard), Rc::clone(running));
    spawn(async move {
        while !running.over.get() {
            let Some((id, label)) = running.to_connect.borrow_mut().pop_front() else { break };
            connect_one(&shard, &running, id, &label).await;
        }
        running.connecting.set(false);
    })
    .detach();
}

async fn connect_one(shard: &Rc<Shard>, running: &Rc<Running>, id: u16, label: &str) {
    let session = record::name(running.id);
    // Only where this side's own caller said, never where the peer says (DWCP-46).
    let Some(connect) = running.connect_to(label) else {
        let text = format!(
            "the source's side opened a connection '{label}', and the session names no such label here"
        );
        return running.fail(Reason::new(ReasonCode::DestinationLost, text));
    };
    let connected = match transport_address(&connect) {
        Ok(address) => match novacron_transport::connect(&address, DIAL_TIMEOUT).await {
            Ok(socket) => {
                HypervisorStream::attach(socket, &SocketOptions::for_hypervisors()).map_err(|e| e.to_string())
            }
            Err(error) => Err(error.to_string()),
        },
        Err(error) => Err(error),
    };
    match connected {
        Ok(_) if running.over.get() => {}
        Ok(stream) => {
            tracing::info!(%session, connection = id, label, to = %connect, "connected to the destination's hypervisor");
            let connection = Connection::new(id);
            running.add_connection(Rc::clone(&connection));
            connection::serve(running, &connection, stream, &shard.pool);
            // Bytes may have been verified while the connection was made.
            connection.readable.notify();
        }
        Err(error) => {
            let text = format!("the destination's hypervisor cannot be reached at {connect}: {error}");
            running.fail(Reason::new(ReasonCode::DestinationLost, text));
        }
    }
}
