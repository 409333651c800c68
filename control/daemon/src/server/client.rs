//! One connection: lines in, answers out, events and watched sessions between them.

use std::sync::Arc;
use std::time::Duration;

use novacron_control_api::control::{
    ControlCall, EVENT, EVENTS_LOST, Event, EventsLost, Subscribed, Subscription,
};
use novacron_control_api::method::{SESSION_ENDED, SESSION_PROGRESS};
use novacron_control_api::{
    Call, Envelope, ErrorCode, Id, LineBuffer, Notification, Response, RpcError, SessionId, WatchParams,
    parse_envelope,
};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits::{KINDS_MAX, READ_BYTES, REQUEST_BYTES_MAX, TOKEN_TRIES_MAX, WATCHES_MAX, WRITE_WAIT};
use crate::server::access::Who;
use crate::server::calls::Calls;

struct Watch {
    session: SessionId,
    interval: Duration,
    due: Instant,
}

struct Subscriber {
    events: broadcast::Receiver<Arc<Event>>,
    asked: Subscription,
}

/// The client is gone, takes no more, or is not to be heard any longer.
struct Over;

struct Client<S> {
    stream: S,
    who: Who,
    calls: Arc<Calls>,
    watches: Vec<Watch>,
    subscriber: Option<Subscriber>,
    wrong_tokens: u32,
}

/// What happened next.
enum Next {
    Bytes(usize),
    Due,
    Event(Result<Arc<Event>, RecvError>),
}

/// Serves a connection until it ends.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, who: Who, calls: Arc<Calls>) {
    let (watches, subscriber) = (Vec::new(), None);
    let mut client = Client { stream, who, calls, watches, subscriber, wrong_tokens: 0 };
    // Whoever is gone needs no farewell.
    let _ = client.run().await;
}

