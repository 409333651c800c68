//! What a parser found.

/// What a connection carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamKind {
    /// Not enough bytes to tell.
    #[default]
    Unknown,
    /// QEMU's main migration stream.
    QemuMain,
}

/// How far a migration is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Before the first page.
    #[default]
    Setup,
    /// Pages while the guest runs.
    Precopy,
    /// The guest is stopped.
    Switchover,
    /// The guest runs at the destination.
    Postcopy,
    /// The stream has ended.
    Ended,
}

/// What a parser found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamProgress {
    /// What the connection carries.
    pub kind: StreamKind,
    /// How far the migration is.
    pub phase: Phase,
}
