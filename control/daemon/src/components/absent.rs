//! What is not built: it is named, so that nobody takes its absence for health.

use novacron_control_api::control::HealthState;

use crate::component::{Component, Fault, Found, Work};
use crate::plan::{Declared, Phase};

pub(crate) struct Absent {
    name: &'static str,
    phase: Phase,
    instead: &'static str,
}

impl Absent {
    /// Sessions and samples are not kept in a database.
    pub(crate) fn database() -> Self {
        let instead = "no database: sessions are known while this process or their gateway remembers them";
        Self { name: "database", phase: Phase::Core, instead }
    }

    pub(crate) fn cache() -> Self {
        Self { name: "cache", phase: Phase::Core, instead: "no cache: there is no database to spare" }
    }

    pub(crate) fn models() -> Self {
        let instead = "no models: nothing is predicted or placed";
        Self { name: "models", phase: Phase::Services, instead }
    }
}

impl Component for Absent {
    fn declared(&self) -> Declared {
        Declared { name: self.name, phase: self.phase, needs: &[], critical: false }
    }

    fn start(&self) -> Work<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }

    fn check(&self) -> Work<'_, Found> {
        Box::pin(async { Found::new(HealthState::NotBuilt, self.instead) })
    }

    fn stop(&self) -> Work<'_, ()> {
        Box::pin(async {})
    }
}
