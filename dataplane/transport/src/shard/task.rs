//! Tasks of one shard.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

/// A task on this shard. Dropping it cancels the task.
#[must_use = "dropping a task cancels it; detach it to let it run"]
#[derive(Debug)]
pub struct LocalTask<T>(glommio::Task<T>);

impl<T: 'static> LocalTask<T> {
    /// Lets the task run to its end on its own.
    pub fn detach(self) {
        self.0.detach();
    }

    /// Cancels the task and waits until its future is dropped. `Some` if it had finished.
    pub async fn cancel(self) -> Option<T> {
        self.0.cancel().await
    }
}

impl<T> Future for LocalTask<T> {
    type Output = T;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        Pin::new(&mut self.0).poll(cx)
    }
}

/// Runs `future` on this shard, beside others. Must be called on a shard.
pub fn spawn<T: 'static>(future: impl Future<Output = T> + 'static) -> LocalTask<T> {
    LocalTask(glommio::spawn_local(future))
}

/// Runs `work` on a thread beside this shard: for what blocks (resolving names, files) or takes long. One such thread
/// serves a shard.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    glommio::executor().spawn_blocking(work).await
}

/// Lets sockets, timers and other tasks have their turn if this task's time is up; nearly free otherwise. Call it in
/// loops that may never have to wait.
pub async fn yield_if_needed() {
    glommio::yield_if_needed().await;
}

/// Lets every other ready task run first.
pub async fn yield_now() {
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

/// The result of whichever came first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Either<L, R> {
    /// The left one.
    Left(L),
    /// The right one.
    Right(R),
}

impl<L, R> Either<L, R> {
    /// The left result, if it was first.
    pub fn left(self) -> Option<L> {
        match self {
            Self::Left(l) => Some(l),
            Self::Right(_) => None,
        }
    }

    /// The right result, if it was first.
    pub fn right(self) -> Option<R> {
        match self {
            Self::Left(_) => None,
            Self::Right(r) => Some(r),
        }
    }
}

/// Waits for either future and drops the other. The left one is asked first, each time.
pub async fn race<L, R>(left: impl Future<Output = L>, right: impl Future<Output = R>) -> Either<L, R> {
    let mut left = pin!(left);
    let mut right = pin!(right);
    poll_fn(move |cx| {
        if let Poll::Ready(l) = left.as_mut().poll(cx) {
            return Poll::Ready(Either::Left(l));
        }
        right.as_mut().poll(cx).map(Either::Right)
    })
    .await
}
