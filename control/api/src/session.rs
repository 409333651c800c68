//! `session.*`: parameters and results.

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::ident::{SessionId, Token};
use crate::label::LabelledEndpoint;
use crate::limits::{
    CONNECTIONS_MAX, LABELLED_MAX, LANES_MAX, LEVEL_MAX, ORIGINS_MAX, RATE_LIMIT_BYTES_PER_S, STREAMS_MAX,
    TENANT_BYTES_MAX, TEXT_BYTES_MAX, TIME_MS_MAX, WATCH_INTERVAL_MS_MIN, WEIGHT_MAX,
};
use crate::origin::Origin;
use crate::peers::PeerIdentity;
use crate::record::SessionRecord;

/// Which end of the migration a gateway serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Beside the hypervisor that the guest leaves.
    Source,
    /// Beside the hypervisor that the guest goes to.
    Destination,
}

/// How page bodies are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// Chosen batch by batch from what the link and the CPU allow.
    #[default]
    Adaptive,
    /// Bodies as they are; zero pages still cost nothing.
    None,
    /// Always lz4, unless a batch does not shrink.
    Lz4,
    /// Always zstd at the session's level, unless a batch does not shrink.
    Zstd,
}

/// What a session's caller may choose. Every field has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SessionOptions {
    /// Lanes (ordered codec states) of the session, 1 to 64; at least as many as the source's gateway has shards. Default 1.
    pub lanes: u32,
    /// Transport connections to the peer gateway at least, 1 to 512; there are more while they help, within the gateway's own
    /// bounds. Default 1: as many as the gateway has by itself.
    pub streams: u32,
    /// Its part of a path that sessions share, against theirs, 1 to 1000: one of 200 gets twice what one of 100 does. Default 100,
    /// which is not said, so that older gateways take it.
    #[serde(skip_serializing_if = "is_usual_weight")]
    pub weight: u32,
    /// Most bytes a second that this side sends to its peer, encoded, without what TLS, TCP and IP add: 125,000 (1 Mbit/s) to
    /// 125,000,000,000, or 0: whatever the path takes. Default 0, which is not said, so that older gateways take it.
    #[serde(skip_serializing_if = "is_no_limit")]
    pub rate_limit_bytes_per_s: u64,
    /// Whether every batch carries the running BLAKE3. Default true.
    pub digest: bool,
    /// Compression. Default adaptive.
    pub codec: Codec,
    /// Compression level of zstd, 0 to 22; 0 is zstd's own default. Default 3.
    pub level: u32,
    /// Whether the gateways remember what they carried, and send of a page only what the far side does not have. How much
    /// memory that may take is the gateways' own to say. Default true.
    pub enable_delta: bool,
    /// How long the session outlives the loss of all its streams while the guest runs, in milliseconds. Default
    /// 60,000.
    pub outage_ms: u64,
    /// How long the source waits for the hypervisor's first connection, and then for its first byte; how long the
    /// destination waits for the peer gateway to open the session. In milliseconds. Default 30,000.
    pub accept_timeout_ms: u64,
    /// How long to wait for the peer gateway when opening, in milliseconds. Default 10,000.
    pub open_timeout_ms: u64,
    /// How long the session lives while no byte moves on any of its connections, in milliseconds; 0: for ever. Default
    /// 3,600,000, an hour: a migration may wait for its operator, and a disk's connection for its guest.
    pub idle_timeout_ms: u64,
    /// Hypervisor connections carried at most, labelled ones included, 1 to 257. Default 16.
    pub connections_max: u32,
    /// Whether the destination hypervisor may run the guest by itself once it has the last byte. Then a gateway
    /// holds the source's sockets open after a late failure, because closing them would let the source resume
    /// too. Default true, the safe answer; `novactl` says false because it starts the destination itself.
    pub destination_may_start: bool,
}

/// The weight of a session that names none.
const WEIGHT_USUAL: u32 = 100;

fn is_usual_weight(weight: &u32) -> bool {
    *weight == WEIGHT_USUAL
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_no_limit(bytes_per_s: &u64) -> bool {
    *bytes_per_s == 0
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            lanes: 1,
            streams: 1,
            weight: WEIGHT_USUAL,
            rate_limit_bytes_per_s: 0,
            digest: true,
            codec: Codec::Adaptive,
            level: 3,
            enable_delta: true,
            outage_ms: 60_000,
            accept_timeout_ms: 30_000,
            open_timeout_ms: 10_000,
            idle_timeout_ms: 3_600_000,
            connections_max: 16,
            destination_may_start: true,
        }
    }
}

