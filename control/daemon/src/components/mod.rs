//! The components of a node. What a full installation has and this version has not says so, and claims no health.

mod absent;
mod api;
mod cache;
mod database;
mod dataplane;
mod monitoring;
mod network;
mod orchestrator;
mod security;

pub(crate) use absent::Absent;
pub(crate) use api::Api;
pub(crate) use cache::CacheBefore;
pub(crate) use database::Database;
pub(crate) use dataplane::Dataplane;
pub(crate) use monitoring::Monitoring;
pub(crate) use network::Network;
pub(crate) use orchestrator::Orchestrator;
pub(crate) use security::Security;
