//! What this crate costs with nothing on top: a unix socket in, frames over loopback TCP, a unix socket out, each end a
//! process of its own; compared with two chained `socat -b1048576` in one interleaved run.
//!
//! ```text
//! cargo run --release -p novacron-transport --example frame_relay -- compare 2048 5    (MiB a round, rounds)
//! cargo run --release -p novacron-transport --example frame_relay -- ping 20000        (round trips; then idle cost)
//! ```

use bytes::Bytes;
use novacron_transport::limits::FRAME_HEADER_BYTES;
use novacron_transport::shard::{RuntimeConfig, run_shards, sleep};
use novacron_transport::{
    Address, CloseReason, Event, FrameBuffer, FramePool, HypervisorStream, Listener, SocketOptions,
    TcpConfig, TcpTransport, Transport, connect,
};
use std::collections::VecDeque;
use std::error::Error;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::task::Poll;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

const BATCH_BYTES: usize = 256 * 1024;
const AHEAD_BYTES: usize = 1 << 20;
const LIMIT: Duration = Duration::from_secs(10);

fn main() -> Outcome<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["in", from, to] => on_one_shard(from.parse()?, to.parse()?, relay_in),
        ["out", from, to] => on_one_shard(from.parse()?, to.parse()?, relay_out),
        ["compare", mib, rounds] => compare(mib.parse::<usize>()? << 20, rounds.parse()?),
        ["ping", count] => ping(count.parse()?),
        _ => Err("usage: frame_relay compare MIB ROUNDS | ping COUNT".into()),
    }
}

fn on_one_shard<F>(
    from: Address,
    to: Address,
    run: impl Fn(Address, Address) -> F + Send + Clone + 'static,
) -> Outcome<()>
where
    F: Future<Output = Outcome<()>> + 'static,
{
    let shards = run_shards(&RuntimeConfig::default(), move |_| {
        let work = run(from.clone(), to.clone());
        async move {
            if let Err(e) = work.await {
                eprintln!("{e}");
            }
        }
    })?;
    Ok(shards.join()?)
}

fn stream(open: novacron_transport::OpenSocket) -> Outcome<TcpTransport> {
    let pool = FramePool::new(64 << 20);
    Ok(TcpTransport::attach(open, TcpConfig::default(), pool.clone(), pool)?)
}