impl SessionOptions {
    /// Checks every bound of [`crate::limits`].
    ///
    /// # Errors
    /// A sentence that names the option and its range.
    pub fn check(&self) -> Result<(), String> {
        let counts = [
            ("lanes", self.lanes, 1, LANES_MAX),
            ("streams", self.streams, 1, STREAMS_MAX),
            ("weight", self.weight, 1, WEIGHT_MAX),
            ("level", self.level, 0, LEVEL_MAX),
            ("connections_max", self.connections_max, 1, CONNECTIONS_MAX),
        ];
        for (name, value, min, max) in counts {
            if !(min..=max).contains(&value) {
                return Err(format!("{name} is {value}; it must be from {min} to {max}"));
            }
        }
        let (limit, limits) = (self.rate_limit_bytes_per_s, RATE_LIMIT_BYTES_PER_S);
        if limit != 0 && !limits.contains(&limit) {
            let (min, max) = limits.into_inner();
            return Err(format!("rate_limit_bytes_per_s is {limit}; it must be 0 or from {min} to {max}"));
        }
        let times = [
            ("outage_ms", self.outage_ms),
            ("accept_timeout_ms", self.accept_timeout_ms),
            ("open_timeout_ms", self.open_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
        ];
        for (name, value) in times {
            if value > TIME_MS_MAX {
                return Err(format!("{name} is {value}; it must be at most {TIME_MS_MAX}"));
            }
        }
        Ok(())
    }
}

/// What a side needs to know of the world around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionSide {
    /// Dial the peer gateway, listen for the source hypervisor.
    Source {
        /// The destination side's gateway.
        peer: Endpoint,
        /// Where the source hypervisor will connect; TCP port 0 lets the gateway choose.
        listen: Endpoint,
    },
    /// Wait for the peer gateway, connect to the destination hypervisor when the source's connects.
    Destination {
        /// Where the destination hypervisor listens.
        connect: Endpoint,
    },
}

impl SessionSide {
    /// Its role.
    pub fn role(&self) -> Role {
        match self {
            Self::Source { .. } => Role::Source,
            Self::Destination { .. } => Role::Destination,
        }
    }
}

/// Parameters of `session.open`, checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "OpenFields", into = "OpenFields")]
pub struct SessionOpen {
    /// The session's name, the same at both gateways.
    pub session: SessionId,
    /// The session's secret, the same at both gateways.
    pub token: Token,
    /// Role and addresses.
    pub side: SessionSide,
    /// Choices; the two gateways agree on the ones that both must share.
    pub options: SessionOptions,
    /// Free text for people, at most 512 bytes.
    pub label: String,
    /// Connections beside the migration's, opaque to the gateways: where they meet this gateway. Each label stands once,
    /// and the same ones at both gateways.
    pub labelled: Vec<LabelledEndpoint>,
    /// At the source: who may connect as its hypervisor. Addresses bind the TCP listeners and users the unix ones; empty,
    /// or nothing of a listener's kind: whoever reaches the socket.
    pub from: Vec<Origin>,
    /// In whose name the session is opened, at most 64 bytes: a tenant has a limit of its own. Empty is a tenant like any
    /// other.
    pub tenant: String,
    /// Which gateway the peer has to be. Without it, any that `peers.toml` allows.
    pub peer_identity: Option<PeerIdentity>,
}

impl SessionOpen {
    /// A session of this name, secret and side, everything else at its default.
    pub fn new(session: SessionId, token: Token, side: SessionSide) -> Self {
        let (options, label, labelled, from, tenant, peer_identity) = Default::default();
        Self { session, token, side, options, label, labelled, from, tenant, peer_identity }
    }
}

/// `session.open` as it is written: one flat object.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenFields {
    session: SessionId,
    token: Token,
    role: Role,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<Endpoint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listen: Option<Endpoint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connect: Option<Endpoint>,
    #[serde(default)]
    options: SessionOptions,
    #[serde(default)]
    label: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    labelled: Vec<LabelledEndpoint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    from: Vec<Origin>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    tenant: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer_identity: Option<PeerIdentity>,
}

impl TryFrom<OpenFields> for SessionOpen {
    type Error = String;

    fn try_from(fields: OpenFields) -> Result<Self, String> {
        let side = match (fields.role, fields.peer, fields.listen, fields.connect) {
            (Role::Source, Some(peer), Some(listen), None) => SessionSide::Source { peer, listen },
            (Role::Destination, None, None, Some(connect)) => SessionSide::Destination { connect },
            (Role::Source, ..) => return Err("the role source takes peer and listen, and no connect".into()),
            (Role::Destination, ..) => {
                return Err("the role destination takes connect, and neither peer nor listen".into());
            }
        };
        match &side {
            SessionSide::Source { peer: Endpoint::Unix(_), .. } => {
                return Err("peer must be a tcp endpoint".into());
            }
            SessionSide::Source { peer: dialed, .. } | SessionSide::Destination { connect: dialed }
                if !dialed.is_dialable() =>
            {
                return Err("port 0 cannot be dialled".into());
            }
            _ => {}
        }
        fields.options.check()?;
        check_text("label", &fields.label)?;
        check_tenant(&fields.tenant)?;
        check_labelled(&side, &fields.labelled)?;
        check_from(&side, &fields.from)?;
        let OpenFields { session, token, options, label, labelled, from, tenant, peer_identity, .. } = fields;
        Ok(Self { session, token, side, options, label, labelled, from, tenant, peer_identity })
    }
}

