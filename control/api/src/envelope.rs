//! JSON-RPC 2.0 envelopes, and the total parsing of both directions.
//!
//! Any line gives a request or the error to answer with; nothing panics, and nothing is allocated beyond a small
//! multiple of the line (serde_json bounds nesting at 128).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{ErrorCode, RpcError};
use crate::limits::{ID_BYTES_MAX, LINE_BYTES_MAX};
use crate::method::{Call, shortened};

/// A request's id, echoed in its response.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A whole number.
    Number(i64),
    /// A text of at most 128 bytes.
    Text(String),
    /// `null`: of a response to a request whose id could not be read.
    Null,
}

/// A request that can be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The id to answer under; `None` means the caller wants no answer (a JSON-RPC notification).
    pub id: Option<Id>,
    /// What to do.
    pub call: Call,
}

impl Request {
    /// A request that is answered under a number.
    pub fn new(id: i64, call: Call) -> Self {
        Self { id: Some(Id::Number(id)), call }
    }

    /// The request as one line, newline included.
    pub fn to_line(&self) -> Vec<u8> {
        let mut object = Map::new();
        object.insert("jsonrpc".into(), "2.0".into());
        match &self.id {
            Some(Id::Number(number)) => object.insert("id".into(), (*number).into()),
            Some(Id::Text(text)) => object.insert("id".into(), text.clone().into()),
            Some(Id::Null) => object.insert("id".into(), Value::Null),
            None => None,
        };
        object.insert("method".into(), self.call.method().into());
        object.insert("params".into(), self.call.params());
        crate::line::to_line(&object)
    }
}

/// A line that cannot be carried out, with the answer it deserves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFault {
    /// The id to answer under; `Null` where it could not be read.
    pub id: Id,
    /// Whether the caller expects an answer. A well-formed notification with a wrong method gets none.
    pub answer: bool,
    /// What is wrong.
    pub error: RpcError,
}

impl RequestFault {
    fn unread(error: RpcError) -> Self {
        Self { id: Id::Null, answer: true, error }
    }

    /// The response to send, if any.
    pub fn into_response(self) -> Option<Response> {
        self.answer.then(|| Response::error(self.id, self.error))
    }
}

/// Reads one line as a request of a gateway.
///
/// # Errors
/// Those of [`parse_envelope`], and -32601 and -32602 for its method and parameters.
pub fn parse_request(line: &[u8]) -> Result<Request, RequestFault> {
    let Envelope { id, method, params } = parse_envelope(line)?;
    match Call::parse(&method, params) {
        Ok(call) => Ok(Request { id, call }),
        Err(error) => Err(RequestFault { answer: id.is_some(), id: id.unwrap_or(Id::Null), error }),
    }
}

/// A request whose method nobody has looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// The id to answer under; `None` means the caller wants no answer.
    pub id: Option<Id>,
    /// The method's name.
    pub method: String,
    /// Its parameters, if any.
    pub params: Option<Value>,
}

/// Reads one line as a request of any method.
///
/// # Errors
/// The fault holds the JSON-RPC error to answer with: -32700 for what is not JSON or too long, -32600 for what is
/// not a request (batches are not taken).
pub fn parse_envelope(line: &[u8]) -> Result<Envelope, RequestFault> {
    let value = parse_value(line).map_err(RequestFault::unread)?;
    let Value::Object(mut object) = value else {
        return Err(RequestFault::unread(invalid("a request must be an object; batches are not taken")));
    };
    let id = match object.remove("id") {
        None => None,
        Some(Value::Null) => Some(Id::Null),
        Some(Value::String(text)) if text.len() <= ID_BYTES_MAX => Some(Id::Text(text)),
        Some(Value::Number(number)) => match number.as_i64() {
            Some(number) => Some(Id::Number(number)),
            None => return Err(RequestFault::unread(invalid("id must be a whole number or a short text"))),
        },
        Some(_) => return Err(RequestFault::unread(invalid("id must be a whole number or a short text"))),
    };
    let fault = |error: RpcError| RequestFault { id: id.clone().unwrap_or(Id::Null), answer: true, error };
    if object.remove("jsonrpc").as_ref().and_then(Value::as_str) != Some("2.0") {
        return Err(fault(invalid("jsonrpc must be \"2.0\"")));
    }
    let Some(Value::String(method)) = object.remove("method") else {
        return Err(fault(invalid("method must be a text")));
    };
    let params = object.remove("params");
    if let Some(name) = object.keys().next() {
        return Err(fault(invalid(&format!("unknown member '{}'", shortened(name)))));
    }
    Ok(Envelope { id, method, params })
}

