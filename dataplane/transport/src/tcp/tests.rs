use super::*;
use crate::conformance::{Expect, frame, run_all};
use crate::limits::SMALL_FRAME_BYTES_MAX;
use crate::net::{Address, Listener, connect};
use crate::shard::testing::on_shard;
use crate::shard::{race, sleep, timeout};
use std::future::poll_fn;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

const EXPECT: Expect = Expect {
    payload_bytes_max: 256 * 1024,
    queue_bytes_max: 600 * 1024,
    queue_frames_max: 64,
    // 33.5 MB is tcp_rmem's default maximum here, 4 MB tcp_wmem's; the options below make it far less.
    network_bytes_max: 4 << 20,
};

/// What the check of these tests takes for damage, in a header's last byte.
const DAMAGED: [u8; 8] = *b"damaged!";

fn config() -> TcpConfig {
    TcpConfig {
        payload_bytes_max: EXPECT.payload_bytes_max,
        queue_bytes_max: EXPECT.queue_bytes_max,
        queue_frames_max: EXPECT.queue_frames_max,
        queue_low_water_bytes: 100 * 1024,
        header_check: |header| !header.ends_with(&DAMAGED),
        socket: SocketOptions {
            send_buffer_bytes: Some(256 * 1024),
            receive_buffer_bytes: Some(256 * 1024),
            ..SocketOptions::for_streams()
        },
    }
}

fn attach(open: OpenSocket) -> TcpTransport {
    // Room for what the suite keeps: every received frame until it is compared.
    TcpTransport::attach(open, config(), FramePool::new(4 << 20), FramePool::new(1 << 30)).unwrap()
}

async fn pair() -> (TcpTransport, TcpTransport) {
    let listener = Listener::bind(&"tcp:127.0.0.1:0".parse().unwrap()).await.unwrap();
    let a = connect(listener.address(), Duration::from_secs(5)).await.unwrap();
    let b = listener.accept().await.unwrap();
    assert!(a.is_tcp() && b.is_tcp());
    (attach(a), attach(b))
}

/// A transport and the raw other end, to be misbehaved on.
fn with_raw_peer() -> (TcpTransport, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (attach(OpenSocket::adopt(OwnedFd::from(ours)).unwrap()), theirs)
}

async fn next(transport: &mut TcpTransport) -> Event {
    timeout(Duration::from_secs(10), poll_fn(|cx| transport.poll(cx))).await.expect("an event within 10 s")
}

#[test]
fn tcp_keeps_the_contract() {
    on_shard(|| async { run_all(EXPECT, pair).await });
}

#[test]
fn unix_sockets_keep_the_contract() {
    on_shard(|| async {
        run_all(EXPECT, async || {
            let (a, b) = UnixStream::pair().unwrap();
            let adopt = |s: UnixStream| attach(OpenSocket::adopt(OwnedFd::from(s)).unwrap());
            (adopt(a), adopt(b))
        })
        .await;
    });
}

#[test]
fn a_frame_may_arrive_cut_at_any_byte() {
    on_shard(|| async {
        for size in [0, 200, SMALL_FRAME_BYTES_MAX, SMALL_FRAME_BYTES_MAX + 1] {
            let bytes = [&frame(size, 1)[..], &frame(50, 2)[..]].concat();
            for cut in 1..bytes.len() {
                let (mut transport, mut peer) = with_raw_peer();
                peer.write_all(&bytes[..cut]).unwrap();
                // Whatever is whole already comes at once; the rest only after the second write.
                let early = race(next(&mut transport), crate::shard::yield_now()).await.left();
                peer.write_all(&bytes[cut..]).unwrap();
                let mut frames: Vec<_> = early.into_iter().collect();
                while frames.len() < 2 {
                    frames.push(next(&mut transport).await);
                }
                assert_eq!(
                    frames,
                    [Event::Received(frame(size, 1)), Event::Received(frame(50, 2))],
                    "{size} {cut}"
                );
            }
        }
    });
}

