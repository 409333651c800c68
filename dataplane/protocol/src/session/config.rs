//! What a caller asks a session to be.

use super::{Token, Witness};
use crate::limits::{
    CONNECTIONS_DEFAULT, EXPECT_TIMEOUT, FIRST_BYTE_TIMEOUT, LANES_DEFAULT, MEMORY_BYTES_DEFAULT,
    OPEN_TIMEOUT, OUTAGE_RUNNING, RECEIVE_WINDOW_BYTES, ZSTD_LEVEL_DEFAULT,
};
use crate::page::policy::Mode;
use crate::page::{ContentMemory, KnownStores};
use crate::stream::{Buffers, MemoryBudget, ReceiveMemory};
use std::time::Duration;

/// Which side of the migration a gateway stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The source's hypervisor connects here.
    Source,
    /// This gateway connects to the destination's hypervisor.
    Destination,
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
    /// Most encoded bytes a second that this side sends; `None`: whatever the path takes.
    pub rate_limit: Option<u64>,
    /// Most connections. The destination takes the lesser of both.
    pub connections_max: u16,
    /// Most guest bytes promised to each connection that this side receives on.
    pub receive_window: u64,
    /// Whose memory that is. Shared with other sessions, each connection begins with less and gets more as it is read.
    pub receive_memory: ReceiveMemory,
    /// Memory that frames and batches were made in and are to be made in again. Shared with other sessions, as they run.
    pub buffers: Buffers,
    /// Most bytes that this side spends on remembering what page lanes carried; 0: nothing is remembered. The source proposes
    /// what it has, the destination takes the lesser of both.
    pub memory_bytes: u64,
    /// Of what, together with other sessions.
    pub memory_budget: MemoryBudget,
    /// A destination's content store, to which the source may refer, shared with other sessions of its tenant; `None`: there is none.
    pub content_store: Option<ContentMemory>,
    /// What a source believes of the stores of its peers, shared with other sessions of its tenant.
    pub known_stores: KnownStores,
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
    /// Makes the session's proofs, and compares those of others.
    pub fn witness(&self) -> Witness {
        Witness::new(self.session, self.epoch, self.token.clone())
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
            rate_limit: None,
            connections_max: CONNECTIONS_DEFAULT,
            receive_window: RECEIVE_WINDOW_BYTES,
            receive_memory: ReceiveMemory::unshared(),
            buffers: Buffers::default(),
            memory_bytes: MEMORY_BYTES_DEFAULT,
            memory_budget: MemoryBudget::unshared(),
            content_store: None,
            known_stores: KnownStores::default(),
            outage: OUTAGE_RUNNING,
            open_timeout: OPEN_TIMEOUT,
            first_byte_timeout: FIRST_BYTE_TIMEOUT,
            expect_timeout: EXPECT_TIMEOUT,
            destination_may_start: true,
        }
    }
}
