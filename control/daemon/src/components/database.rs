//! The store: what is remembered, and the audit log in it.

use std::sync::Arc;

use novacron_control_api::configuration::{Backend, Configuration};
use novacron_control_api::control::{HealthPart, HealthState};
use novacron_store::{
    AuditFault, Database as Place, PostgresOptions, Store, StoreError, StoreHealth, StoreOptions, TlsFiles,
};
use tokio::time::{sleep, timeout};

use crate::component::{Component, Fault, Found, Work, part};
use crate::limits::{DATABASE_LOOK, PRUNED, VERIFY_AT_START};
use crate::node::{Node, Task};
use crate::plan::{Declared, Phase};
use crate::server::Books;

pub(crate) struct Database {
    node: Arc<Node>,
    books: Arc<Books>,
    caring: Task,
}

/// Where the configuration has it.
fn options(of: &Configuration) -> StoreOptions {
    let (storage, state_dir) = (&of.storage, of.system.data_dir.clone());
    match (storage.backend, &storage.url) {
        (Backend::Postgres, Some(url)) => {
            let options = PostgresOptions {
                password_file: storage.password_file.clone(),
                tls: tls(of),
                connections_max: usize::try_from(storage.max_connections.get()).unwrap_or(1),
                ..PostgresOptions::new(url.as_str())
            };
            StoreOptions::postgres(options, state_dir)
        }
        _ => StoreOptions::embedded(state_dir),
    }
}

/// Whom PostgreSQL and Redis must show to be, and what is shown to them.
pub(super) fn tls(of: &Configuration) -> TlsFiles {
    let storage = &of.storage;
    let certificate = storage.certificate.clone().zip(storage.certificate_key.clone());
    TlsFiles { authorities: storage.authorities.clone(), certificate }
}

fn fault(error: &StoreError) -> Fault {
    let what = format!("{error}; the keys below storage name the database");
    if error.is_passing() { Fault::passing(what) } else { Fault::lasting(what) }
}

impl Database {
    pub(crate) fn new(node: Arc<Node>, books: Arc<Books>) -> Self {
        Self { node, books, caring: Task::default() }
    }

    /// Follows the audit log. A short one is known to be whole before anything is carried out.
    async fn verify(&self, store: &Store) -> Result<(), Fault> {
        let (ended, end) = tokio::sync::oneshot::channel();
        let (store, records) = (store.clone(), Arc::clone(&self.node.records));
        self.caring.run(async move {
            match store.verify_audit(&[]).await {
                Ok(found) => tracing::info!(entries = found.entries, head = %found.head, "the audit log is whole"),
                Err(AuditFault::Store(error)) => tracing::warn!("the audit log is not followed: {error}"),
                Err(fault) => {
                    let why = format!(
                        "the audit log was changed: {fault}; keep the database as it is, and move it away to begin another"
                    );
                    tracing::error!("{why}");
                    records.set_broken(why);
                }
            }
            // Nobody may wait any more.
            let _ = ended.send(());
        });
        let _ = timeout(VERIFY_AT_START, end).await;
        match self.node.records.broken() {
            Some(why) => Err(Fault::lasting(why)),
            None => Ok(()),
        }
    }
}

/// Lets go of what is old, for as long as the store is open.
async fn prune_over(store: Store) {
    loop {
        sleep(PRUNED).await;
        loop {
            match store.prune().await {
                Ok(pruned) if pruned.is_partial() => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!("what is old is let go of later: {error}");
                    break;
                }
            }
        }
    }
}

fn spool(health: &StoreHealth) -> HealthPart {
    let StoreHealth { spooled, spooled_bytes, refused, set_aside, .. } = health;
    let lost = match (refused, set_aside) {
        (0, 0) => String::new(),
        _ => format!("; {refused} records were refused and {set_aside} set aside since the start"),
    };
    let what = match (spooled, health.spool_on_disk) {
        (0, _) => format!("empty{lost}"),
        (_, true) => {
            format!("{spooled} records ({spooled_bytes} bytes) wait for the database, on disk{lost}")
        }
        (_, false) => {
            format!(
                "{spooled} records ({spooled_bytes} bytes) wait for the database, some in memory only{lost}"
            )
        }
    };
    let state = if *spooled == 0 && lost.is_empty() { HealthState::Up } else { HealthState::Degraded };
    part("spool", state, what)
}

impl Component for Database {
    fn declared(&self) -> Declared {
        Declared { name: "database", phase: Phase::Core, needs: &["security"], critical: true }
    }

    fn start(&self) -> Work<'_, Result<(), Fault>> {
        Box::pin(async {
            let options = options(self.node.at_start());
            if let Place::Postgres(_) = &options.database {
                tracing::info!("records go to PostgreSQL");
            }
            let store = Store::open(options).await.map_err(|error| fault(&error))?;
            if let Err(fault) = self.verify(&store).await {
                self.caring.end();
                return Err(fault);
            }
            self.node.records.open(store.clone());
            self.caring.run(prune_over(store));
            Ok(())
        })
    }

    fn check(&self) -> Work<'_, Found> {
        Box::pin(async {
            let Ok(store) = self.node.records.store() else {
                return Found::new(HealthState::Down, "not open");
            };
            // Whether it answered is noted in the store's own health.
            let slow = timeout(DATABASE_LOOK, store.check()).await.is_err();
            let health = store.health();
            // What could not be written is over once everything that waits is stored.
            let waits = health.away.is_some() || health.spooled > 0;
            let trouble = self.books.trouble().filter(|_| waits);
            let audit = match (self.node.records.broken(), trouble, &health.anchor_fault) {
                (Some(why), _, _) => {
                    part("audit", HealthState::Down, format!("{why}; calls that change anything are refused"))
                }
                (None, Some(why), _) => part("audit", HealthState::Degraded, why),
                (None, None, Some(why)) => {
                    let what = format!("the file with its head cannot be written: {why}");
                    part("audit", HealthState::Degraded, what)
                }
                (None, None, None) => {
                    let head =
                        health.audit_head.map_or_else(|| "not read yet".to_owned(), |head| head.to_string());
                    part("audit", HealthState::Up, format!("it ends at {head}"))
                }
            };
            let parts = vec![audit, spool(&health)];
            // A log that was changed outweighs a database that is away.
            let worst = match (parts[0].state, parts[1].state) {
                (HealthState::Down, _) => HealthState::Down,
                (HealthState::Up, HealthState::Up) => HealthState::Up,
                _ => HealthState::Degraded,
            };
            let detail = match (&health.away, slow) {
                (Some(why), _) => why.clone(),
                (None, true) => "the database does not answer in time".to_owned(),
                (None, false) => {
                    let StoreHealth { database, schema_version, stored, .. } = &health;
                    format!("{database}, schema {schema_version}, {stored} records stored")
                }
            };
            let away = slow || health.away.is_some();
            let state = if away && worst == HealthState::Up { HealthState::Degraded } else { worst };
            Found { state, detail, parts }
        })
    }

    fn stop(&self) -> Work<'_, ()> {
        Box::pin(async {
            self.caring.end();
            let Some(store) = self.node.records.close() else { return };
            let left = store.close().await;
            if left.spooled > 0 {
                tracing::warn!(
                    records = left.spooled,
                    on_disk = left.spool_on_disk,
                    "records wait for the database; the next start takes them up"
                );
            }
        })
    }
}