#[test]
fn an_oversize_length_kills_the_stream_and_allocates_nothing() {
    on_shard(|| async {
        let pool = FramePool::new(1 << 30);
        for payload_bytes in [EXPECT.payload_bytes_max as u32 + 1, u32::MAX] {
            let (ours, mut peer) = UnixStream::pair().unwrap();
            let open = OpenSocket::adopt(OwnedFd::from(ours)).unwrap();
            let mut transport =
                TcpTransport::attach(open, config(), FramePool::new(1 << 20), pool.clone()).unwrap();
            let mut header = [7u8; FRAME_HEADER_BYTES];
            header[..4].copy_from_slice(&payload_bytes.to_le_bytes());
            peer.write_all(&frame(2000, 1)).unwrap();
            peer.write_all(&header).unwrap();
            assert_eq!(next(&mut transport).await, Event::Received(frame(2000, 1)));
            let Event::Closed(CloseReason::Oversize(oversize)) = next(&mut transport).await else {
                panic!("not refused")
            };
            assert_eq!(oversize.payload_bytes, payload_bytes as usize);
            assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "the peer is told by the end of the connection");
        }
        assert_eq!(pool.stats().created, 1);
        assert_eq!(pool.stats().used_bytes, 0);
    });
}

#[test]
fn an_end_inside_a_frame_is_not_a_finish() {
    on_shard(|| async {
        for cut in [1, 31, 32, 500, 5000] {
            let (mut transport, mut peer) = with_raw_peer();
            peer.write_all(&frame(100, 1)).unwrap();
            peer.write_all(&frame(9000, 2)[..cut]).unwrap();
            drop(peer);
            assert_eq!(next(&mut transport).await, Event::Received(frame(100, 1)));
            let expected = CloseReason::Truncated { received_bytes: cut };
            assert_eq!(next(&mut transport).await, Event::Closed(expected));
        }
    });
}

#[test]
fn an_exhausted_pool_pauses_receiving_until_memory_returns() {
    on_shard(|| async {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let open = OpenSocket::adopt(OwnedFd::from(ours)).unwrap();
        let pool = FramePool::new(300 * 1024);
        let mut transport =
            TcpTransport::attach(open, config(), FramePool::new(1 << 20), pool.clone()).unwrap();
        let writer = std::thread::spawn(move || {
            for n in 0..4 {
                peer.write_all(&frame(200_000, n)).unwrap();
            }
            peer
        });
        for n in 0..4 {
            let Event::Received(received) = next(&mut transport).await else { panic!("no frame {n}") };
            assert!(received == frame(200_000, n));
            if n < 3 {
                // The only buffer is held: nothing can come.
                let blocked = race(poll_fn(|cx| transport.poll(cx)), sleep(Duration::from_millis(30))).await;
                assert!(blocked.right().is_some(), "frame {} came without memory", n + 1);
                let released = std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(20));
                    drop(received);
                });
                let waited = poll_fn(|cx| match transport.incoming.poll(&mut transport.channel, cx) {
                    Poll::Ready(Ok(Progress::Frame(frame))) => Poll::Ready(frame),
                    Poll::Ready(_) => panic!("ended"),
                    Poll::Pending => Poll::Pending,
                });
                let waited =
                    timeout(Duration::from_secs(5), waited).await.expect("woken when memory returned");
                released.join().unwrap();
                assert!(waited == frame(200_000, n + 1));
                break;
            }
        }
        drop(transport);
        drop(writer);
    });
}

