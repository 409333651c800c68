//! A session's own task: its timers, its listener or its connecting, its record.

use super::connection::{self, Connection};
use super::running::Running;
use super::{Shard, transport_address};
use crate::clock;
use crate::limits::{DIAL_TIMEOUT, LAST_WORD_WAIT, PUBLISH_INTERVAL};
use crate::record;
use novacron_control_api::{Endpoint, SessionSide};
use novacron_protocol::wire::{Reason, ReasonCode};
use novacron_transport::shard::{race, sleep, spawn, timeout};
use novacron_transport::{HypervisorStream, Listener, SocketOptions};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Shortest sleep of a session's timer: deadlines are milliseconds, not microseconds.
const TIMER_MIN: Duration = Duration::from_micros(500);

/// Runs a session to its end.
pub(super) async fn run(shard: Rc<Shard>, running: Rc<Running>) {
    let mut published = Instant::now();
    while !running.over.get() {
        let wake = running.wake.notified();
        connect_what_was_opened(&shard, &running);
        running.tick();
        if published.elapsed() >= PUBLISH_INTERVAL {
            published = Instant::now();
            shard.registry.publish(running.record());
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
    shard.registry.end(running.record());
    running.answer_failed();
}

/// Takes a source's hypervisor connections on `listener` until the session is over.
pub(super) async fn accept(shard: Rc<Shard>, running: Rc<Running>, listener: Listener, wait: Duration) {
    loop {
        let accepted = {
            let next = race(listener.accept(), running.ended_notice.notified());
            if running.over.get() {
                return;
            }
            if running.connection_count() == 0 {
                match timeout(wait, next).await {
                    Some(accepted) => accepted,
                    None => {
                        let text = format!(
                            "no hypervisor connected to {} within {} ms",
                            listener.address(),
                            wait.as_millis()
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
        let session = record::name(running.id);
        match running.open_connection("migration") {
            Ok(id) => match HypervisorStream::attach(socket, &SocketOptions::for_hypervisors()) {
                Ok(stream) => {
                    tracing::info!(%session, connection = id, from = %stream.peer(), "hypervisor connected");
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
            Err(reason) => tracing::warn!(%session, %reason, "a hypervisor's connection was refused"),
        }
    }
}

/// Connects to the destination's hypervisor for each connection that the source's side opened.
fn connect_what_was_opened(shard: &Rc<Shard>, running: &Rc<Running>) {
    let ids: Vec<u16> = std::mem::take(&mut *running.to_connect.borrow_mut());
    let SessionSide::Destination { connect } = &running.side else { return };
    for id in ids {
        let (shard, running, connect) = (Rc::clone(shard), Rc::clone(running), connect.clone());
        spawn(async move { connect_one(&shard, &running, id, &connect).await }).detach();
    }
}

async fn connect_one(shard: &Rc<Shard>, running: &Rc<Running>, id: u16, connect: &Endpoint) {
    let session = record::name(running.id);
    let connected = match transport_address(connect) {
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
            tracing::info!(%session, connection = id, to = %connect, "connected to the destination's hypervisor");
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