fn parse_value(line: &[u8]) -> Result<Value, RpcError> {
    let next = "send one JSON object a line";
    if line.len() > LINE_BYTES_MAX {
        let message = format!("a line is longer than {LINE_BYTES_MAX} bytes");
        return Err(RpcError::new(ErrorCode::ParseError, message, "nothing", next));
    }
    serde_json::from_slice(line).map_err(|error| {
        // The place, not the text: it may hold a token.
        let message = format!("the line is not JSON (column {})", error.column());
        RpcError::new(ErrorCode::ParseError, message, "nothing", next)
    })
}

fn invalid(why: &str) -> RpcError {
    RpcError::new(ErrorCode::InvalidRequest, why, "nothing", "send a JSON-RPC 2.0 request")
}

/// A response, as the gateway writes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Response {
    jsonrpc: &'static str,
    id: Id,
    #[serde(flatten)]
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Result(Value),
    Error(RpcError),
}

impl Response {
    /// A success.
    pub fn result<T: Serialize>(id: Id, result: &T) -> Self {
        let outcome = match serde_json::to_value(result) {
            Ok(value) => Outcome::Result(value),
            Err(error) => Outcome::Error(RpcError::new(
                ErrorCode::InternalError,
                format!("the result cannot be written: {error}"),
                "the answer; the call itself was carried out",
                "look at the session with session.get",
            )),
        };
        Self { jsonrpc: "2.0", id, outcome }
    }

    /// A failure.
    pub fn error(id: Id, error: RpcError) -> Self {
        Self { jsonrpc: "2.0", id, outcome: Outcome::Error(error) }
    }

    /// The response as one line, newline included.
    pub fn to_line(&self) -> Vec<u8> {
        crate::line::to_line(self)
    }
}

/// A notification, as the gateway writes it to a watcher.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Notification<'a, T> {
    jsonrpc: &'static str,
    method: &'a str,
    params: &'a T,
}

impl<'a, T: Serialize> Notification<'a, T> {
    /// A notification of this method.
    pub fn new(method: &'a str, params: &'a T) -> Self {
        Self { jsonrpc: "2.0", method, params }
    }

    /// The notification as one line, newline included.
    pub fn to_line(&self) -> Vec<u8> {
        crate::line::to_line(self)
    }
}

/// What a caller receives.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// The answer to a request.
    Response {
        /// Of this request.
        id: Id,
        /// Its result or its error.
        result: Result<Value, RpcError>,
    },
    /// Something the gateway tells by itself.
    Notification {
        /// Its name.
        method: String,
        /// Its content; `null` when absent.
        params: Value,
    },
}

/// A line from a gateway that is neither response nor notification. Whether the call was carried out is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the gateway sent a line that is not JSON-RPC 2.0: {0}")]
pub struct IncomingError(String);

/// Reads one line as what a gateway sends.
///
/// # Errors
/// [`IncomingError`] for anything that is neither a response nor a notification.
pub fn parse_incoming(line: &[u8]) -> Result<Incoming, IncomingError> {
    let value = parse_value(line).map_err(|error| IncomingError(error.message))?;
    let error = |why: &str| IncomingError(why.to_owned());
    let Value::Object(mut object) = value else { return Err(error("not an object")) };
    if object.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return Err(error("jsonrpc is not \"2.0\""));
    }
    if let Some(method) = object.remove("method") {
        let Value::String(method) = method else { return Err(error("method is not a text")) };
        return Ok(Incoming::Notification { method, params: object.remove("params").unwrap_or_default() });
    }
    let id = object.remove("id").ok_or_else(|| error("neither id nor method"))?;
    let id = serde_json::from_value(id).map_err(|_| error("id is neither number, text nor null"))?;
    match (object.remove("result"), object.remove("error")) {
        (Some(result), None) => Ok(Incoming::Response { id, result: Ok(result) }),
        (None, Some(failure)) => {
            let failure =
                serde_json::from_value(failure).map_err(|_| error("the error has no code and message"))?;
            Ok(Incoming::Response { id, result: Err(failure) })
        }
        _ => Err(error("neither a result nor an error")),
    }
}
