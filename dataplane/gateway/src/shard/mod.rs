//! A shard: one pinned thread that owns sessions, and the streams that they use. Shards share nothing but the
//! registry, which no guest byte passes.

mod accept;
mod admission;
mod budget;
mod codec;
mod connection;
mod content;
mod dial;
mod follow;
mod idle;
mod load;
mod peer;
mod placing;
mod running;
mod serving;
mod session;
mod share;
mod stream;
mod turn;
mod under_way;

pub(crate) use accept::{Handshaken, Listening, listen};
pub(crate) use codec::CodecInbox;

use crate::clock;
use crate::control::Answer;
use crate::limits::{
    NOT_BELIEVED_WAIT, PEERS_MAX, RECEIVE_POOL_BUSY, SHARD_COMMANDS_MAX, SPARE_SHARE, STRANGER_STREAMS_MAX,
};
use crate::path::{Modes, Pairs};
use crate::registry::{Misfit, Registry};
use crate::spread::Spread;
use crate::told::Told;
use crate::trust::{Known, Refusals, Trust, WRONG_PEER, WRONG_TOKEN};
use bytes::Bytes;
use codec::{CodecWork, Errand};
use content::Contents;
use novacron_control_api::{
    Codec, Endpoint, ErrorCode, PeerIdentity, RpcError, SessionOpen, SessionOptions, SessionRecord,
    SessionSide,
};
use novacron_protocol::limits::{LANES_MAX, MEMORY_BYTES_MAX, ZSTD_LEVEL_MAX};
use novacron_protocol::page::policy::Mode;
use novacron_protocol::session::{Ends, MIGRATION, Role, Session, SessionConfig, Token};
use novacron_protocol::stream::{Buffers, MemoryBudget, ReceiveMemory, StreamId};
use novacron_protocol::wire::{Identity, Open, Reason, ReasonCode};
use novacron_transport::shard::{Receiver, Sender, mailbox, sleep, spawn};
use novacron_transport::{Address, FramePool};
use peer::{Peer, Stream};
use placing::Placing;
use running::Running;
use serving::{Carriage, Served};
use share::{SendMemory, Share};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// What a shard is told to do.
pub(crate) enum Command {
    /// Opens a source's session: listens, opens it at the peer, answers.
    OpenSource { open: Box<SessionOpen>, record: Box<SessionRecord>, answer: Answer },
    /// Fails a session because somebody wants that.
    Cancel { session: u64, reason: String },
    /// Closes the sockets that a failed session holds.
    Release { session: u64 },
    /// Other peers are believed than before: closes the streams of those that are not, and fails their sessions.
    TrustChanged,
    /// Some path has another mode: streams and sessions follow it.
    ModesChanged,
    /// Serves a stream that a peer dialled, whose handshake is complete but for the answer.
    Adopt(Box<Handshaken>),
    /// Serves a stream for a session of another shard.
    Carry(Box<Carriage>),
    /// Ends the shard.
    End,
}

/// How others reach a shard.
#[derive(Clone)]
pub(crate) struct ShardHandle {
    commands: Sender<Command>,
    codec: CodecInbox,
}

/// What a shard receives on.
pub(crate) struct Mailboxes {
    commands: Receiver<Command>,
    codec: Receiver<Errand>,
}

/// The shard is gone, or takes no more commands.
#[derive(Debug)]
pub(crate) struct ShardLost;

impl ShardHandle {
    /// A handle, and what the shard receives on.
    pub(crate) fn new() -> (ShardHandle, Mailboxes) {
        let (commands, commands_received) = mailbox(SHARD_COMMANDS_MAX);
        let (codec, codec_received) = CodecInbox::new();
        let handle = ShardHandle { commands, codec };
        (handle, Mailboxes { commands: commands_received, codec: codec_received })
    }

    pub(crate) fn send(&self, command: Command) -> Result<(), ShardLost> {
        self.commands.try_send(command).map_err(|_| ShardLost)
    }
}

