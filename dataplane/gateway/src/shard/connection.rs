//! One hypervisor socket: what is read goes to the session, what is verified is written.

use super::running::Running;
use crate::limits::SHARE_LOOK_INTERVAL;
use bytes::Bytes;
use novacron_protocol::limits::BATCH_BYTES_MAX;
use novacron_protocol::stream::{BatchBuffer, INGEST_HEADROOM};
use novacron_protocol::wire::{Reason, ReasonCode};
use novacron_transport::shard::{Either, Notify, race, sleep, spawn, yield_if_needed};
use novacron_transport::{FrameBuffer, FramePool, HypervisorStream};
use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

/// Verified batches that one write may gather.
const WRITE_BATCHES_MAX: usize = 16;

/// A read of fewer bytes than this probably took everything that was there.
const DRAINED_BELOW_BYTES: usize = 32 * 1024;

/// How often a socket that is held for its source is looked at.
const HELD_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// What wakes a connection's two tasks.
pub(crate) struct Connection {
    pub(super) id: u16,
    pub(super) readable: Notify,
    pub(super) writable: Notify,
    pub(super) over: Notify,
    /// Tasks that still use the socket.
    tasks: Cell<u8>,
}

impl Connection {
    pub(super) fn new(id: u16) -> Rc<Connection> {
        let (readable, writable, over) = (Notify::new(), Notify::new(), Notify::new());
        Rc::new(Connection { id, readable, writable, over, tasks: Cell::new(2) })
    }
}

/// A pool's buffer, as the protocol wants it.
struct Ingress(FrameBuffer);

impl BatchBuffer for Ingress {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
    fn freeze(self) -> Bytes {
        self.0.freeze()
    }
}

/// Serves a connection's socket in both directions until the session is over or both directions have ended.
pub(super) fn serve(
    running: &Rc<Running>,
    connection: &Rc<Connection>,
    socket: HypervisorStream,
    pool: &FramePool,
) {
    let socket = Rc::new(socket);
    let (r, c, s, p) = (Rc::clone(running), Rc::clone(connection), Rc::clone(&socket), pool.clone());
    spawn(async move {
        ingress(&r, &c, &s, &p).await;
        done(&r, &c, &s).await;
    })
    .detach();
    let (r, c) = (Rc::clone(running), Rc::clone(connection));
    spawn(async move {
        egress(&r, &c, &socket).await;
        done(&r, &c, &socket).await;
    })
    .detach();
}

/// One of the two tasks is done. Dropping the socket closes it; where the source's socket must be held, the last
/// task keeps it until somebody decides, or until the source itself has closed it.
async fn done(running: &Rc<Running>, connection: &Rc<Connection>, socket: &Rc<HypervisorStream>) {
    connection.tasks.set(connection.tasks.get().saturating_sub(1));
    if connection.tasks.get() > 0 {
        return;
    }
    while running.is_held() {
        let over = connection.over.notified();
        if let Either::Right(()) = race(over, sleep(HELD_LOOK_INTERVAL)).await
            && socket.is_closed_by_peer()
        {
            tracing::info!(connection = connection.id, "the source closed the socket that was held for it");
            running.release();
            return;
        }
    }
}

/// Hypervisor to session. Reads as much as credit and window allow, and no more.
async fn ingress(
    running: &Rc<Running>,
    connection: &Connection,
    socket: &HypervisorStream,
    pool: &FramePool,
) {
    let id = connection.id;
    // The last read took everything that was there.
    let mut drained = true;
    loop {
        let writable = connection.writable.notified();
        if running.over.get() {
            return;
        }
        let budget = running.read_budget(id);
        if budget == 0 {
            writable.await;
            continue;
        }
        if running.share_is_spent() {
            // Whatever frees memory may be another session's, which does not wake this one.
            race(writable, sleep(SHARE_LOOK_INTERVAL)).await;
            continue;
        }
        // Nothing is taken from the pool for a connection that has nothing to say.
        if drained && matches!(race(socket.readable(), connection.over.notified()).await, Either::Right(())) {
            return;
        }
        let mut buffer = pool.alloc_when_free(INGEST_HEADROOM + budget.min(BATCH_BYTES_MAX)).await;
        let range = INGEST_HEADROOM..buffer.len();
        let wanted = range.len();
        // Looks, and waits without the buffer: memory is not for those who have nothing to say.
        let Either::Left(read) = race(socket.read(&mut buffer, range), std::future::ready(())).await else {
            drained = true;
            continue;
        };
        match read {
            Ok(0) => {
                running.ingest_end(id);
                return;
            }
            Ok(mut count) => {
                // A unix socket gives no more at once than its writer's buffer held. What else is there comes along: a
                // full batch costs less to hash, to send and to acknowledge than two parts of one.
                drained = count < wanted.min(DRAINED_BELOW_BYTES);
                while !drained && count < wanted {
                    let rest = INGEST_HEADROOM + count..INGEST_HEADROOM + wanted;
                    match race(socket.read(&mut buffer, rest), std::future::ready(())).await {
                        Either::Left(Ok(more)) if more > 0 => count += more,
                        // An end or an error is met again by the next read.
                        _ => drained = true,
                    }
                }
                running.ingest(id, Ingress(buffer), count);
            }
            Err(error) => {
                if !running.over.get() {
                    let (code, text) = lost(running, &error);
                    running.fail(Reason::new(code, text));
                }
                return;
            }
        }
        yield_if_needed().await;
    }
}

/// Session to hypervisor. Credit returns when the socket has taken the bytes, not before.
async fn egress(running: &Rc<Running>, connection: &Connection, socket: &HypervisorStream) {
    let id = connection.id;
    let mut batches: VecDeque<Bytes> = VecDeque::with_capacity(WRITE_BATCHES_MAX);
    loop {
        let readable = connection.readable.notified();
        if running.over.get() {
            return;
        }
        while batches.len() < WRITE_BATCHES_MAX {
            let Some(batch) = running.next_output(id) else { break };
            batches.push_back(batch);
        }
        if batches.is_empty() {
            if running.output_ended(id) {
                // The peer may have closed already; its reading side then has nothing left to hear.
                let _ = socket.shutdown_write();
                return;
            }
            readable.await;
            continue;
        }
        let write = poll_fn(|cx| socket.poll_write_some(cx, &mut batches));
        match race(write, connection.over.notified()).await {
            Either::Left(Ok(written)) => running.consumed(id, written as u64),
            Either::Left(Err(error)) => {
                if !running.over.get() {
                    let (code, text) = lost(running, &error);
                    running.fail(Reason::new(code, text));
                }
                return;
            }
            // A finished session has handed everything over; a failed one writes no more.
            Either::Right(()) if running.over.get() => return,
            Either::Right(()) => {}
        }
        yield_if_needed().await;
    }
}

/// A hypervisor's socket failed: which one that was, from this side.
fn lost(running: &Running, error: &std::io::Error) -> (ReasonCode, String) {
    match running.side {
        novacron_control_api::SessionSide::Source { .. } => {
            (ReasonCode::SourceLost, format!("the source hypervisor's socket failed: {error}"))
        }
        novacron_control_api::SessionSide::Destination { .. } => {
            (ReasonCode::DestinationLost, format!("the destination hypervisor's socket failed: {error}"))
        }
    }
}
