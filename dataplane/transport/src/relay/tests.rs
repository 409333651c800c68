use super::*;
use crate::conformance::{Expect, frame, run_all};
use crate::contract::{Event, Transport};
use crate::net::{Listener, OpenSocket, SocketOptions, connect};
use crate::shard::{Receiver, RuntimeConfig, Sender, run_shards, sleep, spawn, timeout};
use crate::tcp::{TcpConfig, TcpTransport};
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

const EXPECT: Expect = Expect {
    payload_bytes_max: 256 * 1024,
    queue_bytes_max: 600 * 1024,
    queue_frames_max: 64,
    // Kernels' buffers as below, and behind each a transport's queue and the batches between two shards.
    network_bytes_max: 8 << 20,
};

const RELAY: RelayConfig = RelayConfig {
    payload_bytes_max: EXPECT.payload_bytes_max,
    queue_bytes_max: EXPECT.queue_bytes_max,
    queue_frames_max: EXPECT.queue_frames_max,
    queue_low_water_bytes: 100 * 1024,
};

fn tcp() -> TcpConfig {
    TcpConfig {
        payload_bytes_max: EXPECT.payload_bytes_max,
        queue_bytes_max: EXPECT.queue_bytes_max,
        queue_frames_max: EXPECT.queue_frames_max,
        queue_low_water_bytes: 100 * 1024,
        socket: SocketOptions {
            send_buffer_bytes: Some(256 * 1024),
            receive_buffer_bytes: Some(256 * 1024),
            ..SocketOptions::for_streams()
        },
        ..TcpConfig::default()
    }
}

fn attach(socket: OpenSocket) -> TcpTransport {
    TcpTransport::attach(socket, tcp(), FramePool::new(4 << 20), FramePool::new(1 << 30)).unwrap()
}

type Served = (OpenSocket, Carrier);

/// Runs `body` on one shard while another serves what it sends there.
fn on_two_shards<F, Fut>(body: F)
where
    F: Fn(Sender<Served>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let (sender, receiver) = mailbox::<Served>(64);
    let ends = Arc::new(Mutex::new((Some(sender), Some(receiver))));
    let body = Arc::new(body);
    let shards = run_shards(&RuntimeConfig { shards: 2, ..RuntimeConfig::default() }, move |shard| {
        let (ends, body) = (Arc::clone(&ends), Arc::clone(&body));
        async move {
            if shard.index == 0 {
                let sender = ends.lock().unwrap().0.take().unwrap();
                body(sender).await;
            } else {
                let mut receiver: Receiver<Served> = ends.lock().unwrap().1.take().unwrap();
                while let Some((socket, carrier)) = receiver.receive().await {
                    spawn(carrier.carry(attach(socket))).detach();
                }
            }
        }
    })
    .unwrap();
    shards.join().unwrap();
}

async fn sockets() -> (OpenSocket, OpenSocket) {
    let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
    let dialled = connect(listener.address(), Duration::from_secs(5)).await.unwrap();
    (dialled, listener.accept().await.unwrap())
}

fn relayed(socket: OpenSocket, serving: &Sender<Served>) -> Relayed<TcpTransport> {
    let (near, carrier) = relay(RELAY, FramePool::new(4 << 20));
    serving.try_send((socket, carrier)).unwrap();
    near
}

async fn next(stream: &mut impl Transport) -> Event {
    timeout(Duration::from_secs(10), poll_fn(|cx| stream.poll(cx))).await.expect("an event within 10 s")
}

#[test]
fn a_relayed_stream_keeps_the_contract() {
    on_two_shards(|serving| async move {
        run_all(EXPECT, async || {
            let (a, b) = sockets().await;
            (relayed(a, &serving), relayed(b, &serving))
        })
        .await;
    });
}