/// One shard's state. Everything in it belongs to this thread.
pub(crate) struct Shard {
    index: usize,
    registry: Arc<Registry>,
    identity: Identity,
    /// Who may be a peer; `None`: nothing is encrypted, and anybody may.
    trust: Option<Arc<Trust>>,
    /// Who was refused, and why.
    refusals: Arc<Refusals>,
    /// Ingress buffers, and frames to send.
    pool: FramePool,
    /// Frames received. Apart from the others: frames that wait to be acknowledged must leave room for the
    /// acknowledgements.
    receive_pool: FramePool,
    /// What sessions may keep until it is verified, and what they may promise to their peers.
    send_memory: Rc<SendMemory>,
    receive_memory: ReceiveMemory,
    /// Memory that frames and batches of any session were made in.
    buffers: Buffers,
    delta_bytes: u64,
    delta_memory: MemoryBudget,
    /// Pages that sessions have brought, for others.
    contents: Contents,
    /// What this shard encodes and decodes, for its own sessions and for others'.
    codecs: Rc<CodecWork>,
    sessions: RefCell<BTreeMap<u64, Rc<Running>>>,
    dialled: RefCell<HashMap<Dialled, Rc<Peer>>>,
    accepted: RefCell<HashMap<Dialler, Rc<Peer>>>,
    streams_ever: Cell<u32>,
    /// Every shard, this one included, and which of them serve this one's streams.
    shards: Vec<ShardHandle>,
    placing: Placing,
    spread: Arc<Spread>,
    /// What of the modes' profiles is told otherwise.
    told: Told,
    /// Which mode the path to each peer has.
    modes: Arc<Modes>,
    /// Whom it shares the secret of probes with.
    pairs: Arc<Pairs>,
    ending: Cell<bool>,
}

/// Where a peer is dialled, and who is to be found there.
type Dialled = (String, Option<PeerIdentity>);

/// A dialling process and one of its groups of streams.
type Dialler = (Identity, u16);

/// What every shard is given.
#[derive(Clone)]
pub(crate) struct ShardConfig {
    pub(crate) registry: Arc<Registry>,
    pub(crate) identity: Identity,
    pub(crate) trust: Option<Arc<Trust>>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) pool_bytes: usize,
    pub(crate) promised_bytes: usize,
    pub(crate) told: Told,
    pub(crate) modes: Arc<Modes>,
    pub(crate) pairs: Arc<Pairs>,
    /// What a session may spend on remembering, and whose memory that is: every shard's.
    pub(crate) delta_bytes: u64,
    pub(crate) delta_memory: MemoryBudget,
    /// What content stores spend together, and for how long one is kept after its last session.
    pub(crate) content_memory: MemoryBudget,
    pub(crate) content_keep: Duration,
    /// Every shard, this one included, and their processors; none where the kernel moves them about.
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) cpus: Vec<usize>,
    /// Where packets arrive on a processor of their own.
    pub(crate) spread: Arc<Spread>,
}

/// Runs a shard until it is told to end.
pub(crate) async fn run(index: usize, config: ShardConfig, mailboxes: Mailboxes) {
    let Mailboxes { mut commands, codec } = mailboxes;
    let codecs = CodecWork::new(index, config.shards.iter().map(|shard| shard.codec.clone()).collect());
    spawn(codec::receive(Rc::clone(&codecs), codec)).detach();
    spawn(codec::work(Rc::clone(&codecs))).detach();
    let placing = Placing::new(index, config.shards.len(), config.cpus);
    let shard = Rc::new(Shard {
        index,
        registry: config.registry,
        identity: config.identity,
        trust: config.trust,
        refusals: config.refusals,
        pool: FramePool::new(config.pool_bytes),
        receive_pool: FramePool::new(config.pool_bytes),
        send_memory: SendMemory::new(config.pool_bytes as u64),
        receive_memory: ReceiveMemory::new(config.promised_bytes as u64),
        buffers: Buffers::new(config.pool_bytes / SPARE_SHARE),
        delta_bytes: config.delta_bytes,
        delta_memory: config.delta_memory,
        contents: Contents::new(config.content_memory, config.content_keep),
        codecs,
        sessions: RefCell::default(),
        dialled: RefCell::default(),
        accepted: RefCell::default(),
        streams_ever: Cell::new(0),
        shards: config.shards,
        placing,
        spread: config.spread,
        told: config.told,
        modes: config.modes,
        pairs: config.pairs,
        ending: Cell::new(false),
    });
    while let Some(command) = commands.receive().await {
        match command {
            Command::OpenSource { open, record, answer } => {
                let shard = Rc::clone(&shard);
                spawn(async move { open_source(&shard, &open, *record, answer).await }).detach();
            }
            Command::Cancel { session, reason } => {
                if let Some(running) = shard.session(session) {
                    running.fail(Reason::new(ReasonCode::Cancelled, reason));
                }
            }
            Command::Release { session } => {
                if let Some(running) = shard.session(session) {
                    running.release();
                }
            }
            Command::TrustChanged => shard.look_again(),
            Command::ModesChanged => shard.follow_modes(),
            Command::Adopt(handshaken) => accept::adopt(&shard, *handshaken),
            Command::Carry(carriage) => spawn(serving::carry(*carriage)).detach(),
            Command::End => {
                shard.ending.set(true);
                return;
            }
        }
    }
}

