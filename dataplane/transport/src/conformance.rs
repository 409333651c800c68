//! The transport contract as tests. A transport's own tests call [`run_all`] with a way to make connected pairs; each
//! case panics with what was broken.

use crate::contract::{CloseReason, Event, Refused, Transport};
use crate::limits::FRAME_HEADER_BYTES;
use bytes::Bytes;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;

/// What the suite needs to know about the pairs.
#[derive(Debug, Clone, Copy)]
pub struct Expect {
    /// Largest payload that both sides are configured for, bytes.
    pub payload_bytes_max: usize,
    /// Most bytes that the sender may queue.
    pub queue_bytes_max: usize,
    /// Most frames that the sender may queue.
    pub queue_frames_max: usize,
    /// Bytes that network and kernels may hold beyond the sender's queue, in both kernels together.
    pub network_bytes_max: usize,
}

/// A frame whose header carries the right length and whose payload follows from `seed`.
pub fn frame(payload_bytes: usize, seed: u64) -> Bytes {
    let mut bytes = vec![0u8; FRAME_HEADER_BYTES + payload_bytes];
    bytes[..4].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for chunk in bytes[4..].chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    Bytes::from(bytes)
}

/// Every case, each on a fresh pair from `connect`, which returns (sender, receiver).
pub async fn run_all<T: Transport>(expect: Expect, mut connect: impl AsyncFnMut() -> (T, T)) {
    assert!(T::CAPS.reliable && T::CAPS.ordered, "what is neither reliable nor ordered is no Transport");
    assert!(FRAME_HEADER_BYTES + expect.payload_bytes_max <= T::CAPS.frame_bytes_max);
    let (a, b) = connect().await;
    frames_arrive_whole_and_in_order(expect, a, b).await;
    let (a, b) = connect().await;
    both_directions_at_once(expect, a, b).await;
    let (a, b) = connect().await;
    a_reader_that_does_not_read_stops_the_writer(expect, a, b).await;
    let (a, b) = connect().await;
    what_cannot_be_sent_is_refused_and_comes_back(expect, a).await;
    drop(b);
    let (a, b) = connect().await;
    finish_delivers_everything_first(expect, a, b).await;
    let (a, b) = connect().await;
    a_death_is_reported_and_stays(a, b).await;
    let (a, b) = connect().await;
    closing_is_immediate(a, b).await;
    let (a, _b) = connect().await;
    alloc_gives_memory_for_the_largest_frame(expect, a);
}

