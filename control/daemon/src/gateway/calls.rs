//! Calls on the gateway's control socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use novacron_control_api::{
    Call, ErrorCode, GatewayInfo, Id, Incoming, LineBuffer, Request, RpcError, parse_incoming,
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::timeout;

use crate::limits::{GATEWAY_ANSWER, GATEWAY_SLOW_CALLS_MAX, READ_BYTES};

/// One connection.
struct Connection {
    stream: UnixStream,
    lines: LineBuffer,
    next_id: i64,
}

/// Why there was no answer.
enum Lost {
    /// Nothing was sent.
    Unsent(String),
    /// It was sent; whether it was carried out is unknown.
    Unanswered(String),
}

impl Connection {
    async fn open(path: &Path) -> Result<Self, Lost> {
        let stream = UnixStream::connect(path).await.map_err(|error| Lost::Unsent(error.to_string()))?;
        Ok(Self { stream, lines: LineBuffer::new(), next_id: 1 })
    }

    async fn call(&mut self, call: Call) -> Result<Result<Value, RpcError>, Lost> {
        let id = self.next_id;
        self.next_id += 1;
        let line = Request::new(id, call).to_line();
        let lost = |why: String| Lost::Unanswered(why);
        self.stream.write_all(&line).await.map_err(|error| lost(error.to_string()))?;
        let mut chunk = [0; READ_BYTES];
        loop {
            while let Some(line) = self.lines.next_line().map_err(|error| lost(error.to_string()))? {
                match parse_incoming(&line).map_err(|error| lost(error.to_string()))? {
                    Incoming::Response { id: Id::Number(answered), result } if answered == id => {
                        return Ok(result);
                    }
                    Incoming::Response { id: Id::Null, result: Err(error) } => return Ok(Err(error)),
                    Incoming::Response { .. } | Incoming::Notification { .. } => {}
                }
            }
            let count = self.stream.read(&mut chunk).await.map_err(|error| lost(error.to_string()))?;
            if count == 0 {
                return Err(lost("it closed the connection".into()));
            }
            self.lines.feed(&chunk[..count]);
        }
    }
}

/// The gateway's control socket.
pub(crate) struct Gateway {
    path: PathBuf,
    /// Kept for calls that are answered at once; one after the other.
    kept: Mutex<Option<Connection>>,
    slow: Semaphore,
}

impl Gateway {
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), kept: Mutex::new(None), slow: Semaphore::new(GATEWAY_SLOW_CALLS_MAX) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A call that only looks: asked once more on a new connection when the kept one has gone.
    pub(crate) async fn look(&self, call: Call) -> Result<Value, RpcError> {
        let mut kept = self.kept.lock().await;
        let asked = async {
            if let Some(mut connection) = kept.take()
                && let Ok(result) = connection.call(call.clone()).await
            {
                *kept = Some(connection);
                return result;
            }
            let opened = Connection::open(&self.path).await;
            let mut connection = opened.map_err(|lost| self.lost(&lost))?;
            let result = connection.call(call.clone()).await.map_err(|lost| self.lost(&lost))?;
            *kept = Some(connection);
            result
        };
        // A connection whose answer is late is dropped with its call: the answer belongs to nobody.
        timeout(GATEWAY_ANSWER, asked).await.unwrap_or_else(|_| {
            Err(self.lost(&Lost::Unanswered("it took too long: its process hangs".into())))
        })
    }

    /// The same, with the answer's type.
    pub(crate) async fn look_for<T: DeserializeOwned>(&self, call: Call) -> Result<T, RpcError> {
        let value = self.look(call).await?;
        serde_json::from_value(value)
            .map_err(|error| self.lost(&Lost::Unanswered(format!("its answer is not understood: {error}"))))
    }

    pub(crate) async fn info(&self) -> Result<GatewayInfo, RpcError> {
        self.look_for(Call::GatewayInfo).await
    }

    /// A call that may take `wait`, or that changes something: on a connection of its own, and never asked twice.
    pub(crate) async fn carry_out(&self, call: Call, wait: Duration) -> Result<Value, RpcError> {
        let Ok(_turn) = self.slow.try_acquire() else {
            let message = format!("{GATEWAY_SLOW_CALLS_MAX} calls on the gateway are under way already");
            return Err(RpcError::new(ErrorCode::LimitReached, message, "nothing", "call again in a moment"));
        };
        let asked = async { Connection::open(&self.path).await?.call(call).await };
        match timeout(wait, asked).await {
            Ok(Ok(result)) => result,
            Ok(Err(lost)) => Err(self.lost(&lost)),
            Err(_) => Err(self.lost(&Lost::Unanswered("it took too long".into()))),
        }
    }

    fn lost(&self, lost: &Lost) -> RpcError {
        let path = self.path.display();
        let (message, lost, next) = match lost {
            Lost::Unsent(why) => {
                let message = format!("the gateway does not answer at {path}: {why}");
                (message, "nothing", "node.health tells how it is; call again when it is up")
            }
            Lost::Unanswered(why) => {
                let message = format!("the gateway at {path} gave no answer: {why}");
                (
                    message,
                    "whether the call was carried out is unknown",
                    "look with session.list before calling again",
                )
            }
        };
        RpcError::new(ErrorCode::GatewayLost, message, lost, next)
    }
}
