//! One direction of a link at work: a thread that reads one device and writes the other when the [`Model`] says.

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::thread::{ClockId, clock_nanosleep_absolute, gettid, set_current_timer_slack};
use rustix::time::clock_gettime;
use tun_rs::SyncDevice;

use crate::conditions::Conditions;
use crate::lateness::LatenessLog;
use crate::limits::{
    ANSWER_WAIT, BURST_FRAMES, BUSY, DEVICE_QUEUE_FRAMES, FRAME_MEMORY_BYTES, FRAMES_MAX, REST,
    SPARE_BUFFERS_MAX,
};
use crate::model::{Counters, Model, Nanos};

/// What a direction can be asked for.
#[derive(Debug)]
enum Order {
    Set(Conditions),
    Report(SyncSender<State>),
    Reset,
    Stop,
}

/// What a direction does and did.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) conditions: Conditions,
    pub(crate) counters: Counters,
    pub(crate) inside: u64,
    pub(crate) lateness: LatenessLog,
}

/// A direction's thread. Dropping it ends the thread; frames inside are gone then.
#[derive(Debug)]
pub(crate) struct Direction {
    orders: Sender<Order>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Direction {
    /// Starts a thread that passes frames on; `failed` is told when it has to give up.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(
        name: &str,
        (from, to): (Arc<SyncDevice>, Arc<SyncDevice>),
        (conditions, seed, mtu): (Conditions, u64, u16),
        failed: impl FnOnce(anyhow::Error) + Send + 'static,
    ) -> Result<Self> {
        let wake = Arc::new(
            eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).context("making an eventfd")?,
        );
        let (orders, received) = channel();
        // A VLAN tag may come on top of the Ethernet header.
        let frame_bytes = usize::from(mtu) + 18;
        let frames_max = (FRAME_MEMORY_BYTES / frame_bytes).min(FRAMES_MAX);
        let mut work = Work {
            from,
            to,
            model: Model::new(conditions, seed).with_frames_max(frames_max),
            lateness: LatenessLog::new()?,
            spare: Vec::new(),
            frame_bytes,
            orders: received,
            wake: wake.clone(),
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            if let Err(error) = work.run() {
                failed(error);
            }
        });
        Ok(Self { orders, wake, thread: Some(thread.context("starting a link's thread")?) })
    }

    fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).map_err(|_| anyhow!("the link's thread has ended"))?;
        // Full means that it was woken and has not looked yet.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        Ok(())
    }

    pub(crate) fn set(&self, conditions: Conditions) -> Result<()> {
        self.order(Order::Set(conditions))?;
        // Orders are done in their order: an answer to this one means that the other was done.
        self.state().map(|_| ())
    }

    pub(crate) fn reset(&self) -> Result<()> {
        self.order(Order::Reset)?;
        self.state().map(|_| ())
    }

    pub(crate) fn state(&self) -> Result<State> {
        let (answer, state) = sync_channel(1);
        self.order(Order::Report(answer))?;
        state.recv_timeout(ANSWER_WAIT).context("the link's thread does not answer")
    }
}

impl Drop for Direction {
    fn drop(&mut self) {
        let _ = self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A frame in a buffer of the pool.
#[derive(Clone, Debug)]
struct Frame {
    buffer: Box<[u8]>,
    bytes: usize,
}

struct Work {
    from: Arc<SyncDevice>,
    to: Arc<SyncDevice>,
    model: Model<Frame>,
    lateness: LatenessLog,
    spare: Vec<Box<[u8]>>,
    frame_bytes: usize,
    orders: Receiver<Order>,
    wake: Arc<OwnedFd>,
}

impl Work {
    fn run(&mut self) -> Result<()> {
        prefer_this_thread();
        // What is read next came at this time. It is now, unless the thread slept longer than it meant to: then the
        // frames are taken for having been read in time, and what follows for them is counted as lateness.
        let mut came = now();
        let mut passed = 0;
        // When passes began that did not empty the device, as many as a full device takes to empty.
        let mut behind: VecDeque<Nanos> = VecDeque::new();
        loop {
            if self.obey(came) {
                return Ok(());
            }
            let read = self.read(came, behind.front().copied().unwrap_or(came))?;
            let written = self.write();
            // Frames that come or go this fast are dealt with many at a time: to sleep and wake for each would cost
            // more than the frame does.
            let is_busy = read + written > 0 && came < passed + BUSY.as_nanos() as Nanos;
            passed = came;
            if read < BURST_FRAMES {
                behind.clear();
            } else {
                behind.push_back(came);
                if behind.len() > DEVICE_QUEUE_FRAMES as usize / BURST_FRAMES {
                    behind.pop_front();
                }
            }
            if read == BURST_FRAMES || written == BURST_FRAMES {
                came = now();
            } else if is_busy {
                came += REST.as_nanos() as Nanos;
                came = if sleep_until(came) { came } else { now() };
            } else {
                self.wait()?;
                came = now();
            }
        }
    }

    /// Whether it is over.
    fn obey(&mut self, at: Nanos) -> bool {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Set(conditions) => self.model.set(at, conditions),
                Order::Reset => {
                    self.model.reset();
                    self.lateness.reset();
                }
                Order::Report(answer) => {
                    let state = State {
                        conditions: self.model.conditions().clone(),
                        counters: self.model.counters(),
                        inside: self.model.inside() as u64,
                        lateness: self.lateness.clone(),
                    };
                    // Who asked may have given up.
                    let _ = answer.try_send(state);
                }
                Order::Stop => return true,
            }
        }
        false
    }