/// Whatever its length says: a payload that may never come is not awaited.
#[test]
fn a_damaged_header_ends_the_stream_at_once() {
    on_shard(|| async {
        for length in [0u32, 7, 200_000, u32::MAX] {
            let (mut transport, mut peer) = with_raw_peer();
            peer.write_all(&frame(10, 3)).unwrap();
            let mut header = [0; FRAME_HEADER_BYTES];
            header[..4].copy_from_slice(&length.to_le_bytes());
            header[FRAME_HEADER_BYTES - DAMAGED.len()..].copy_from_slice(&DAMAGED);
            peer.write_all(&header).unwrap();
            assert!(matches!(next(&mut transport).await, Event::Received(_)));
            assert_eq!(next(&mut transport).await, Event::Closed(CloseReason::Damaged));
        }
    });
}

#[test]
fn a_submit_from_another_task_wakes_the_one_that_polls() {
    on_shard(|| async {
        let (transport, mut peer) = with_raw_peer();
        let transport = std::rc::Rc::new(std::cell::RefCell::new(transport));
        let polled = std::rc::Rc::clone(&transport);
        let task = crate::shard::spawn(async move { poll_fn(|cx| polled.borrow_mut().poll(cx)).await });
        sleep(Duration::from_millis(20)).await;
        transport.borrow_mut().submit(frame(10, 3)).unwrap();
        sleep(Duration::from_millis(20)).await;
        let mut got = vec![0; FRAME_HEADER_BYTES + 10];
        peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        peer.read_exact(&mut got).unwrap();
        assert_eq!(got, frame(10, 3));
        drop(peer);
        assert_eq!(task.await, Event::Closed(CloseReason::Finished));
    });
}

#[test]
fn configurations_that_cannot_work_are_refused() {
    on_shard(|| async {
        let broken: [fn(&mut TcpConfig); 4] = [
            |c| c.payload_bytes_max = FRAME_PAYLOAD_BYTES_CEILING + 1,
            |c| c.queue_bytes_max = c.payload_bytes_max,
            |c| c.queue_frames_max = 0,
            |c| c.queue_low_water_bytes = c.queue_bytes_max,
        ];
        for change in broken {
            let mut config = config();
            change(&mut config);
            let open = OpenSocket::adopt(OwnedFd::from(UnixStream::pair().unwrap().0)).unwrap();
            let result = TcpTransport::attach(open, config, FramePool::new(0), FramePool::new(1 << 30));
            assert!(matches!(result, Err(NetError::Config { .. })));
        }
    });
}

#[test]
fn path_and_options_can_be_asked() {
    on_shard(|| async {
        let (mut a, mut b) = pair().await;
        assert!(matches!(a.peer(), Peer::Tcp(_)));
        a.submit(frame(1000, 1)).unwrap();
        assert!(race(next(&mut a), next(&mut b)).await.right().is_some());
        assert!(a.path_stats().unwrap().rtt_us > 0);
        assert!(a.applied_options().unwrap().no_delay);
        let six = Listener::bind(&"tcp:[::1]:0".parse().unwrap()).await.unwrap();
        assert!(matches!(six.address(), Address::Tcp { host, port } if host == "::1" && *port != 0));
    });
}

#[test]
fn a_congestion_control_changes_while_frames_are_under_way() {
    on_shard(|| async {
        let (mut a, mut b) = pair().await;
        let before = a.congestion().expect("TCP has one");
        let other = if before == "reno" { "bbr" } else { "reno" };
        for round in 0..6 {
            let wanted = if round % 2 == 0 { other } else { &before };
            a.submit(frame(100_000, round)).expect("there is room");
            a.prefer_congestion(wanted);
            // What this process is not granted changes nothing.
            assert!(a.congestion().is_some_and(|now| now == wanted || now == before || now == other));
            a.prefer_congestion("no-such");
            match race(next(&mut b), async { while !matches!(next(&mut a).await, Event::Closed(_)) {} }).await
            {
                crate::shard::Either::Left(Event::Received(received)) => {
                    assert_eq!(received, frame(100_000, round), "round {round}");
                }
                _ => panic!("round {round}: the frame did not arrive"),
            }
        }
        a.prefer_congestion("reno");
        assert_eq!(a.congestion().as_deref(), Some("reno"), "which every system grants");
    });
}
