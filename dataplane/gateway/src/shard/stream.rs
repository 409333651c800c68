//! Serving one stream: frames out as it has room, frames in to their sessions.

use super::load::Load;
use super::peer::{Peer, Stream};
use super::{Shard, follow};
use crate::clock;
use crate::record;
use crate::registry::Known;
use bytes::Bytes;
use novacron_protocol::session::Ends;
use novacron_protocol::wire::{FRAME_HEADER_BYTES, FrameHeader, Kind, Open, Reason, ReasonCode};
use novacron_transport::contract::{CloseReason, Event, Refused, Transport};
use novacron_transport::limits::{STREAM_LOOK, STREAM_LOOK_MIN};
use novacron_transport::shard::{sleep, yield_now};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

/// After this many bytes received in a row, whoever takes them gets a turn, while they are still in the cache.
const RECEIVE_TURN_BYTES: usize = 128 * 1024;

/// So often a stream is filled and emptied before others of the shard get a turn.
const FILLS_PER_POLL_MAX: usize = 8;

/// Serves a stream until it dies.
pub(super) async fn serve<T: Transport>(
    shard: &Rc<Shard>,
    peer: &Rc<Peer>,
    stream: &Rc<Stream>,
    mut transport: T,
) {
    shard.stream_follows(peer, stream, stream.address);
    peer.stream_opened(stream);
    let reason = exchange(shard, peer, stream, &mut transport).await;
    match reason {
        CloseReason::Oversize(_) => shard.refusals.count("oversize"),
        CloseReason::Damaged => shard.refusals.count("damaged"),
        _ => {}
    }
    tracing::debug!(peer = %peer.name, stream = stream.id.0, %reason, "stream closed");
    peer.stream_lost(stream.id);
}