    /// Reads frames that came now, or as early as `since`.
    fn read(&mut self, came: Nanos, since: Nanos) -> Result<usize> {
        for read in 0..BURST_FRAMES {
            let mut buffer = self.spare.pop().unwrap_or_else(|| vec![0; self.frame_bytes].into_boxed_slice());
            match self.from.recv(&mut buffer) {
                Ok(bytes) => self.model.offer_since(came, since, bytes as u32, Frame { buffer, bytes }),
                Err(error) => {
                    self.spare.push(buffer);
                    match error.kind() {
                        io::ErrorKind::WouldBlock => return Ok(read),
                        io::ErrorKind::Interrupted => {}
                        _ => return Err(error).context("reading a link's device"),
                    }
                }
            }
        }
        Ok(BURST_FRAMES)
    }

    fn write(&mut self) -> usize {
        let mut clock = now();
        for written in 0..BURST_FRAMES {
            let Some((frame, bytes, due)) = self.model.take(clock) else { return written };
            // It fails while the far device is down, or its site has no memory for the frame; a link loses it then.
            if self.to.send(&frame.buffer[..frame.bytes]).is_err() {
                self.model.refused(bytes);
            }
            if self.spare.len() < SPARE_BUFFERS_MAX {
                self.spare.push(frame.buffer);
            }
            // What the write takes is the far site's receiving, which the kernel does in it; the next frame waits for it.
            self.lateness.add(Duration::from_nanos(clock.saturating_sub(due)));
            clock = now();
        }
        BURST_FRAMES
    }

    /// Until a frame comes, one is due, or there is an order.
    fn wait(&mut self) -> Result<()> {
        let left = self.model.next_due().map(|due| timespec(due.saturating_sub(now())));
        let mut fds = [
            PollFd::from_borrowed_fd(self.from.as_fd(), PollFlags::IN),
            PollFd::new(&*self.wake, PollFlags::IN),
        ];
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for a link's device"),
        }
        if fds[1].revents().contains(PollFlags::IN) {
            let mut count = [0; 8];
            let _ = rustix::io::read(&self.wake, &mut count);
        }
        Ok(())
    }
}

/// Asks the kernel to run this thread when it is due and not when others let it: a link that waits for a guest's
/// processor would not be that link. Refused, it goes on without; what comes of it is seen in the lateness.
fn prefer_this_thread() {
    let _ = set_current_timer_slack(NonZeroU64::new(1));
    let thread = gettid().as_raw_nonzero().to_string();
    // No safe library call sets it for one thread; `chrt` of util-linux does.
    let _ = Command::new("chrt")
        .args(["--fifo", "--pid", "1", &thread])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

fn now() -> Nanos {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as Nanos * 1_000_000_000 + time.tv_nsec as Nanos
}

fn timespec(nanos: Nanos) -> Timespec {
    Timespec { tv_sec: (nanos / 1_000_000_000) as i64, tv_nsec: (nanos % 1_000_000_000) as i64 }
}

/// Whether it slept, rather than being there already.
fn sleep_until(at: Nanos) -> bool {
    if at <= now() {
        return false;
    }
    let _ = clock_nanosleep_absolute(ClockId::Monotonic, &timespec(at));
    true
}