#[test]
fn the_session_sees_how_the_stream_stands() {
    on_two_shards(|serving| async move {
        let (a, b) = sockets().await;
        let (mut near, mut far) = (relayed(a, &serving), attach(b));
        let submitted = 50 * frame(4000, 0).len();
        for n in 0..50 {
            near.submit(frame(4000, n)).unwrap();
        }
        assert_eq!(near.queued_bytes(), submitted);
        for n in 0..50 {
            let arrived = race_next(&mut near, &mut far).await;
            assert_eq!(arrived, Event::Received(frame(4000, n)));
        }
        // The serving shard tells without being asked: nothing else is sent or received.
        for _ in 0..200 {
            let _ = poll_fn(|cx| Poll::Ready(near.poll(cx))).await;
            if near.flow().is_some_and(|flow| flow.outstanding_bytes == 0) {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        let flow = near.flow().expect("a flow");
        assert_eq!((flow.outstanding_bytes, near.queued_bytes()), (0, 0));
        assert!(flow.rate_bytes_per_s > 0 && !flow.round_trip.is_zero());
        assert!(near.congestion().is_some_and(|name| !name.is_empty()));
        // `reno` is what every system grants.
        near.prefer_congestion("reno");
        assert_eq!(near.congestion(), None, "not known yet");
        for _ in 0..200 {
            let _ = poll_fn(|cx| Poll::Ready(near.poll(cx))).await;
            if near.congestion().is_some() {
                break;
            }
            sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(near.congestion().as_deref(), Some("reno"));
        near.submit(frame(4000, 51)).unwrap();
        assert_eq!(near.flow().unwrap().outstanding_bytes, frame(4000, 51).len());
    });
}

/// The next event of `far`, while `near` moves what it has.
async fn race_next(near: &mut Relayed<TcpTransport>, far: &mut TcpTransport) -> Event {
    let both = poll_fn(|cx| {
        while let Poll::Ready(event) = near.poll(cx) {
            assert!(matches!(event, Event::Writable { .. }), "{event:?}");
        }
        far.poll(cx)
    });
    timeout(Duration::from_secs(10), both).await.expect("an event within 10 s")
}

#[test]
fn what_was_received_before_the_end_comes_before_it() {
    on_two_shards(|serving| async move {
        let (a, b) = sockets().await;
        let (mut near, mut far) = (relayed(a, &serving), attach(b));
        for n in 0..20 {
            far.submit(frame(10_000, n)).unwrap();
        }
        far.finish();
        let _ = poll_fn(|cx| Poll::Ready(far.poll(cx))).await;
        sleep(Duration::from_millis(50)).await;
        for n in 0..20 {
            assert_eq!(next(&mut near).await, Event::Received(frame(10_000, n)));
        }
        assert_eq!(next(&mut near).await, Event::Closed(CloseReason::Finished));
    });
}

#[test]
fn a_shard_that_stops_serving_ends_the_stream() {
    on_two_shards(|serving| async move {
        let (near, carrier) = relay::<TcpTransport>(RELAY, FramePool::new(1 << 20));
        drop(carrier);
        let mut near = near;
        let Event::Closed(reason) = next(&mut near).await else { panic!("the stream goes on") };
        assert!(reason.to_string().contains("has stopped"), "{reason}");

        let (mut near, carrier) = relay::<TcpTransport>(RELAY, FramePool::new(1 << 20));
        carrier.fail(CloseReason::Damaged).await;
        assert_eq!(next(&mut near).await, Event::Closed(CloseReason::Damaged));
        drop(serving);
    });
}

#[test]
fn a_stream_that_is_dropped_says_what_it_was_given_before() {
    on_two_shards(|serving| async move {
        let (a, b) = sockets().await;
        let (mut near, mut far) = (relayed(a, &serving), attach(b));
        // The serving shard has attached it, and what is submitted now has been passed on.
        assert!(
            timeout(Duration::from_secs(10), async {
                while near.congestion().is_none() {
                    let _ = poll_fn(|cx| Poll::Ready(near.poll(cx))).await;
                    sleep(Duration::from_millis(1)).await;
                }
            })
            .await
            .is_some()
        );
        near.submit(frame(100, 1)).unwrap();
        let _ = poll_fn(|cx| Poll::Ready(near.poll(cx))).await;
        drop(near);
        assert_eq!(next(&mut far).await, Event::Received(frame(100, 1)));
        assert_eq!(next(&mut far).await, Event::Closed(CloseReason::Finished));
    });
}
