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
