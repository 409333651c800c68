//! The audit log in the database: appending, reading, verifying, letting go of the oldest.

use std::io::Write;

use novacron_control_api::Timestamp;

use crate::audit::{AuditDraft, AuditEntry, AuditOutcome, Broken, Head, Verifier, anchor, seal, write_line};
use crate::backend::Backend;
use crate::error::StoreError;
use crate::limits::{AUDIT_TRIES_MAX, PAGE_ITEMS_MAX, PRUNE_ROWS_MAX};
use crate::statement::{Done, Row, Statement};
use crate::store::Store;
use crate::write::unix_ms;

const COLUMNS: usize = 12;

/// Why the log could not be verified or exported.
#[derive(Debug, thiserror::Error)]
pub enum AuditFault {
    /// The chain is broken.
    #[error(transparent)]
    Broken(#[from] Broken),
    /// The database did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The export could not be written.
    #[error("the export cannot be written. The log itself is untouched")]
    Write(#[from] std::io::Error),
}

/// What a verification found: an unbroken log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Entries that were looked at.
    pub entries: u64,
    /// What retention has let go of: the last entry before the first one that is kept.
    pub base: Head,
    /// Where the log ends. Keep it elsewhere: it finds entries that are cut off later.
    pub head: Head,
}

async fn ends(backend: &Backend) -> Result<(Head, Head), StoreError> {
    let query =
        Statement::query("SELECT base_seq, base_hash, seq, hash FROM audit_head WHERE one = 1", Vec::new());
    let rows = backend.rows(query).await?;
    let row = rows
        .first()
        .ok_or_else(|| StoreError::Damaged { what: "the audit log's head is gone".to_owned() })?;
    Ok((head(row, 0)?, head(row, 2)?))
}

fn head(row: &Row, column: usize) -> Result<Head, StoreError> {
    Ok(Head { seq: row.count(column)?, hash: digest(row, column + 1)? })
}

fn digest(row: &Row, column: usize) -> Result<novacron_control_api::Digest, StoreError> {
    row.text(column)?
        .parse()
        .map_err(|error| StoreError::Damaged { what: format!("a hash of the audit log: {error}") })
}

fn entry(row: &Row) -> Result<AuditEntry, StoreError> {
    if row.0.len() != COLUMNS {
        return Err(StoreError::Damaged { what: "an audit entry lacks columns".to_owned() });
    }
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(row.count(2)?);
    let text = |column| row.text(column).map(str::to_owned);
    let outcome: AuditOutcome = row.text(8)?.parse()?;
    Ok(AuditEntry {
        seq: row.count(0)?,
        draft: AuditDraft {
            id: text(1)?,
            at: Timestamp::from(at),
            actor: text(3)?,
            role: text(4)?,
            origin: text(5)?,
            method: text(6)?,
            subject: text(7)?,
            outcome,
            detail: text(9)?,
        },
        previous: digest(row, 10)?,
        hash: digest(row, 11)?,
    })
}

fn insert(entry: &AuditEntry) -> Statement {
    let draft = &entry.draft;
    Statement::write(
        "INSERT INTO audit (seq, id, at_ms, actor, role, origin, method, subject, outcome, detail, previous, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        vec![
            entry.seq.into(),
            draft.id.as_str().into(),
            unix_ms(draft.at).into(),
            draft.actor.as_str().into(),
            draft.role.as_str().into(),
            draft.origin.as_str().into(),
            draft.method.as_str().into(),
            draft.subject.as_str().into(),
            draft.outcome.name().into(),
            draft.detail.as_str().into(),
            entry.previous.to_string().into(),
            entry.hash.to_string().into(),
        ],
    )
}

/// Moves the head from one entry to the next; nobody else may have moved it in between.
fn advance(from: Head, to: Head) -> Statement {
    Statement::write_one(
        "UPDATE audit_head SET seq = $1, hash = $2 WHERE one = 1 AND seq = $3 AND hash = $4",
        vec![to.seq.into(), to.hash.to_string().into(), from.seq.into(), from.hash.to_string().into()],
    )
}

/// Chains and stores an entry, once, whatever other processes append meanwhile. Answers with the log's head.
pub(crate) async fn append(backend: &Backend, draft: &AuditDraft) -> Result<Head, StoreError> {
    for _ in 0..AUDIT_TRIES_MAX {
        let there = Statement::query("SELECT seq FROM audit WHERE id = $1", vec![draft.id.as_str().into()]);
        if !backend.rows(there).await?.is_empty() {
            return Ok(ends(backend).await?.1);
        }
        let (_, head) = ends(backend).await?;
        let entry = seal(head, draft.clone());
        let batch = vec![advance(head, entry.head()), insert(&entry)];
        if let Done::All(_) = backend.transact(batch).await? {
            return Ok(entry.head());
        }
    }
    Err(StoreError::Contended { what: "the audit log" })
}

/// Reads entries after a number, oldest first.
async fn entries(backend: &Backend, after: u64, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
    let query = Statement::query(
        "SELECT seq, id, at_ms, actor, role, origin, method, subject, outcome, detail, previous, hash FROM audit \
         WHERE seq > $1 ORDER BY seq LIMIT $2",
        vec![after.into(), limit.clamp(1, PAGE_ITEMS_MAX).into()],
    );
    backend.rows(query).await?.iter().map(entry).collect()
}