/// The protocol's form of what a caller asked for, at a gateway whose shards share the codec work.
fn session_config(open: &SessionOpen, shards: u16) -> SessionConfig {
    let role = match open.side {
        SessionSide::Source { .. } => Role::Source,
        SessionSide::Destination { .. } => Role::Destination,
    };
    let SessionOptions {
        codec,
        level,
        lanes,
        digest,
        outage_ms,
        accept_timeout_ms,
        open_timeout_ms,
        connections_max,
        destination_may_start,
        enable_delta,
        rate_limit_bytes_per_s,
        ..
    } = open.options;
    let mut config = SessionConfig::new(role, open.session.0, Token::new(*open.token.expose()));
    // The API's own bounds are at most the protocol's: these conversions do not cut.
    // A lane is one shard's: a source proposes at least one a shard, so that a single session keeps all of them busy.
    config.lanes = (lanes as u16).max(shards.min(LANES_MAX));
    config.codec_workers = shards;
    config.connections_max = connections_max as u16;
    config.rate_limit = (rate_limit_bytes_per_s > 0).then_some(rate_limit_bytes_per_s);
    config.digest = digest;
    config.codec = codec_mode(codec, level);
    config.outage = Duration::from_millis(outage_ms);
    config.open_timeout = Duration::from_millis(open_timeout_ms);
    config.first_byte_timeout = Duration::from_millis(accept_timeout_ms);
    config.destination_may_start = destination_may_start;
    // How much is the gateway's to say.
    config.memory_bytes = if enable_delta { MEMORY_BYTES_MAX } else { 0 };
    config
}

/// What a caller's words for a codec mean.
fn codec_mode(codec: Codec, level: u32) -> Mode {
    let level = i32::try_from(level).unwrap_or(ZSTD_LEVEL_MAX).min(ZSTD_LEVEL_MAX);
    match codec {
        Codec::Adaptive => Mode::Adaptive { level },
        Codec::None => Mode::None,
        Codec::Lz4 => Mode::Lz4,
        Codec::Zstd => Mode::Zstd { level },
    }
}

/// Opens a source's session.
async fn open_source(shard: &Rc<Shard>, open: &SessionOpen, mut record: SessionRecord, answer: Answer) {
    let SessionSide::Source { peer: endpoint, listen } = &open.side else { return };
    let mut listeners = Vec::with_capacity(1 + open.labelled.len());
    let labelled = open.labelled.iter().map(|named| (named.label.as_str(), &named.endpoint));
    for (label, endpoint) in std::iter::once((MIGRATION, listen)).chain(labelled) {
        match session::bind(endpoint).await {
            Ok(listener) => listeners.push((label, listener)),
            Err(why) => {
                let message = format!("hypervisors cannot connect at {endpoint}: {why}");
                let next = "choose another address, or remove what stands there, and open the session again";
                let error = RpcError::new(ErrorCode::BindFailed, message.clone(), "nothing", next);
                record.state = novacron_control_api::SessionState::Failed;
                record.reason = Some(novacron_control_api::Reason { code: "bind_failed".into(), message });
                record.ended_at = Some(novacron_control_api::Timestamp::now());
                shard.registry.end(record, None);
                // The caller may have hung up.
                let _ = answer.try_send(Err(error));
                return;
            }
        }
    }
    record.listen = listeners.first().and_then(|(_, listener)| listener.address().to_string().parse().ok());
    for (named, (_, listener)) in record.labelled.iter_mut().zip(&listeners[1..]) {
        if let Ok(actual) = listener.address().to_string().parse() {
            named.endpoint = actual;
        }
    }
    let accept_wait = Duration::from_millis(open.options.accept_timeout_ms);
    let peer = shard.dialled_peer(endpoint, open.peer_identity.as_ref());
    let config = session_config(open, shard.codecs.workers());
    let config = shard.contents.for_source(&open.tenant, shard.with_memory(config));
    let core = Session::source(config, clock::now());
    let (side, options) = (open.side.clone(), &open.options);
    let running = Running::new(core, record, side, Rc::clone(&peer), Some(answer), options, shard.share());
    shard.start(&running, open.options.streams as usize);
    for (label, listener) in listeners {
        let door =
            session::Door { label: label.to_owned(), listener, from: open.from.clone(), wait: accept_wait };
        spawn(session::accept(Rc::clone(shard), Rc::clone(&running), door)).detach();
    }
}