/// Moves both sides until `sender` has submitted `frames` and `receiver` has received `count`; returns what came.
async fn transfer<T: Transport>(
    sender: &mut T,
    receiver: &mut T,
    frames: Vec<Bytes>,
    expect: Expect,
) -> Vec<Bytes> {
    let count = frames.len();
    let mut left: VecDeque<Bytes> = frames.into();
    let mut received = Vec::with_capacity(count);
    poll_fn(|cx| {
        // Bounded turns, so that a transport that never pends cannot hold the executor.
        for _ in 0..64 {
            while let Some(next) = left.pop_front() {
                assert!(sender.queued_bytes() <= expect.queue_bytes_max);
                match sender.submit(next) {
                    Ok(()) => {}
                    Err(Refused::Full { frame, queued_bytes }) => {
                        assert!(queued_bytes > 0, "an empty queue refused a frame of {}", frame.len());
                        left.push_front(frame);
                        break;
                    }
                    Err(other) => panic!("refused: {other}"),
                }
            }
            let sending = sender.poll(cx);
            match &sending {
                Poll::Ready(Event::Writable { queued_bytes }) => {
                    assert!(*queued_bytes <= expect.queue_bytes_max)
                }
                Poll::Ready(other) => panic!("the sender saw {other:?}"),
                Poll::Pending => {}
            }
            match receiver.poll(cx) {
                Poll::Ready(Event::Received(bytes)) => received.push(bytes),
                Poll::Ready(other) => {
                    panic!("the receiver saw {other:?} after {} of {count}", received.len())
                }
                Poll::Pending if sending.is_pending() && (left.is_empty() || sender.queued_bytes() > 0) => {
                    if received.len() == count && left.is_empty() {
                        return Poll::Ready(());
                    }
                    return Poll::Pending;
                }
                Poll::Pending => {}
            }
            if received.len() == count && left.is_empty() {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    received
}

fn sizes(max: usize) -> Vec<usize> {
    let mut sizes =
        vec![0, 1, 31, 32, 33, 991, 992, 993, 4063, 4064, 4065, 65_503, 65_504, 65_536, max - 1, max];
    sizes.retain(|s| *s <= max);
    sizes
}

async fn frames_arrive_whole_and_in_order<T: Transport>(expect: Expect, mut a: T, mut b: T) {
    // Every size after every other, so that each boundary falls at each place of a receive.
    let sizes = sizes(expect.payload_bytes_max);
    let mut sent = Vec::new();
    for &first in &sizes {
        for &second in &sizes {
            sent.push(frame(first, sent.len() as u64));
            sent.push(frame(second, sent.len() as u64));
        }
    }
    let received = transfer(&mut a, &mut b, sent.clone(), expect).await;
    assert_eq!(received.len(), sent.len());
    for (n, (received, sent)) in received.iter().zip(&sent).enumerate() {
        assert!(
            received == sent,
            "frame {n} of {} bytes arrived as {} other bytes",
            sent.len(),
            received.len()
        );
    }
}

async fn both_directions_at_once<T: Transport>(expect: Expect, mut a: T, mut b: T) {
    let size = expect.payload_bytes_max;
    let total = 2 * (expect.network_bytes_max / size + 4);
    let (mut sent, mut received) = ([0usize; 2], [0usize; 2]);
    poll_fn(|cx| {
        for _ in 0..64 {
            let mut quiet = true;
            for (side, transport) in [&mut a, &mut b].into_iter().enumerate() {
                while sent[side] < total {
                    match transport.submit(frame(size, (sent[side] * 2 + side) as u64)) {
                        Ok(()) => sent[side] += 1,
                        Err(Refused::Full { .. }) => break,
                        Err(other) => panic!("refused: {other}"),
                    }
                }
                match transport.poll(cx) {
                    Poll::Ready(Event::Received(bytes)) => {
                        assert!(bytes == frame(size, (received[side] * 2 + 1 - side) as u64));
                        received[side] += 1;
                        quiet = false;
                    }
                    Poll::Ready(Event::Writable { .. }) => quiet = false,
                    Poll::Ready(other) => panic!("{other:?}"),
                    Poll::Pending => {}
                }
            }
            if received == [total; 2] {
                return Poll::Ready(());
            }
            if quiet {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn a_reader_that_does_not_read_stops_the_writer<T: Transport>(expect: Expect, mut a: T, mut b: T) {
    let size = expect.payload_bytes_max.min(16 * 1024);
    let bound = expect.queue_bytes_max + expect.network_bytes_max;
    let (mut accepted, mut quiet_turns) = (0usize, 0);
    // Quiet for many turns in a row: the network has taken what it can.
    while quiet_turns < 200 {
        let mut progress = false;
        loop {
            match a.submit(frame(size, accepted as u64)) {
                Ok(()) => {
                    accepted += 1;
                    progress = true;
                }
                Err(Refused::Full { queued_bytes, .. }) => {
                    assert_eq!(queued_bytes, a.queued_bytes());
                    break;
                }
                Err(other) => panic!("refused: {other}"),
            }
            assert!(a.queued_bytes() <= expect.queue_bytes_max, "the queue exceeds its bound");
            assert!(accepted * size <= bound, "{accepted} frames accepted and nobody reads");
        }
        let polled = poll_fn(|cx| Poll::Ready(a.poll(cx))).await;
        assert!(
            matches!(polled, Poll::Pending | Poll::Ready(Event::Writable { .. })),
            "the writer saw {polled:?}"
        );
        quiet_turns = if progress { 0 } else { quiet_turns + 1 };
        pause().await;
    }
    // Once somebody reads, every accepted frame arrives and the writer is told of room.
    let (mut received, mut writable) = (0, false);
    poll_fn(|cx| {
        for _ in 0..64 {
            let sending = a.poll(cx);
            match &sending {
                Poll::Ready(Event::Writable { .. }) => writable = true,
                Poll::Ready(other) => panic!("{other:?}"),
                Poll::Pending => {}
            }
            match b.poll(cx) {
                Poll::Ready(Event::Received(bytes)) => {
                    assert!(bytes == frame(size, received as u64), "frame {received} differs");
                    received += 1;
                }
                Poll::Ready(other) => panic!("{other:?}"),
                Poll::Pending if sending.is_pending() => return Poll::Pending,
                Poll::Pending => {}
            }
            if received == accepted {
                return Poll::Ready(());
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    assert!(writable, "a refused writer was never told of room");
    assert_eq!(a.queued_bytes(), 0);
}

async fn what_cannot_be_sent_is_refused_and_comes_back<T: Transport>(expect: Expect, mut a: T) {
    let oversize = frame(expect.payload_bytes_max + 1, 1);
    match a.submit(oversize.clone()) {
        Err(Refused::Oversize { frame, .. }) => assert_eq!(frame, oversize),
        other => panic!("an oversize frame gave {other:?}"),
    }
    let whole = frame(100, 1);
    for wrong in
        [whole.slice(..99), whole.slice(..131), whole.slice(..0), Bytes::from([&whole[..], b"x"].concat())]
    {
        match a.submit(wrong.clone()) {
            Err(Refused::Malformed { frame }) => assert_eq!(frame, wrong),
            other => panic!("a malformed frame of {} bytes gave {other:?}", wrong.len()),
        }
    }
    let mut accepted = 0;
    let refused = loop {
        match a.submit(frame(0, accepted)) {
            Ok(()) => accepted += 1,
            Err(refused) => break refused,
        }
        assert!(accepted as usize <= expect.queue_frames_max, "the bound on frames does not hold");
    };
    assert!(matches!(refused, Refused::Full { .. }), "{refused:?}");
    assert_eq!(refused.into_frame(), frame(0, accepted));
}

async fn finish_delivers_everything_first<T: Transport>(expect: Expect, mut a: T, mut b: T) {
    let size = expect.payload_bytes_max;
    for n in 0..2 {
        if a.submit(frame(size, n)).is_err() {
            assert!(n > 0);
        }
    }
    let queued = a.queued_bytes() / (FRAME_HEADER_BYTES + size);
    a.finish();
    assert!(matches!(a.submit(frame(0, 0)), Err(Refused::Closed { .. })));
    let mut received = 0;
    let reason = poll_fn(|cx| {
        for _ in 0..64 {
            let sending = a.poll(cx);
            // Where the other side is served elsewhere, it may have closed behind the last frame already.
            assert!(
                !matches!(&sending, Poll::Ready(Event::Closed(why)) if *why != CloseReason::Finished),
                "finishing ended the other direction: {sending:?}"
            );
            match b.poll(cx) {
                Poll::Ready(Event::Received(bytes)) => {
                    assert!(bytes == frame(size, received));
                    received += 1;
                }
                Poll::Ready(Event::Closed(reason)) => return Poll::Ready(reason),
                Poll::Ready(other) => panic!("{other:?}"),
                Poll::Pending if !matches!(sending, Poll::Ready(Event::Writable { .. })) => {
                    return Poll::Pending;
                }
                Poll::Pending => {}
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    assert_eq!(received as usize, queued);
    assert_eq!(reason, CloseReason::Finished);
}

async fn a_death_is_reported_and_stays<T: Transport>(mut a: T, b: T) {
    drop(b);
    for _ in 0..2 {
        let event = poll_fn(|cx| {
            loop {
                match a.poll(cx) {
                    Poll::Ready(Event::Writable { .. }) => {}
                    other => return other,
                }
            }
        })
        .await;
        assert!(matches!(event, Event::Closed(_)), "{event:?}");
    }
    assert!(matches!(a.submit(frame(0, 0)), Err(Refused::Closed { .. })));
    assert_eq!(a.queued_bytes(), 0);
}

async fn closing_is_immediate<T: Transport>(mut a: T, mut b: T) {
    let _ = a.submit(frame(10, 0));
    a.close();
    let own = poll_fn(|cx| a.poll(cx)).await;
    assert_eq!(own, Event::Closed(CloseReason::Local));
    let other = poll_fn(|cx| {
        loop {
            match b.poll(cx) {
                Poll::Ready(Event::Closed(reason)) => return Poll::Ready(reason),
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
    assert_ne!(other, CloseReason::Local);
}

fn alloc_gives_memory_for_the_largest_frame<T: Transport>(expect: Expect, mut a: T) {
    let len = FRAME_HEADER_BYTES + expect.payload_bytes_max;
    let buffer = a.alloc(len).expect("memory for one frame");
    assert_eq!(buffer.len(), len);
    assert!(a.alloc(usize::MAX).is_none());
}

/// Gives the executor a turn.
async fn pause() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