/// Answers a connection that is not served, and ends it.
pub(crate) async fn refuse<S: AsyncWrite + Unpin>(mut stream: S, error: RpcError) {
    let line = Response::error(Id::Null, error).to_line();
    let _ = timeout(WRITE_WAIT, stream.write_all(&line)).await;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn run(&mut self) -> Result<(), Over> {
        let mut lines = LineBuffer::bounded(REQUEST_BYTES_MAX);
        let mut chunk = vec![0; READ_BYTES];
        loop {
            match self.next(&mut chunk).await? {
                Next::Bytes(count) => {
                    lines.feed(&chunk[..count]);
                    self.lines(&mut lines).await?;
                }
                Next::Due => {}
                Next::Event(event) => self.event(event).await?,
            }
            self.tell_watched().await?;
        }
    }

    async fn next(&mut self, chunk: &mut [u8]) -> Result<Next, Over> {
        let due = self.watches.iter().map(|watch| watch.due).min();
        let waiting = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let subscriber = &mut self.subscriber;
        let event = async {
            match subscriber {
                Some(subscriber) => subscriber.events.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            read = self.stream.read(chunk) => match read {
                Ok(0) | Err(_) => Err(Over),
                Ok(count) => Ok(Next::Bytes(count)),
            },
            () = waiting => Ok(Next::Due),
            event = event => Ok(Next::Event(event)),
        }
    }

    async fn write(&mut self, line: &[u8]) -> Result<(), Over> {
        match timeout(WRITE_WAIT, self.stream.write_all(line)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Over),
            Err(_) => {
                tracing::warn!(caller = %self.who, "cut off: it does not read what it is told");
                Err(Over)
            }
        }
    }

    async fn lines(&mut self, lines: &mut LineBuffer) -> Result<(), Over> {
        loop {
            match lines.next_line() {
                Ok(None) => return Ok(()),
                Ok(Some(line)) if line.iter().all(u8::is_ascii_whitespace) => {}
                Ok(Some(line)) => self.answer(&line).await?,
                Err(error) => {
                    let next = "send one JSON object a line; this connection is closed";
                    let error = RpcError::new(ErrorCode::ParseError, error.to_string(), "nothing", next);
                    self.write(&Response::error(Id::Null, error).to_line()).await?;
                    return Err(Over);
                }
            }
        }
    }

    async fn answer(&mut self, line: &[u8]) -> Result<(), Over> {
        let request = match parse_envelope(line) {
            Ok(request) => request,
            Err(fault) => {
                if let Some(response) = fault.into_response() {
                    self.write(&response.to_line()).await?;
                }
                return Ok(());
            }
        };
        let Envelope { id, method, params } = request;
        let identifies = method == "caller.identify";
        let request = Envelope { id: None, method, params };
        let (call, mut result) = self.calls.carry_out(&mut self.who, request).await;
        if identifies && result.is_err() {
            self.wrong_tokens += 1;
        }
        if result.is_ok() {
            result = match call {
                Some(ControlCall::EventsSubscribe(asked)) => self.subscribe(asked),
                Some(ControlCall::Gateway(Call::SessionWatch(params))) => self.watch(&params, result),
                _ => result,
            };
        }
        if let Some(id) = id {
            let response = match result {
                Ok(value) => Response::result(id, &value),
                Err(error) => Response::error(id, error),
            };
            self.write(&response.to_line()).await?;
        }
        if self.wrong_tokens >= TOKEN_TRIES_MAX {
            tracing::warn!(caller = %self.who, "cut off: {TOKEN_TRIES_MAX} wrong tokens");
            return Err(Over);
        }
        Ok(())
    }

    fn subscribe(&mut self, asked: Subscription) -> Result<Value, RpcError> {
        if asked.kinds.len() > KINDS_MAX {
            let message = format!("a subscription names {KINDS_MAX} kinds at most");
            return Err(RpcError::new(ErrorCode::LimitReached, message, "nothing", "name none for all"));
        }
        let (kept, events) = self.calls.node.events.subscribe();
        let after = kept.last().map_or(0, |event| event.number);
        self.subscriber = Some(Subscriber { events, asked });
        Ok(json!(Subscribed { after }))
    }

    fn watch(&mut self, params: &WatchParams, result: Result<Value, RpcError>) -> Result<Value, RpcError> {
        self.watches.retain(|watch| watch.session != params.session);
        if self.watches.len() >= WATCHES_MAX {
            let message = format!("one connection watches {WATCHES_MAX} sessions at most");
            return Err(RpcError::new(
                ErrorCode::LimitReached,
                message,
                "nothing",
                "watch from a second connection",
            ));
        }
        let interval = Duration::from_millis(params.interval_ms);
        self.watches.push(Watch { session: params.session, interval, due: Instant::now() });
        result
    }

    async fn event(&mut self, event: Result<Arc<Event>, RecvError>) -> Result<(), Over> {
        // A role that was taken away ends what it gave.
        if self.calls.role(&self.who).is_none() {
            return Err(Over);
        }
        match event {
            Ok(event)
                if self.subscriber.as_ref().is_some_and(|subscriber| subscriber.asked.wants(&event)) =>
            {
                self.write(&Notification::new(EVENT, &*event).to_line()).await
            }
            Ok(_) => Ok(()),
            Err(RecvError::Lagged(count)) => {
                self.calls.node.metrics.events_lost(count);
                self.write(&Notification::new(EVENTS_LOST, &EventsLost { count }).to_line()).await
            }
            Err(RecvError::Closed) => Err(Over),
        }
    }

    /// Tells what is due of watched sessions; one that has ended is told once more and forgotten.
    async fn tell_watched(&mut self) -> Result<(), Over> {
        let now = Instant::now();
        if self.watches.iter().all(|watch| watch.due > now) {
            return Ok(());
        }
        if self.calls.role(&self.who).is_none() {
            return Err(Over);
        }
        let mut kept = Vec::with_capacity(self.watches.len());
        for mut watch in std::mem::take(&mut self.watches) {
            if watch.due > now {
                kept.push(watch);
                continue;
            }
            // One that nobody remembers has nothing more to tell.
            let Some(record) = self.calls.node.sessions.get(watch.session) else { continue };
            let ended = record.state.is_ended();
            let method = if ended { SESSION_ENDED } else { SESSION_PROGRESS };
            self.write(&Notification::new(method, &record).to_line()).await?;
            if !ended {
                watch.due = now + watch.interval;
                kept.push(watch);
            }
        }
        self.watches = kept;
        Ok(())
    }
}