impl Shard {
    pub(crate) fn session(&self, session: u64) -> Option<Rc<Running>> {
        self.sessions.borrow().get(&session).cloned()
    }

    /// A new session's share of the memory for what it sends.
    fn share(&self) -> Share {
        Share::new(Rc::clone(&self.send_memory))
    }

    /// The session receives into this shard's memory, and remembers in the process's.
    fn with_memory(&self, config: SessionConfig) -> SessionConfig {
        SessionConfig {
            receive_memory: self.receive_memory.clone(),
            buffers: self.buffers.clone(),
            memory_bytes: config.memory_bytes.min(self.delta_bytes),
            memory_budget: self.delta_memory.clone(),
            ..config
        }
    }

    /// A session begins here.
    fn start(self: &Rc<Self>, running: &Rc<Running>, streams: usize) {
        self.sessions.borrow_mut().insert(running.id, Rc::clone(running));
        running.begin_codecs(&self.codecs);
        running.peer.join(running, streams);
        spawn(session::run(Rc::clone(self), Rc::clone(running))).detach();
    }

    /// A peer opens a session that this gateway's own caller announced, and nothing else. Whoever does not know its
    /// token leaves it as it is, lest a stranger spoil what was announced for another.
    pub(crate) fn begin_expected(
        self: &Rc<Self>,
        session: u64,
        opening: &Open,
        stream: &Stream,
        peer: &Rc<Peer>,
    ) -> Option<Result<Rc<Running>, Reason>> {
        let refused = Cell::new(None);
        let fits = |announced: &SessionOpen| {
            // Who does not know the token learns nothing of the session, nor whose it is.
            session_config(announced, 1).witness().is_opened_by(opening, &stream.ends)
                && self.may_open(announced, stream).map_err(|why| refused.set(Some(why))).is_ok()
        };
        let mut expected = match self.registry.take_expected(session, self.index, fits)? {
            Ok(expected) => expected,
            Err(Misfit) => {
                if let Some(why) = refused.take() {
                    return Some(Err(Reason::new(ReasonCode::NotAuthorised, why)));
                }
                self.refusals.count(WRONG_TOKEN);
                let text = "the peer gateway does not know the session's token, or its words were changed on the way";
                return Some(Err(Reason::new(ReasonCode::NotAuthorised, text)));
            }
        };
        expected.record.peer = peer.name.parse().ok();
        let config = session_config(&expected.open, self.codecs.workers());
        let config =
            self.contents.for_destination(&expected.open.tenant, &peer.name, self.with_memory(config));
        let core = Session::destination(config, clock::now());
        let running = Running::new(
            core,
            expected.record,
            expected.open.side,
            Rc::clone(peer),
            None,
            &expected.open.options,
            self.share(),
        );
        self.start(&running, 0);
        Some(Ok(running))
    }

    /// A frame where it may wait for a hypervisor: in memory of its own while much of the pool is used, so that the pool is
    /// never full of what nobody reads.
    fn settled(&self, frame: Bytes) -> Bytes {
        let busy = self.receive_pool.stats().used_bytes > self.receive_pool.bytes_max() / RECEIVE_POOL_BUSY;
        if busy { Bytes::copy_from_slice(&frame) } else { frame }
    }

    /// Closes the streams of peers that are not believed any more, and fails the sessions that they carried.
    fn look_again(&self) {
        let Some(trust) = &self.trust else { return };
        let peers: Vec<Rc<Peer>> =
            self.dialled.borrow().values().chain(self.accepted.borrow().values()).cloned().collect();
        for peer in peers {
            for stream in peer.streams() {
                let Some(known) = &stream.known else { continue };
                let Err(why) = trust.still_believes(known) else { continue };
                trust.refusals.count("ended");
                if let Some(address) = stream.address {
                    self.pairs.forget(address);
                }
                self.contents.give_up(&peer.name);
                tracing::warn!(peer = %known.identity, %why, "a peer is not believed any more: its streams and sessions end");
                let text = format!("{} is not believed any more: {why}", known.identity);
                for running in peer.sessions() {
                    running.fail(Reason::new(ReasonCode::NotAuthorised, text.clone()));
                }
                // Its last word is that the session has ended: whoever hears nothing waits for an outage to end.
                spawn(async move {
                    sleep(NOT_BELIEVED_WAIT).await;
                    stream.closing.set(true);
                    stream.wake.notify();
                })
                .detach();
            }
        }
    }

