use super::*;
use crate::net::{Address, Listener, NetError, connect};
use crate::pool::FramePool;
use crate::shard::testing::on_shard;
use crate::shard::{Shutdown, race, sleep, spawn, timeout};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

fn pair() -> (HypervisorStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let open = OpenSocket::adopt(OwnedFd::from(ours)).unwrap();
    (HypervisorStream::attach(open, &SocketOptions::for_hypervisors()).unwrap(), theirs)
}

/// A directory of this test's own, removed when it ends.
struct Folder(PathBuf);
impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("novacron-transport-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
    fn socket(&self) -> (PathBuf, Address) {
        let path = self.0.join("s");
        (path.clone(), Address::Unix(path))
    }
}
impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_read_takes_all_that_is_there_and_leaves_the_headroom() {
    on_shard(|| async {
        let (stream, mut peer) = pair();
        let pool = FramePool::new(1 << 20);
        let mut buffer = pool.alloc(64 * 1024).unwrap();
        buffer[..32].fill(0xaa);
        for n in 0..10 {
            peer.write_all(&[n; 3000]).unwrap();
        }
        let read = stream.read(&mut buffer, 32..64 * 1024).await.unwrap();
        assert_eq!(read, 30_000);
        assert_eq!(&buffer[..32], &[0xaa; 32]);
        assert_eq!(&buffer[32..3032], &[0; 3000]);
        assert_eq!(&buffer[32 + 27_000..32 + 30_000], &[9; 3000]);
        peer.write_all(b"abc").unwrap();
        assert_eq!(stream.read(&mut buffer, 0..2).await.unwrap(), 2);
        assert_eq!(stream.read(&mut buffer, 0..2).await.unwrap(), 1);
        let quiet = race(stream.read(&mut buffer, 0..2), sleep(Duration::from_millis(30))).await;
        assert!(quiet.right().is_some(), "nothing was there");
        assert!(stream.read(&mut buffer, 0..usize::MAX).await.is_err());
        drop(peer);
        assert_eq!(stream.read(&mut buffer, 0..2).await.unwrap(), 0);
        assert_eq!(stream.read(&mut buffer, 0..2).await.unwrap(), 0);
    });
}

#[test]
fn readable_waits_without_a_buffer() {
    on_shard(|| async {
        let (stream, mut peer) = pair();
        assert!(race(stream.readable(), sleep(Duration::from_millis(20))).await.right().is_some());
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            peer.write_all(b"x").unwrap();
            peer
        });
        timeout(Duration::from_secs(5), stream.readable()).await.unwrap().unwrap();
        assert_eq!(stream.read_slice(&mut [0; 9]).await.unwrap(), 1);
        drop(writer.join().unwrap());
        timeout(Duration::from_secs(5), stream.readable()).await.unwrap().unwrap();
        assert_eq!(stream.read_slice(&mut [0; 9]).await.unwrap(), 0);
    });
}

#[test]
fn writing_waits_for_a_slow_reader_and_loses_nothing() {
    on_shard(|| async {
        let (stream, mut peer) = pair();
        let total = 8 << 20;
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            let mut chunk = vec![0; 50_000];
            loop {
                let n = peer.read(&mut chunk).unwrap();
                if n == 0 {
                    return got;
                }
                got.extend_from_slice(&chunk[..n]);
            }
        });
        let data: Vec<u8> = (0..total).map(|i: usize| (i / 7 % 251) as u8).collect();
        let bytes = Bytes::from(data.clone());
        let mut queue: VecDeque<Bytes> =
            (0..total).step_by(100_000).map(|at| bytes.slice(at..total.min(at + 100_000))).collect();
        queue.insert(3, Bytes::new());
        stream.write_queue(&mut queue).await.unwrap();
        assert!(queue.is_empty());
        stream.write_all(Bytes::from_static(b"end")).await.unwrap();
        stream.shutdown_write().unwrap();
        let got = reader.join().unwrap();
        assert!(got[..total] == data[..] && &got[total..] == b"end");
    });
}

