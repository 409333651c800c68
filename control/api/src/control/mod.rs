//! What the control process answers, beside what it passes on to its gateway.
//!
//! Its socket takes the gateway's own methods too, so that a caller of a gateway can be given the control process
//! instead: it adds roles, the audit log, the configuration's choices for new sessions, and a memory.

mod call;
mod event;
mod health;
mod history;
mod node;
mod report;
mod role;
mod token;

pub use call::{Answer, ControlCall, MethodInfo, methods};
pub use event::{EVENT, EVENTS_LOST, Event, EventsLost, RecentEvents, Subscribed, Subscription};
pub use health::{ComponentHealth, Health, HealthPart, HealthState};
pub use history::{
    AuditCheck, AuditList, AuditPage, AuditRecord, AuditVerified, HistoryPage, KeptSample, MigrationHistory,
    MigrationOutcome, MigrationRecord, PathHistory, PathHistoryPage, SeenSession, SessionHistory, Which,
};
pub use node::{
    ConfigValue, ConfigValues, Environment, Feature, Features, Finding, NodeInfo, Reloaded, Requirement,
};
pub use report::{MigrationReport, ReportedOutcome};
pub use role::{CallerInfo, Identify, Role};
pub use token::{KeptToken, TokenList, TokenRevoke, TokenRotate};

/// What this build of the control process's methods is called in `node.info`; each has a line in ADR 0022.
pub const CONTROL_VERSION: u32 = 3;
