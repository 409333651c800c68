//! Waiting until any descriptor is readable.
//!
//! glommio offers readiness only inside its stream types. Such a stream, made from any descriptor, asks the ring for
//! readability as it is created and looks at nothing else before that answer (glommio `net/stream.rs`,
//! `NonBufferedStream::init` and `poll_read`); what it then answers, an error included, means "readable".

use futures_io::AsyncRead;
use glommio::net::TcpStream;
use std::future::poll_fn;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd};
use std::pin::Pin;

/// Completes when `fd` is readable, or has failed or ended: a non-blocking call tells which. Cancelling is safe.
pub(crate) async fn wait_readable(fd: BorrowedFd<'_>) -> io::Result<()> {
    let fd = fd.try_clone_to_owned()?;
    // SAFETY: `into_raw_fd` gives up the ownership that the stream takes over; it closes the descriptor when dropped.
    let mut stream = unsafe { TcpStream::from_raw_fd(fd.into_raw_fd()) };
    poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut []).map(drop)).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::{race, sleep, testing::on_shard};
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    #[test]
    fn waits_for_bytes_and_not_less() {
        on_shard(|| async {
            let (one, mut two) = UnixStream::pair().unwrap();
            let quiet = race(wait_readable(one.as_fd()), sleep(Duration::from_millis(50))).await;
            assert!(quiet.right().is_some(), "nothing was there");
            let writer = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(50));
                two.write_all(b"x").unwrap();
                two
            });
            let began = Instant::now();
            wait_readable(one.as_fd()).await.unwrap();
            assert!(began.elapsed() >= Duration::from_millis(40), "{:?}", began.elapsed());
            drop(writer.join().unwrap());
        });
    }

    #[test]
    fn works_on_pipes_too() {
        on_shard(|| async {
            let (reader, mut writer) = io::pipe().unwrap();
            let quiet = race(wait_readable(reader.as_fd()), sleep(Duration::from_millis(20))).await;
            assert!(quiet.right().is_some());
            writer.write_all(b"x").unwrap();
            wait_readable(reader.as_fd()).await.unwrap();
        });
    }
}