async fn exchange<T: Transport>(
    shard: &Rc<Shard>,
    peer: &Rc<Peer>,
    stream: &Rc<Stream>,
    transport: &mut T,
) -> CloseReason {
    let mut received_bytes = 0;
    let mut woken = Box::pin(stream.wake.notified());
    let mut look: Option<Pin<Box<dyn Future<Output = ()>>>> = None;
    loop {
        let event = poll_fn(|cx| {
            for _ in 0..FILLS_PER_POLL_MAX {
                if stream.closing.get() {
                    transport.finish();
                    return Poll::Ready(Event::Closed(CloseReason::Local));
                }
                follow::apply(stream, transport);
                let filled = fill(peer, stream, transport);
                if stream.retiring.get()
                    && stream.under_way.borrow().is_empty()
                    && transport.queued_bytes() == 0
                {
                    transport.finish();
                    return Poll::Ready(Event::Closed(CloseReason::Local));
                }
                if let Poll::Ready(event) = transport.poll(cx) {
                    return Poll::Ready(event);
                }
                // What filled it has left: nobody else would say that there is room again.
                if filled && has_room(stream, transport) {
                    continue;
                }
                if woken.as_mut().poll(cx).is_ready() {
                    woken.set(stream.wake.notified());
                    continue;
                }
                // What a stream that carries nothing was asked to change is to be seen as well.
                let looks = stream.congestion_asked.get().is_some() || !stream.under_way.borrow().is_empty();
                if look.is_none() && looks {
                    let (least, most) = STREAM_LOOK;
                    let wait = (stream.load.get().round_trip / 8).clamp(least, most);
                    look = Some(Box::pin(sleep(wait)));
                }
                if look.as_mut().is_some_and(|look| look.as_mut().poll(cx).is_ready()) {
                    look = None;
                    continue;
                }
                return Poll::Pending;
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
        match event {
            Event::Received(frame) => {
                received_bytes += frame.len();
                peer.count_arrived(frame.len() as u64);
                stream.fruitless.set(None);
                if let Err(reason) = dispatch(shard, peer, stream, frame) {
                    transport.close();
                    return reason;
                }
                if received_bytes >= RECEIVE_TURN_BYTES {
                    received_bytes = 0;
                    yield_now().await;
                }
            }
            Event::Writable { .. } => {}
            Event::Closed(reason) => return reason,
        }
    }
}

fn has_room<T: Transport>(stream: &Stream, transport: &T) -> bool {
    transport.queued_bytes() < stream.load.get().queue_bound()
}

/// Looks how the stream stands: what of it has arrived, and how much its path takes.
fn look_at<T: Transport>(peer: &Peer, stream: &Stream, transport: &mut T) {
    let now = clock::now();
    if now.since(stream.looked_at.get()) < STREAM_LOOK_MIN {
        return;
    }
    stream.looked_at.set(now);
    follow::see_what_came_of_it(peer, stream, transport);
    let Some(flow) = transport.flow() else { return };
    let load = Load::new(&flow, now);
    stream.load.set(load);
    transport.bound_unsent(load.unsent_bound());
    peer.arrived(stream, &load);
}

/// Hands frames to the transport while it has room and no other stream would deliver them sooner. Frames that stay behind may
/// take another stream. True: it has no more room.
fn fill<T: Transport>(peer: &Peer, stream: &Stream, transport: &mut T) -> bool {
    look_at(peer, stream, transport);
    stream.idle.set(false);
    if stream.retiring.get() {
        return false;
    }
    // Whoever was chosen takes one frame in any case: two streams could leave it to each other for ever.
    let mut chosen = stream.chosen.replace(false);
    let mut full = true;
    while has_room(stream, transport) {
        if !std::mem::replace(&mut chosen, false) && peer.has_frames() && peer.sooner_than(stream) {
            peer.wake_streams();
            stream.idle.set(true);
            return false;
        }
        let Some(frame) = peer.next_frame(stream) else {
            stream.idle.set(true);
            full = false;
            break;
        };
        stream.load.set(stream.load.get().given(frame.len()));
        stream.under_way.borrow_mut().given(&frame);
        match transport.submit(frame) {
            Ok(()) => {}
            // The session keeps the frame until it is verified, and sends it again when this stream is lost.
            Err(refused @ (Refused::Malformed { .. } | Refused::Oversize { .. } | Refused::Full { .. })) => {
                tracing::error!(peer = %peer.name, error = %refused, "a frame was refused by its own transport");
                transport.close();
                return false;
            }
            Err(Refused::Closed { .. }) => return false,
        }
    }
    peer.wake_streams_after(stream);
    full
}

/// Takes a frame to its session. An error: what came is no frame, and nothing after it can be trusted.
fn dispatch(shard: &Rc<Shard>, peer: &Rc<Peer>, stream: &Stream, frame: Bytes) -> Result<(), CloseReason> {
    let header = FrameHeader::read(&frame).map_err(|error| {
        shard.refusals.count("unreadable");
        tracing::warn!(peer = %peer.name, %error, "stream closed: its frames cannot be read; sessions go on elsewhere");
        CloseReason::Io { kind: std::io::ErrorKind::InvalidData, detail: error.to_string() }
    })?;
    let running = match shard.session(header.session) {
        Some(running) if Rc::ptr_eq(&running.peer, peer) => Some(running),
        Some(_) => None,
        None if header.kind == Kind::Open => {
            let opening = Open::read(&frame[FRAME_HEADER_BYTES..]).map_err(Reason::from);
            let begun = opening
                .and_then(|opening| shard.begin_expected(header.session, &opening, stream, peer).transpose());
            match begun {
                Ok(begun) => begun,
                Err(reason) => {
                    let session = record::name(header.session);
                    tracing::warn!(%session, peer = %peer.name, %reason, "a session was not opened");
                    stream.answer(reason.to_frame(Kind::Refuse, header.session, header.epoch));
                    return Ok(());
                }
            }
        }
        None => None,
    };
    match running {
        Some(running) => running.receive(stream.id, header, shard.settled(frame)),
        None if matches!(header.kind, Kind::Refuse | Kind::Fail | Kind::Accept) => {}
        None => stream.answer(unknown(shard, &header, &stream.ends)),
    }
    Ok(())
}

fn unknown(shard: &Shard, header: &FrameHeader, ends: &Ends) -> Bytes {
    let (known, witness) = shard.registry.known(header.session);
    let reason = match known {
        Known::Finished => Reason::new(ReasonCode::Finished, "the session has finished here"),
        // This answer may overtake, on its stream, the `Fail` that went out on another: it says the same.
        Known::Failed(reason) => {
            let (code, why) = reason.map_or_else(Default::default, |reason| (reason.code, reason.message));
            let code = ReasonCode::from_name(&code).unwrap_or(ReasonCode::SessionUnknown);
            Reason::new(code, format!("the session has ended here: {why}"))
        }
        Known::Never => {
            let text = "no such session was announced at this gateway, or it restarted and has forgotten it";
            Reason::new(ReasonCode::SessionUnknown, text)
        }
    };
    match witness {
        Some(witness) => witness.last_word(Kind::Refuse, &reason, ends),
        None => reason.to_frame(Kind::Refuse, header.session, header.epoch),
    }
}
