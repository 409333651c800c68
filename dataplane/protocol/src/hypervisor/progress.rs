//! What the parser has learnt of a migration: for progress bars and session records, never for decisions about
//! bytes.

use super::span::BlockId;

/// What a connection carries, told from its first bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// Too few bytes have come to tell.
    #[default]
    Unknown,
    /// QEMU's main migration connection.
    QemuMain,
    /// One of QEMU's multifd connections.
    QemuMultifd,
    /// QEMU's postcopy preempt connection: RAM records without sections.
    QemuPreempt,
    /// TLS, another hypervisor, a disk, anything: carried as it is. A connection whose kind was known keeps that
    /// kind even if later bytes are not understood.
    Opaque,
}

/// How far the migration is, as far as this connection shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamPhase {
    /// Headers, capabilities and the list of RAM blocks; and every connection that shows no phase.
    #[default]
    Setup,
    /// RAM is being sent while the guest runs at the source.
    Precopy,
    /// The source has stopped the guest: the last RAM section has ended, or QEMU has announced the switchover.
    Switchover,
    /// The device state has gone in one package, and the guest's remaining pages follow.
    Postcopy,
    /// QEMU's end marker has been seen. Only postcopy's is: after precopy the marker lies inside the opaque tail.
    Ended,
}

/// A snapshot of what one connection has shown so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamProgress {
    /// What the connection carries.
    pub kind: StreamKind,
    /// How far the migration is.
    pub phase: StreamPhase,
    /// The source has stopped its guest: what QEMU sends only then has begun, that is the last section of RAM
    /// (`ram_save_complete` in `migration/ram.c`) or the announcement of the switchover.
    pub stopped: bool,
    /// The guest's RAM as QEMU announced it, in bytes; 0 until then and on connections that do not say.
    pub ram_total_bytes: u64,
    /// Pages sent with contents, in whatever form: whole, XBZRLE or compressed by QEMU.
    pub pages: u64,
    /// Pages announced as zero.
    pub zero_pages: u64,
    /// Passes over the guest's memory that have begun, counted until postcopy. QEMU's stream does not number
    /// them; it sends a pass in ascending order, so a step back to an earlier block or offset begins the next.
    /// Where pages go over multifd, the flushes of QEMU 8.1 and later are counted instead: up to two a pass.
    /// Older QEMU with multifd shows no passes: 0.
    pub iterations: u32,
    /// The machine type's name, such as `pc-q35-10.0`.
    pub machine: Option<String>,
}

/// Keeps [`StreamProgress`] up to date.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    progress: StreamProgress,
    last: Option<(BlockId, u64)>,
    passes: u32,
    flushes: u32,
}

impl Tracker {
    pub(super) fn progress(&self) -> StreamProgress {
        StreamProgress { iterations: self.passes.max(self.flushes), ..self.progress.clone() }
    }

    pub(super) fn set_kind(&mut self, kind: StreamKind) {
        self.progress.kind = kind;
    }

    /// Moves on to `phase`; a migration never goes back to an earlier one.
    pub(super) fn enter(&mut self, phase: StreamPhase) {
        self.progress.phase = self.progress.phase.max(phase);
    }

    /// What is sent from here on is sent by a source that has stopped its guest.
    pub(super) fn stop(&mut self) {
        self.progress.stopped = true;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.progress.stopped
    }

    pub(super) fn set_ram_total(&mut self, bytes: u64) {
        self.progress.ram_total_bytes = bytes;
    }

    pub(super) fn set_machine(&mut self, name: &[u8]) {
        self.progress.machine = Some(String::from_utf8_lossy(name).into_owned());
    }

    /// A run of pages with contents, in stream order.
    pub(super) fn pages(&mut self, block: BlockId, offset: u64, count: u32) {
        self.progress.pages = self.progress.pages.saturating_add(u64::from(count));
        self.note(block, offset, count);
    }

    /// A run of zero pages, in stream order.
    pub(super) fn zero_pages(&mut self, block: BlockId, offset: u64, count: u32) {
        self.progress.zero_pages = self.progress.zero_pages.saturating_add(u64::from(count));
        self.note(block, offset, count);
    }

    /// Pages of a multifd packet, whose order says nothing: the packets of a pass are spread over connections.
    pub(super) fn packet(&mut self, pages: u32, zero_pages: u32) {
        self.progress.pages = self.progress.pages.saturating_add(u64::from(pages));
        self.progress.zero_pages = self.progress.zero_pages.saturating_add(u64::from(zero_pages));
    }

    /// The main connection told multifd to flush.
    pub(super) fn flush(&mut self) {
        if self.progress.phase == StreamPhase::Precopy {
            self.flushes = self.flushes.saturating_add(1);
        }
    }

    fn note(&mut self, block: BlockId, offset: u64, count: u32) {
        if self.progress.phase >= StreamPhase::Postcopy {
            return;
        }
        if self.last.is_none_or(|last| (block, offset) <= last) {
            self.passes = self.passes.saturating_add(1);
        }
        let pages = u64::from(count.saturating_sub(1));
        let end = offset.saturating_add(pages.saturating_mul(crate::limits::PAGE_BYTES as u64));
        self.last = Some((block, end));
    }
}