impl From<SessionOpen> for OpenFields {
    fn from(open: SessionOpen) -> Self {
        let role = open.side.role();
        let (peer, listen, connect) = match open.side {
            SessionSide::Source { peer, listen } => (Some(peer), Some(listen), None),
            SessionSide::Destination { connect } => (None, None, Some(connect)),
        };
        let SessionOpen { session, token, options, label, labelled, from, tenant, peer_identity, .. } = open;
        Self {
            session,
            token,
            role,
            peer,
            listen,
            connect,
            options,
            label,
            labelled,
            from,
            tenant,
            peer_identity,
        }
    }
}

fn check_labelled(side: &SessionSide, labelled: &[LabelledEndpoint]) -> Result<(), String> {
    if labelled.len() > LABELLED_MAX {
        return Err(format!("labelled names {} endpoints; at most {LABELLED_MAX} are taken", labelled.len()));
    }
    let main = match side {
        SessionSide::Source { listen, .. } => listen,
        SessionSide::Destination { connect } => connect,
    };
    for (at, entry) in labelled.iter().enumerate() {
        let others = &labelled[..at];
        if others.iter().any(|other| other.label == entry.label) {
            return Err(format!("the label '{}' stands twice: a label has one endpoint", entry.label));
        }
        // Two labels may lead to one server at the destination; at the source a socket has one meaning.
        let taken = *main == entry.endpoint || others.iter().any(|other| other.endpoint == entry.endpoint);
        if taken && side.role() == Role::Source && entry.endpoint.is_dialable() {
            return Err(format!("{} is named twice: what connects there has one label", entry.endpoint));
        }
        if side.role() == Role::Destination && !entry.endpoint.is_dialable() {
            return Err("port 0 cannot be dialled".into());
        }
    }
    Ok(())
}

fn check_from(side: &SessionSide, from: &[Origin]) -> Result<(), String> {
    if side.role() == Role::Destination && !from.is_empty() {
        return Err("from belongs to the source's side: hypervisors connect there".into());
    }
    if from.len() > ORIGINS_MAX {
        return Err(format!("from names {} origins; at most {ORIGINS_MAX} are taken", from.len()));
    }
    Ok(())
}

/// A tenant's name goes into logs and messages, so it is one plain word.
fn check_tenant(tenant: &str) -> Result<(), String> {
    if tenant.len() > TENANT_BYTES_MAX || !tenant.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "tenant must be at most {TENANT_BYTES_MAX} letters, digits and signs, without spaces"
        ));
    }
    Ok(())
}

fn check_text(name: &str, text: &str) -> Result<(), String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("{name} is {} bytes long; at most {TEXT_BYTES_MAX} are taken", text.len()));
    }
    Ok(())
}

/// Result of `session.open`. At the source it comes only after the peer gateway accepted the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OpenResult {
    /// The session.
    pub session: SessionId,
    /// Where the source hypervisor must connect, as bound; `null` at the destination.
    #[serde(default)]
    pub listen: Option<Endpoint>,
    /// At the source, where labelled connections must connect, as bound.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labelled: Vec<LabelledEndpoint>,
}

/// Parameters that only name a session: `session.get`, `session.release`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SessionRef {
    /// The session.
    pub session: SessionId,
}

/// Parameters of `session.cancel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct CancelParams {
    /// The session.
    pub session: SessionId,
    /// Why, for the record; at most 512 bytes.
    #[serde(default)]
    pub reason: String,
}

impl CancelParams {
    pub(crate) fn check(&self) -> Result<(), String> {
        check_text("reason", &self.reason)
    }
}

/// Parameters of `session.watch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct WatchParams {
    /// The session.
    pub session: SessionId,
    /// Time between two notifications, in milliseconds, at least 10. Default 250.
    #[serde(default = "interval_ms_default")]
    pub interval_ms: u64,
}

fn interval_ms_default() -> u64 {
    250
}

impl WatchParams {
    pub(crate) fn check(&self) -> Result<(), String> {
        if !(WATCH_INTERVAL_MS_MIN..=TIME_MS_MAX).contains(&self.interval_ms) {
            return Err(format!("interval_ms must be from {WATCH_INTERVAL_MS_MIN} to {TIME_MS_MAX}"));
        }
        Ok(())
    }
}

/// Result of `session.watch`; `session.progress` and one `session.ended` notification follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct WatchResult {
    /// Always true.
    pub watching: bool,
}

/// Result of `session.list`: live sessions and the last 64 that ended, oldest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SessionList {
    /// The records.
    pub sessions: Vec<SessionRecord>,
}