/// Lets go of the oldest entries beyond `kept`. The last of them becomes the base from which the rest is verified; an
/// entry that names it goes into the log first, so that the base is under the chain as well.
pub(crate) async fn let_go(backend: &Backend, kept: u32) -> Result<u64, StoreError> {
    let (base, head) = ends(backend).await?;
    let over =
        (head.seq - base.seq.min(head.seq)).saturating_sub(u64::from(kept)).min(u64::from(PRUNE_ROWS_MAX));
    if over == 0 {
        return Ok(0);
    }
    let last = base.seq + over;
    let Some(new_base) = entries(backend, last - 1, 1).await?.first().map(AuditEntry::head) else {
        return Err(StoreError::Damaged { what: format!("entry {last} of the audit log is gone") });
    };
    let mut draft = AuditDraft::new("novacron-control", "audit.let_go", AuditOutcome::Done)?;
    draft.subject = new_base.to_string();
    append(backend, &draft).await?;
    let batch = vec![
        Statement::write_one(
            "UPDATE audit_head SET base_seq = $1, base_hash = $2 WHERE one = 1 AND base_seq = $3",
            vec![new_base.seq.into(), new_base.hash.to_string().into(), base.seq.into()],
        ),
        Statement::write("DELETE FROM audit WHERE seq <= $1", vec![new_base.seq.into()]),
    ];
    match backend.transact(batch).await? {
        Done::All(_) => Ok(over),
        Done::Undone => Err(StoreError::Contended { what: "the audit log's base" }),
    }
}

impl Store {
    /// Entries after number `after`, oldest first, `items_max` at most (1 to
    /// [`PAGE_ITEMS_MAX`]). The last one's number is the next call's `after`.
    ///
    /// # Errors
    /// The database's.
    pub async fn audit_entries(&self, after: u64, items_max: u32) -> Result<Vec<AuditEntry>, StoreError> {
        entries(&self.inner.backend, after, items_max).await
    }

    /// Where the log ends now, by the database.
    ///
    /// # Errors
    /// The database's.
    pub async fn audit_head(&self) -> Result<Head, StoreError> {
        let (_, head) = ends(&self.inner.backend).await?;
        self.inner.note_head(head);
        Ok(head)
    }

    /// Follows the whole log, and compares its end with the database's head, with the file beside the database, and
    /// with `kept` heads from elsewhere. Entries that are appended meanwhile are not looked at.
    ///
    /// # Errors
    /// [`AuditFault::Broken`] with the first entry that is not as it was.
    pub async fn verify_audit(&self, kept: &[Head]) -> Result<Verified, AuditFault> {
        self.export_audit(kept, &mut std::io::sink()).await
    }

    /// Verifies the log as [`verify_audit`](Self::verify_audit) does, and writes it as JSON lines on the way.
    ///
    /// # Errors
    /// As there. What was written before the fault is intact.
    pub async fn export_audit(
        &self,
        kept: &[Head],
        to: &mut (impl Write + Send),
    ) -> Result<Verified, AuditFault> {
        let backend = &self.inner.backend;
        let _front = self.inner.log_front.lock().await;
        // Read before the database's head, so that it cannot be ahead of it.
        let anchored = anchor::read(self.inner.state_dir())?;
        let (base, head) = ends(backend).await?;
        let mut verifier = Verifier::new(base).expect(head);
        for kept in kept.iter().copied().chain(anchored) {
            verifier = verifier.expect(kept);
        }
        while verifier.head().seq < head.seq {
            let page = entries(backend, verifier.head().seq, PAGE_ITEMS_MAX).await?;
            if page.is_empty() {
                break;
            }
            for entry in page.iter().take_while(|entry| entry.seq <= head.seq) {
                verifier.push(entry)?;
                write_line(entry, to)?;
            }
            if page.last().is_some_and(|entry| entry.seq > head.seq) {
                break;
            }
        }
        let at = verifier.head();
        // Nothing may stand before the base, nor beyond the head at the moment it was read.
        let before = Statement::query(
            "SELECT seq FROM audit WHERE seq <= $1 ORDER BY seq LIMIT 1",
            vec![base.seq.into()],
        );
        if let Some(row) = backend.rows(before).await?.first() {
            let fault = crate::audit::Fault::LetGo;
            return Err(Broken { seq: row.count(0)?, fault }.into());
        }
        verifier.finish()?;
        self.beyond().await?;
        self.inner.note_head(at);
        Ok(Verified { entries: at.seq - base.seq, base, head: at })
    }

    /// Entries after the head that the database names: one transaction, so that appending does not look like it.
    async fn beyond(&self) -> Result<(), AuditFault> {
        let query = Statement::query(
            "SELECT a.seq FROM audit a, audit_head h WHERE a.seq > h.seq ORDER BY a.seq LIMIT 1",
            Vec::new(),
        );
        match self.inner.backend.rows(query).await?.first() {
            Some(row) => Err(Broken { seq: row.count(0)?, fault: crate::audit::Fault::Beyond }.into()),
            None => Ok(()),
        }
    }
}