async fn relay_in(from: Address, to: Address) -> Outcome<()> {
    let source = Listener::bind(&from).await?.accept().await?;
    let source = HypervisorStream::attach(source, &SocketOptions::for_hypervisors())?;
    let mut transport = stream(connect(&to, LIMIT).await?)?;
    let mut buffer: Option<FrameBuffer> = None;
    let mut ended = false;
    poll_fn(|cx| {
        for _ in 0..16 {
            match transport.poll(cx) {
                Poll::Ready(Event::Closed(CloseReason::Finished)) if ended => return Poll::Ready(Ok(())),
                Poll::Ready(Event::Closed(reason)) => return Poll::Ready(Err(reason.into())),
                Poll::Ready(_) => continue,
                Poll::Pending => {}
            }
            if ended || transport.queued_bytes() >= AHEAD_BYTES {
                return Poll::Pending;
            }
            let Some(mut batch) = buffer.take().or_else(|| transport.alloc(FRAME_HEADER_BYTES + BATCH_BYTES))
            else {
                return Poll::Ready(Err("no memory".into()));
            };
            match source.poll_read(cx, &mut batch, FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + BATCH_BYTES) {
                Poll::Ready(Ok(0)) => {
                    ended = true;
                    transport.finish();
                }
                Poll::Ready(Ok(len)) => {
                    batch[..FRAME_HEADER_BYTES].fill(0);
                    batch[..4].copy_from_slice(&(len as u32).to_le_bytes());
                    batch.resize(FRAME_HEADER_BYTES + len);
                    if let Err(refused) = transport.submit(batch.freeze()) {
                        return Poll::Ready(Err(refused.into()));
                    }
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e.into())),
                Poll::Pending => {
                    buffer = Some(batch);
                    return Poll::Pending;
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

async fn relay_out(from: Address, to: Address) -> Outcome<()> {
    let mut transport = stream(Listener::bind(&from).await?.accept().await?)?;
    let sink = HypervisorStream::attach(connect(&to, LIMIT).await?, &SocketOptions::for_hypervisors())?;
    let mut queue: VecDeque<Bytes> = VecDeque::new();
    poll_fn(|cx| {
        for _ in 0..16 {
            if !queue.is_empty() {
                match sink.poll_write_some(cx, &mut queue) {
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e.into())),
                    Poll::Ready(Ok(_)) => continue,
                    Poll::Pending if queue.len() >= AHEAD_BYTES / BATCH_BYTES => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            match transport.poll(cx) {
                Poll::Ready(Event::Received(frame)) => queue.push_back(frame.slice(FRAME_HEADER_BYTES..)),
                Poll::Ready(Event::Closed(CloseReason::Finished)) if queue.is_empty() => {
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Event::Closed(CloseReason::Finished)) => {}
                Poll::Ready(Event::Closed(reason)) => return Poll::Ready(Err(reason.into())),
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// Ends a child when the comparison ends early.
struct Running(Child);
impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &Path, args: &[String]) -> Outcome<Running> {
    Ok(Running(Command::new(program).args(args).stdin(Stdio::null()).spawn()?))
}

fn free_port() -> Outcome<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn compare(bytes: usize, rounds: usize) -> Outcome<()> {
    let folder = std::env::temp_dir().join(format!("frame-relay-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let own = std::env::current_exe()?;
    let mut random = vec![0u8; 64 << 20];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let (mut ours, mut socat) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for relay in ["novacron", "socat"] {
            let (a, b) = (folder.join(format!("a{round}{relay}")), folder.join(format!("b{round}{relay}")));
            let port = free_port()?;
            let sink = UnixListener::bind(&b)?;
            let (far, near) = if relay == "novacron" {
                let tcp = format!("tcp:127.0.0.1:{port}");
                (
                    (own.clone(), vec!["out".to_owned(), tcp.clone(), format!("unix:{}", b.display())]),
                    (own.clone(), vec!["in".to_owned(), format!("unix:{}", a.display()), tcp]),
                )
            } else {
                let socat = PathBuf::from("socat");
                let big = "-b1048576".to_owned();
                (
                    (
                        socat.clone(),
                        vec![
                            big.clone(),
                            format!("TCP-LISTEN:{port}"),
                            format!("UNIX-CONNECT:{}", b.display()),
                        ],
                    ),
                    (
                        socat,
                        vec![big, format!("UNIX-LISTEN:{}", a.display()), format!("TCP:127.0.0.1:{port}")],
                    ),
                )
            };
            let _far = start(&far.0, &far.1)?;
            // Connecting to see whether it listens would use up its one accept.
            std::thread::sleep(Duration::from_millis(300));
            let _near = start(&near.0, &near.1)?;
            let rate = move_bytes(&a, sink, &random, bytes)?;
            println!("round {round} {relay:9} {rate:6.0} MiB/s");
            if relay == "novacron" { ours.push(rate) } else { socat.push(rate) }
        }
    }
    std::fs::remove_dir_all(&folder)?;
    let (ours, socat) = (median(ours), median(socat));
    println!("median novacron {ours:.0} MiB/s, socat {socat:.0} MiB/s, ratio {:.2}", ours / socat);
    Ok(())
}

fn move_bytes(path: &Path, sink: UnixListener, random: &[u8], total: usize) -> Outcome<f64> {
    let until = Instant::now() + LIMIT;
    let mut source = loop {
        match UnixStream::connect(path) {
            Ok(source) => break source,
            Err(e) if Instant::now() > until => return Err(e.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    let (done, finished) = mpsc::channel();
    std::thread::spawn(move || {
        let read = (|| -> std::io::Result<usize> {
            let (mut sink, _) = sink.accept()?;
            let mut chunk = vec![0; 1 << 20];
            let mut got = 0;
            loop {
                match sink.read(&mut chunk)? {
                    0 => return Ok(got),
                    n => got += n,
                }
            }
        })();
        let _ = done.send(read);
    });
    let began = Instant::now();
    let mut left = total;
    for chunk in random.chunks(1 << 20).cycle() {
        let n = left.min(chunk.len());
        source.write_all(&chunk[..n])?;
        left -= n;
        if left == 0 {
            break;
        }
    }
    source.shutdown(std::net::Shutdown::Write)?;
    let got = finished.recv_timeout(Duration::from_secs(120))??;
    let rate = total as f64 / (1 << 20) as f64 / began.elapsed().as_secs_f64();
    if got != total {
        return Err(format!("{got} of {total} bytes arrived").into());
    }
    Ok(rate)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ping(count: usize) -> Outcome<()> {
    let address: Address = format!("tcp:127.0.0.1:{}", free_port()?).parse()?;
    let shards = run_shards(
        &RuntimeConfig { shards: 2, cpus: vec![0, 1], ..RuntimeConfig::default() },
        move |shard| {
            let address = address.clone();
            async move {
                let result = if shard.index == 0 { echo(address).await } else { ask(address, count).await };
                if let Err(e) = result {
                    eprintln!("{e}");
                }
            }
        },
    )?;
    Ok(shards.join()?)
}

async fn echo(address: Address) -> Outcome<()> {
    let mut transport = stream(Listener::bind(&address).await?.accept().await?)?;
    loop {
        match poll_fn(|cx| transport.poll(cx)).await {
            Event::Received(frame) => transport.submit(frame)?,
            Event::Writable { .. } => {}
            Event::Closed(_) => return Ok(()),
        }
    }
}

async fn ask(address: Address, count: usize) -> Outcome<()> {
    sleep(Duration::from_millis(200)).await;
    let mut transport = stream(connect(&address, LIMIT).await?)?;
    let mut frame = vec![0u8; 64];
    frame[0] = 32;
    let frame = Bytes::from(frame);
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let began = Instant::now();
        transport.submit(frame.clone())?;
        while !matches!(poll_fn(|cx| transport.poll(cx)).await, Event::Received(_)) {}
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times.get((count as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    println!("round trip of 64 bytes: p50 {:.1} us, p99 {:.1} us", at(0.5), at(0.99));
    let before = cpu_seconds()?;
    sleep(Duration::from_secs(5)).await;
    println!("idle: {:.2} % of one processor for two shards", (cpu_seconds()? - before) / 5.0 * 100.0);
    Ok(())
}

/// Processor time of this process's threads so far (/proc/PID/task/TID/schedstat, first field, nanoseconds).
fn cpu_seconds() -> Outcome<f64> {
    let mut nanoseconds = 0.0;
    for thread in std::fs::read_dir("/proc/self/task")? {
        let stat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        nanoseconds += stat.split(' ').next().unwrap_or("0").parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}
