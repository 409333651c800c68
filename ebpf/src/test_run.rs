//! One frame through the program without an interface: `BPF_PROG_TEST_RUN`, for fixtures.

use crate::limits::FRAME_BYTES_MAX;
use crate::responder::Responder;
use std::io;
use std::os::fd::AsRawFd;

/// `BPF_PROG_TEST_RUN` of `enum bpf_cmd`.
const PROG_TEST_RUN: libc::c_long = 10;

/// The part of `union bpf_attr` for test runs (`linux/bpf.h`, `struct { ... } test`).
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    unused: u32,
}

/// What the program said of a frame, by `enum xdp_action`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dropped.
    Drop,
    /// Left to the stack.
    Pass,
    /// Sent back.
    Transmit,
    /// Anything else, which this program never says.
    Other(u32),
}

impl Responder {
    /// Runs the program over a frame; returns what it said, what became of the frame, and how long it took on average over
    /// `repeat` runs, in nanoseconds.
    pub fn test_run(&mut self, frame: &[u8], repeat: u32) -> io::Result<(Action, Vec<u8>, u32)> {
        let mut out = vec![0_u8; FRAME_BYTES_MAX];
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        let fd = self.program_fd().map_err(io::Error::other)?.as_raw_fd();
        let mut attr = TestRun {
            prog_fd: u32::try_from(fd).map_err(io::Error::other)?,
            data_size_in: length,
            data_size_out: FRAME_BYTES_MAX as u32,
            data_in: frame.as_ptr() as u64,
            data_out: out.as_mut_ptr() as u64,
            repeat,
            ..TestRun::default()
        };
        // SAFETY: `attr` is laid out as the kernel wants it and as long as said; both buffers outlive the call and are as
        // long as said.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, PROG_TEST_RUN, &raw mut attr, size_of::<TestRun>()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        out.truncate(attr.data_size_out as usize);
        let action = match attr.retval {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Transmit,
            other => Action::Other(other),
        };
        Ok((action, out, attr.duration))
    }
}
