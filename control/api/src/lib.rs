//! What crosses a gateway's control socket.
//!
//! The socket speaks JSON-RPC 2.0, one object a line, as SPDK's and QMP's users expect. This crate holds the
//! types and the total parsing of both directions; it opens no socket and knows no runtime, so that the gateway
//! (glommio) and `novactl` (plain blocking sockets) share it.
//!
//! ```text
//! -> {"jsonrpc":"2.0","id":1,"method":"session.get","params":{"session":"00c0ffee00c0ffee"}}
//! <- {"jsonrpc":"2.0","id":1,"result":{...SessionRecord...}}
//! <- {"jsonrpc":"2.0","method":"session.progress","params":{...SessionRecord...}}
//! <- {"jsonrpc":"2.0","id":1,"error":{"code":-32002,"message":"...","data":{"code":"session_unknown",...}}}
//! ```
#![forbid(unsafe_code)]

pub mod callers;
pub mod configuration;
pub mod control;
pub mod endpoint;
pub mod envelope;
pub mod error;
pub mod gateway;
mod hex;
pub mod ident;
pub mod label;
pub mod limits;
pub mod line;
pub mod method;
pub mod origin;
pub mod path;
pub mod peers;
pub mod record;
#[cfg(feature = "schema")]
mod schema;
pub mod session;
pub mod timestamp;

pub use callers::{CallerRule, Callers};
pub use endpoint::{Endpoint, EndpointError};
pub use envelope::{
    Envelope, Id, Incoming, Notification, Request, RequestFault, Response, parse_envelope, parse_incoming,
    parse_request,
};
pub use error::{ErrorCode, ErrorData, RpcError};
pub use gateway::{DrainParams, DrainResult, GatewayInfo, Security, StreamBounds};
pub use ident::{Digest, IdentError, SessionId, Token};
pub use label::{Label, LabelError, LabelledEndpoint, MIGRATION};
pub use line::{LineBuffer, LineTooLong, to_line};
pub use method::Call;
pub use origin::{Origin, OriginError};
pub use path::{
    ForceParams, Interval, ModeChange, PathList, PathMode, PathProfile, PathRecord, PathRef, PathSample,
    ResponderRecord,
};
pub use peers::{IdentityError, IdentityKind, PeerDirection, PeerIdentity, PeerPattern, PeerRule, Peers};
pub use record::{
    CodecBytes, CodecTimes, ConnectionDirection, ConnectionRecord, ContentRecord, DeltaMemory, Phase, Reason,
    SessionRecord, SessionState, StreamCount,
};
pub use session::{
    CancelParams, Codec, OpenResult, Role, SessionList, SessionOpen, SessionOptions, SessionRef, SessionSide,
    WatchParams, WatchResult,
};
pub use timestamp::Timestamp;
