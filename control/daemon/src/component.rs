//! What the bootstrap starts, asks after and stops.

use std::future::Future;
use std::pin::Pin;

use novacron_control_api::control::{HealthPart, HealthState};

use crate::plan::Declared;

/// Something under way.
pub(crate) type Work<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why a component did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Whether trying again may help.
    pub(crate) transient: bool,
    /// What happened and what to do.
    pub(crate) what: String,
}

impl Fault {
    /// It may pass: a peer that is not up yet, a socket that is taken for a moment.
    pub(crate) fn passing(what: impl Into<String>) -> Self {
        Self { transient: true, what: what.into() }
    }

    /// It stays until somebody acts.
    pub(crate) fn lasting(what: impl Into<String>) -> Self {
        Self { transient: false, what: what.into() }
    }
}

/// How a component found itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) state: HealthState,
    pub(crate) detail: String,
    pub(crate) parts: Vec<HealthPart>,
}

impl Found {
    pub(crate) fn new(state: HealthState, detail: impl Into<String>) -> Self {
        Self { state, detail: detail.into(), parts: Vec::new() }
    }

    pub(crate) fn up(detail: impl Into<String>) -> Self {
        Self::new(HealthState::Up, detail)
    }
}

/// A part's health in one line.
pub(crate) fn part(name: impl Into<String>, state: HealthState, detail: impl Into<String>) -> HealthPart {
    HealthPart { name: name.into(), state, detail: detail.into() }
}

/// A component.
pub(crate) trait Component: Send + Sync {
    /// What it is and needs.
    fn declared(&self) -> Declared;

    /// Brings it up. It may be called again after a passing fault.
    fn start(&self) -> Work<'_, Result<(), Fault>>;

    /// Looks at it, with what there is now.
    fn check(&self) -> Work<'_, Found>;

    /// Ends it. It may not have started.
    fn stop(&self) -> Work<'_, ()>;
}