#[test]
fn one_task_reads_while_another_writes_and_close_wakes_both() {
    on_shard(|| async {
        let (stream, mut peer) = pair();
        let stream = Rc::new(stream);
        let reading = Rc::clone(&stream);
        let reader = spawn(async move { reading.read_slice(&mut [0; 10]).await });
        let writing = Rc::clone(&stream);
        let writer = spawn(async move { writing.write_all(Bytes::from(vec![1; 64 << 20])).await });
        sleep(Duration::from_millis(20)).await;
        assert!(stream.unread_bytes().unwrap() > 0);
        peer.read_exact(&mut [0; 1000]).unwrap();
        stream.close();
        assert_eq!(timeout(Duration::from_secs(5), reader).await.unwrap().unwrap(), 0);
        assert!(timeout(Duration::from_secs(5), writer).await.unwrap().is_err());
    });
}

#[test]
fn unix_listeners_are_private_and_replace_only_what_is_stale() {
    on_shard(|| async {
        let folder = Folder::new("listen");
        let (path, address) = folder.socket();
        let limit = Duration::from_secs(5);
        assert!(matches!(connect(&address, limit).await, Err(NetError::Connect { .. })));

        let listener = Listener::bind(&address).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(Listener::bind(&address).await, Err(NetError::InUse { .. })));
        let (client, server) = {
            // The probe above left a connection that has ended; it is accepted like any other.
            let client = connect(&address, limit).await.unwrap();
            let _probe = listener.accept().await.unwrap();
            (client, listener.accept().await.unwrap())
        };
        let own = std::process::id() as i32;
        assert!(matches!(server.peer(), Peer::Unix { pid, .. } if pid == own), "{:?}", server.peer());
        drop(client);
        drop(listener);
        assert!(!path.exists(), "the path goes with its listener");

        // A crash leaves the path behind: the socket exists and nobody listens.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let again = Listener::bind(&address).await.unwrap();
        // What somebody else put there meanwhile is not removed.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"precious").unwrap();
        again.close();
        assert!(matches!(Listener::bind(&address).await, Err(NetError::NotASocket { .. })));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    });
}

#[test]
fn accepting_can_be_cancelled_and_handed_to_another_shard() {
    use crate::shard::{RuntimeConfig, mailbox, run_shards};
    let (sender, receiver) = mailbox::<OpenSocket>(4);
    let ends = std::sync::Arc::new(std::sync::Mutex::new((Some(sender), Some(receiver))));
    let done = Shutdown::new();
    let shards = run_shards(&RuntimeConfig { shards: 2, ..RuntimeConfig::default() }, move |shard| {
        let (ends, done) = (ends.clone(), done.clone());
        async move {
            if shard.index == 1 {
                let mut receiver = ends.lock().unwrap().1.take().unwrap();
                let open = receiver.receive().await.unwrap();
                let stream = HypervisorStream::attach(open, &SocketOptions::default()).unwrap();
                let mut word = [0; 5];
                assert_eq!(stream.read_slice(&mut word).await.unwrap(), 5);
                stream.write_all(Bytes::copy_from_slice(&word)).await.unwrap();
                done.requested(1).await;
                return;
            }
            let sender = ends.lock().unwrap().0.take().unwrap();
            let listener = Listener::bind(&"tcp:localhost:0".parse().unwrap()).await.unwrap();
            for _ in 0..3 {
                assert!(race(listener.accept(), sleep(Duration::from_millis(5))).await.right().is_some());
            }
            let client = connect(listener.address(), Duration::from_secs(5)).await.unwrap();
            sender.send(listener.accept().await.unwrap()).await.unwrap();
            let client = HypervisorStream::attach(client, &SocketOptions::default()).unwrap();
            client.write_all(Bytes::from_static(b"hello")).await.unwrap();
            let mut word = [0; 5];
            assert_eq!(
                timeout(Duration::from_secs(5), client.read_slice(&mut word)).await.unwrap().unwrap(),
                5
            );
            assert_eq!(&word, b"hello");
            done.request();
        }
    })
    .unwrap();
    shards.join().unwrap();
}

#[test]
fn a_connect_that_gets_no_answer_ends_at_its_limit() {
    on_shard(|| async {
        let folder = Folder::new("full");
        let (path, address) = folder.socket();
        // A queue of one that nobody accepts from: connecting has to wait.
        let listener =
            rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM, None)
                .unwrap();
        rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let _first = connect(&address, Duration::from_secs(1)).await.unwrap();
        let began = std::time::Instant::now();
        let second = connect(&address, Duration::from_millis(60)).await;
        assert!(matches!(second, Err(NetError::ConnectTimeout { .. })), "{second:?}");
        assert!(began.elapsed() >= Duration::from_millis(60));
    });
}
