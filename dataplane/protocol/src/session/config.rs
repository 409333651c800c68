//! What a caller asks a session to be.

use super::Ends;
use crate::limits::{
    CONNECTIONS_DEFAULT, EXPECT_TIMEOUT, FIRST_BYTE_TIMEOUT, LANES_DEFAULT, MEMORY_BYTES_DEFAULT,
    OPEN_TIMEOUT, OUTAGE_RUNNING, RECEIVE_WINDOW_BYTES, ZSTD_LEVEL_DEFAULT,
};
use crate::page::policy::Mode;
use crate::stream::{MemoryBudget, ReceiveMemory};
use crate::wire::{Accept, Open};
use std::time::Duration;

/// Which side of the migration a gateway stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The source's hypervisor connects here.
    Source,
    /// This gateway connects to the destination's hypervisor.
    Destination,
}

/// What a proof says that its sender does.
const OPEN: &str = "dwcp open";
const ACCEPT: &str = "dwcp accept";

/// A secret that both callers gave to their gateways. It never crosses the wire: only keyed digests do.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// A token from its bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Token(bytes)
    }

    /// Proof of knowing the token, good for one meaning, session, epoch, pair of processes, and for these terms (DWCP-12).
    fn proof(&self, meaning: &str, session: u64, epoch: u32, ends: &Ends, terms: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(meaning.as_bytes());
        hasher.update(&session.to_le_bytes());
        hasher.update(&epoch.to_le_bytes());
        hasher.update(&ends.dialler.instance);
        hasher.update(&ends.acceptor.instance);
        hasher.update(terms);
        hasher.finalize()
    }
}

/// Secrets stay out of logs.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What a caller asks a session to be.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Which side this is.
    pub role: Role,
    /// The session's number, the same at both gateways.
    pub session: u64,
    /// Which run of sequence numbers; 0 for a session that was never rebuilt.
    pub epoch: u32,
    /// The session's secret, the same at both gateways.
    pub token: Token,
    /// Page lanes. The source proposes, the destination follows.
    pub lanes: u16,
    /// How this side encodes guest pages; a destination has none to encode.
    pub codec: Mode,
    /// How many work for this session's codecs. 1: encoding and decoding are done within its calls. More: it hands out
    /// jobs ([`crate::session::Session::next_job`]) and waits for what was done.
    pub codec_workers: u16,
    /// Whether batches carry digests. The source proposes, the destination follows.
    pub digest: bool,
    /// Most connections. The destination takes the lesser of both.
    pub connections_max: u16,
    /// Most guest bytes promised to each connection that this side receives on.
    pub receive_window: u64,
    /// Whose memory that is. Shared with other sessions, each connection begins with less and gets more as it is read.
    pub receive_memory: ReceiveMemory,
    /// Most bytes that this side spends on remembering what page lanes carried; 0: nothing is remembered. The source proposes
    /// what it has, the destination takes the lesser of both.
    pub memory_bytes: u64,
    /// Of what, together with other sessions.
    pub memory_budget: MemoryBudget,
    /// How long the session outlives the loss of every stream while the guest runs.
    pub outage: Duration,
    /// How long a source waits for its peer's answer.
    pub open_timeout: Duration,
    /// How long a source waits for the first byte of its hypervisor once that has connected.
    pub first_byte_timeout: Duration,
    /// How long a destination waits to be opened.
    pub expect_timeout: Duration,
    /// Whether the destination's guest may start without anyone's command (QEMU without `-S`).
    pub destination_may_start: bool,
}

impl SessionConfig {
    /// An opening on a stream between these ends, with its proof.
    pub(crate) fn prove_open(&self, mut open: Open, ends: &Ends) -> Open {
        open.proof = *self.token.proof(OPEN, self.session, self.epoch, ends, &open.terms()).as_bytes();
        open
    }

    /// The answer to one, with its proof.
    pub(crate) fn prove_accept(&self, mut accept: Accept, ends: &Ends) -> Accept {
        accept.proof = *self.token.proof(ACCEPT, self.session, self.epoch, ends, &accept.terms()).as_bytes();
        accept
    }

    /// Whether who sent this opening, on a stream between these ends, knows the session's token and meant these terms
    /// (DWCP-12).
    pub fn is_opened_by(&self, open: &Open, ends: &Ends) -> bool {
        // `blake3::Hash` compares in constant time.
        self.token.proof(OPEN, self.session, self.epoch, ends, &open.terms()) == open.proof
    }

    /// The same of an answer.
    pub(crate) fn is_accepted_by(&self, accept: &Accept, ends: &Ends) -> bool {
        self.token.proof(ACCEPT, self.session, self.epoch, ends, &accept.terms()) == accept.proof
    }

    /// A session with every bound at its default.
    pub fn new(role: Role, session: u64, token: Token) -> Self {
        SessionConfig {
            role,
            session,
            epoch: 0,
            token,
            lanes: LANES_DEFAULT,
            codec: Mode::Adaptive { level: ZSTD_LEVEL_DEFAULT },
            codec_workers: 1,
            digest: true,
            connections_max: CONNECTIONS_DEFAULT,
            receive_window: RECEIVE_WINDOW_BYTES,
            receive_memory: ReceiveMemory::unshared(),
            memory_bytes: MEMORY_BYTES_DEFAULT,
            memory_budget: MemoryBudget::unshared(),
            outage: OUTAGE_RUNNING,
            open_timeout: OPEN_TIMEOUT,
            first_byte_timeout: FIRST_BYTE_TIMEOUT,
            expect_timeout: EXPECT_TIMEOUT,
            destination_may_start: true,
        }
    }
}
