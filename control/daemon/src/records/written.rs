//! Migrations as they were last written: what sessions show and what is reported of them meet in one record, and
//! neither may be lost by a write of the other.

use std::collections::BTreeMap;

use novacron_control_api::SessionId;
use novacron_control_api::control::MigrationRecord;
use novacron_store::{Kept, Store, StoreError};

use crate::limits::ENDED_KEPT;

/// A migration as it was last written.
struct Known {
    record: MigrationRecord,
    /// It waits in the spool: the database has an older one.
    spooled: bool,
}

/// Those that are not over, and those that wait in the spool: what there is while the database is away. Whoever holds it
/// is the only one that reads and writes migrations.
#[derive(Default)]
pub(super) struct Written(BTreeMap<SessionId, Known>);

impl Written {
    /// The migration as it stands. `new`: it was ordered here and now, so there is nothing earlier to be lost.
    pub(super) async fn get(
        &self,
        store: &Store,
        session: SessionId,
        new: bool,
    ) -> Result<Option<MigrationRecord>, StoreError> {
        let known = self.0.get(&session);
        if let Some(known) = known.filter(|known| known.spooled) {
            return Ok(Some(known.record.clone()));
        }
        match (store.migration(session).await, known) {
            (Ok(stored), _) => Ok(stored),
            (Err(error), Some(known)) if error.is_passing() => Ok(Some(known.record.clone())),
            (Err(error), None) if error.is_passing() && new => Ok(None),
            (Err(error), _) => Err(error),
        }
    }

    pub(super) async fn put(&mut self, store: &Store, record: MigrationRecord) -> Result<Kept, StoreError> {
        let kept = store.save_migration(record.clone()).await?;
        let spooled = kept != Kept::Stored;
        if record.ended_at.is_some() && !spooled {
            self.0.remove(&record.session);
        } else {
            self.0.insert(record.session, Known { record, spooled });
        }
        if self.0.len() > ENDED_KEPT {
            self.0.retain(|_, one| one.record.ended_at.is_none());
        }
        Ok(kept)
    }
}
