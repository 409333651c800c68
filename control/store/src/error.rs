//! What can go wrong between a caller and what is stored.

/// A call that did not do what it should. Unless a variant says otherwise nothing was changed and nothing was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// PostgreSQL does not answer, or refuses the connection. A write whose answer was lost may have been stored; doing
    /// it again is harmless, because every write is idempotent.
    #[error(
        "the database cannot be reached: {what}. It is tried again by itself; see that it runs and that its address, certificates and password are right"
    )]
    Unreachable {
        /// What the attempt ended with.
        what: String,
    },
    /// Another process holds the database.
    #[error(
        "the database is locked by another process: {what}. Nothing was changed; find who holds it (a backup, a second control process, a shell)"
    )]
    Locked {
        /// What the database said.
        what: String,
    },
    /// No room where the database lives, or no right to write there.
    #[error(
        "the database cannot write: {what}. Nothing was changed; free space where it is stored, or see who may write there"
    )]
    Full {
        /// What the database said.
        what: String,
    },
    /// No answer within [`CALL_TIME_MAX`](crate::limits::CALL_TIME_MAX). A write may still be done; doing it again is
    /// harmless.
    #[error("the database did not answer within {seconds} s. See what keeps it busy")]
    Slow {
        /// How long was waited.
        seconds: u64,
    },
    /// More callers wait than the store admits.
    #[error("{waiting} calls wait for the database already. This one was not taken; try again in a moment")]
    Busy {
        /// The bound that was met.
        waiting: usize,
    },
    /// The spool of a database that is away is full: this record is not kept.
    #[error(
        "the database is away and the spool is full ({entries} records, {bytes} bytes): this record was NOT kept. Bring the database back; what is spooled is safe ({reason})"
    )]
    SpoolFull {
        /// Records in the spool.
        entries: usize,
        /// Bytes in the spool.
        bytes: usize,
        /// Why the database could not take it.
        reason: String,
    },
    /// Something is larger than a bound of [`crate::limits`].
    #[error("{what} is {bytes} bytes; at most {bytes_max} are stored. It was not taken")]
    TooLarge {
        /// What.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// Something cannot be stored as it is.
    #[error("{what}. It was not taken")]
    Unfit {
        /// What, and why.
        what: String,
    },
    /// Another process wrote the same place at the same moment, more often than a call tries again.
    #[error(
        "other processes keep writing to the same place: {what}. Nothing was changed; see that only one control process uses this database"
    )]
    Contended {
        /// What was being written.
        what: &'static str,
    },
    /// The database was written by a later version of this program.
    #[error(
        "the database's schema is version {found} ('{name}'), this build knows up to {known}. It was not touched; start the newer build, or restore a copy from before its upgrade"
    )]
    SchemaNewer {
        /// The version found.
        found: i64,
        /// The name it was recorded under.
        name: String,
        /// The newest that this build knows.
        known: i64,
    },
    /// An upgrade that was done is not the one that this build would have done.
    #[error(
        "upgrade {version} of the database was '{found}', this build's is '{known}': the database was not made by a release of this program. It was not touched; use another database, or restore a copy"
    )]
    SchemaForeign {
        /// The version.
        version: i64,
        /// Name and checksum found.
        found: String,
        /// Name and checksum that this build has.
        known: String,
    },
    /// What is stored cannot be read: a damaged file, or a row that this program did not write.
    #[error(
        "what is stored is damaged: {what}. Nothing was changed; copy the database away before anything else, then restore it or start a new one"
    )]
    Damaged {
        /// What, and where.
        what: String,
    },
    /// Options that cannot work.
    #[error("{what}")]
    Options {
        /// What, and what to do.
        what: String,
    },
    /// The database refused the statement for a reason that will not pass by itself.
    #[error("the database refused: {what}. Nothing was changed")]
    Refused {
        /// What it said.
        what: String,
    },
    /// The store was closed.
    #[error("the store is closed: the process is shutting down. Nothing was changed")]
    Closed,
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing the call: then a record that must not be lost
    /// goes into the spool.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Locked { .. }
                | Self::Full { .. }
                | Self::Slow { .. }
                | Self::Contended { .. }
        )
    }
}
