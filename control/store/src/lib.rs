//! What the control process remembers, and what it caches.
//!
//! Sessions as last seen, migrations, samples of paths, the [audit log](audit), idempotency keys and settings, in SQLite
//! on this host or in PostgreSQL: one schema, one set of statements, one interface. Records that must not be lost go
//! through a bounded [spool](Kept::Spooled) while the database is away, and reach it in order when it is back.
//!
//! ```
//! use novacron_store::audit::{AuditDraft, AuditOutcome};
//! use novacron_store::{Claim, Kept, Store, StoreOptions};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! # let dir = tempfile::tempdir()?;
//! # let state_dir = dir.path();
//! let store = Store::open(StoreOptions::embedded(state_dir)).await?;
//!
//! // A changing call: claimed once, logged before and after, answered for good.
//! assert_eq!(store.claim("uid:1000", "order-17", "migration.start vm1").await?, Claim::New);
//! let kept = store.audit(AuditDraft::new("uid:1000", "migration.start", AuditOutcome::Done)?).await?;
//! assert_eq!(kept, Kept::Stored);
//! store.answer("uid:1000", "order-17", "{\"session\":\"00c0ffee00c0ffee\"}".to_owned()).await?;
//!
//! // The log is whole, and ends where this says: keep it elsewhere.
//! let verified = store.verify_audit(&[]).await?;
//! println!("{} entries, head {}", verified.entries, verified.head);
//! # assert_eq!(verified.entries, 1);
//! store.close().await;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Nothing here blocks a runtime: SQLite has a thread of its own, the spool's file is written on blocking threads. A
//! tokio runtime with time and I/O must run.
#![forbid(unsafe_code)]

pub mod audit;
mod audit_log;
mod backend;
pub mod cache;
mod claim;
mod clock;
pub mod error;
pub mod limits;
mod list;
pub mod options;
mod page;
mod postgres;
mod record;
mod retention;
pub mod schema;
mod spool;
mod sqlite;
mod statement;
mod store;
pub mod tls;
mod write;

pub use audit_log::{AuditFault, Verified};
pub use cache::{Cache, CacheHealth, CacheLimits, RedisOptions};
pub use claim::Claim;
pub use error::StoreError;
pub use options::{Database, PostgresOptions, Retention, StoreOptions};
pub use page::{Cursor, Page, Paged};
pub use record::{MigrationOutcome, MigrationRecord, PathSample, SeenSession, Which};
pub use retention::Pruned;
pub use store::{Kept, Store, StoreHealth};
pub use tls::TlsFiles;
