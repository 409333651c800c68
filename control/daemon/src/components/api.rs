//! The control socket, as a component.

use novacron_control_api::control::HealthState;

use crate::component::{Component, Fault, Found, Work};
use crate::plan::{Declared, Phase};
use crate::server::Server;

pub(crate) struct Api {
    server: Server,
}

impl Api {
    pub(crate) fn new(server: Server) -> Self {
        Self { server }
    }
}

impl Component for Api {
    fn declared(&self) -> Declared {
        Declared {
            name: "api",
            phase: Phase::Services,
            needs: &["database", "network", "orchestrator"],
            critical: true,
        }
    }

    fn start(&self) -> Work<'_, Result<(), Fault>> {
        Box::pin(self.server.begin())
    }

    fn check(&self) -> Work<'_, Found> {
        Box::pin(async {
            match self.server.connected() {
                Ok(connected) => Found::up(format!("{connected} callers")),
                Err(why) => Found::new(HealthState::Down, why),
            }
        })
    }

    fn stop(&self) -> Work<'_, ()> {
        Box::pin(async { self.server.end() })
    }
}