    /// Whether the peer at a stream's other end may open a session that was announced.
    fn may_open(&self, announced: &SessionOpen, stream: &Stream) -> Result<(), String> {
        let (Some(trust), Some(known)) = (&self.trust, &stream.known) else { return Ok(()) };
        if announced.peer_identity.as_ref().is_some_and(|named| *named != known.identity) {
            trust.refusals.count(WRONG_PEER);
            return Err(format!("the session was announced for another gateway than {}", known.identity));
        }
        // The stream may be older than what is believed now.
        trust.still_believes(known)?;
        trust.admits(known, &announced.tenant).map_err(|refused| {
            trust.refusals.count(refused.what);
            refused.why
        })
    }

    /// A session is over, and has said its last word.
    fn forget(self: &Rc<Self>, running: &Running) {
        self.sessions.borrow_mut().remove(&running.id);
        running.end_codecs();
        running.peer.leave(running.id);
        if let Some(wait) = self.contents.sweep() {
            let shard = Rc::clone(self);
            spawn(async move {
                sleep(wait).await;
                shard.contents.sweep();
            })
            .detach();
        }
    }

    /// The peer at `endpoint`, with a task that keeps streams to it.
    fn dialled_peer(self: &Rc<Self>, endpoint: &Endpoint, expected: Option<&PeerIdentity>) -> Rc<Peer> {
        let name = (endpoint.to_string(), expected.cloned());
        if let Some(peer) = self.dialled.borrow().get(&name) {
            return Rc::clone(peer);
        }
        let peer = Peer::new(name.0.clone(), expected.cloned(), self.trust.clone(), self.refusals.clone());
        if let Endpoint::Tcp { host, .. } = endpoint {
            // One with a name is known when its first stream is.
            self.is_at(&peer, host.parse().ok());
        }
        self.dialled.borrow_mut().insert(name, Rc::clone(&peer));
        spawn(dial::keep(Rc::clone(self), Rc::clone(&peer), endpoint.clone())).detach();
        peer
    }

    fn forget_peer(&self, endpoint: &Endpoint, expected: Option<&PeerIdentity>) {
        self.dialled.borrow_mut().remove(&(endpoint.to_string(), expected.cloned()));
    }

    /// The peer that dialled, by its process and its group of streams. `None`: there are too many.
    fn accepted_peer(&self, dialler: Identity, group: u16, name: String) -> Option<Rc<Peer>> {
        let mut accepted = self.accepted.borrow_mut();
        if let Some(peer) = accepted.get(&(dialler, group)) {
            return Some(Rc::clone(peer));
        }
        accepted.retain(|_, peer| peer.stream_count() > 0 || !peer.sessions().is_empty());
        if accepted.len() >= PEERS_MAX {
            return None;
        }
        let peer = Peer::new(name, None, self.trust.clone(), self.refusals.clone());
        accepted.insert((dialler, group), Rc::clone(&peer));
        Some(peer)
    }

    /// Where streams of peers without a session are too many, those of one of them close: a gateway whose session is still to
    /// open dials again. `new` has just come, and is spared.
    fn displace_strangers(&self, new: &Rc<Peer>) {
        let accepted = self.accepted.borrow();
        let strangers =
            || accepted.values().filter(|peer| peer.sessions().is_empty() && peer.stream_count() > 0);
        if strangers().map(|peer| peer.stream_count()).sum::<usize>() < STRANGER_STREAMS_MAX {
            return;
        }
        let most = strangers().filter(|peer| !Rc::ptr_eq(peer, new)).max_by_key(|peer| peer.stream_count());
        let displaced = most.unwrap_or(new);
        tracing::debug!(peer = %displaced.name, "streams of a peer without a session make room for another's");
        displaced.close_streams();
    }

    fn next_stream(&self) -> StreamId {
        self.streams_ever.set(self.streams_ever.get().wrapping_add(1));
        StreamId(self.streams_ever.get())
    }

    /// Streams of one shard form a group, so that the far side puts them on one shard as well.
    fn group(&self) -> u16 {
        u16::try_from(self.index).unwrap_or(u16::MAX)
    }

    /// A stream with a number of its own.
    fn stream(&self, served: &Served, ends: Ends, known: Option<Known>) -> Rc<Stream> {
        Stream::new(self.next_stream(), ends, known, served)
    }
}

/// The address at the other end of a stream.
fn peer_address(peer: &novacron_transport::Peer) -> Option<IpAddr> {
    match peer {
        novacron_transport::Peer::Tcp(address) => Some(address.ip()),
        _ => None,
    }
}

/// The transport's form of an endpoint.
fn transport_address(endpoint: &Endpoint) -> Result<Address, String> {
    endpoint.to_string().parse().map_err(|error: novacron_transport::net::AddressError| error.to_string())
}
