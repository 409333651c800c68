//! Knows the sessions, through the gateway: also those that run since before this process.

use std::sync::Arc;
use std::time::Duration;

use novacron_control_api::control::HealthState;

use crate::component::{Component, Fault, Found, Work};
use crate::node::{Node, Task};
use crate::plan::{Declared, Phase};

/// Sessions that were not seen for so long may stand otherwise by now.
const STALE: Duration = Duration::from_secs(2);

pub(crate) struct Orchestrator {
    node: Arc<Node>,
    watching: Task,
}

impl Orchestrator {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, watching: Task::default() }
    }
}

impl Component for Orchestrator {
    fn declared(&self) -> Declared {
        Declared { name: "orchestrator", phase: Phase::Services, needs: &["dataplane"], critical: true }
    }

    fn start(&self) -> Work<'_, Result<(), Fault>> {
        Box::pin(async {
            self.node.sessions.look().await.map_err(Fault::passing)?;
            let (live, _) = self.node.sessions.live();
            if live > 0 {
                tracing::info!(live, "sessions found that run since before this process");
            }
            let node = Arc::clone(&self.node);
            self.watching.run(async move { node.sessions.watch_over().await });
            let node = Arc::clone(&self.node);
            self.watching.run(async move {
                let (_, mut events) = node.events.subscribe();
                loop {
                    match events.recv().await {
                        Ok(event) if event.kind == "gateway.lost" => node.sessions.gateway_ended(),
                        // Of what was lost nothing more is known than the next look at the gateway will tell.
                        Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                        Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                    }
                }
            });
            Ok(())
        })
    }

    fn check(&self) -> Work<'_, Found> {
        Box::pin(async {
            match self.node.sessions.live() {
                (_, None) => Found::new(HealthState::Down, "the gateway was never asked"),
                (live, Some(ago)) if ago > STALE => {
                    let what = format!(
                        "{live} sessions as they were {} s ago: the gateway does not answer",
                        ago.as_secs()
                    );
                    Found::new(HealthState::Degraded, what)
                }
                (live, Some(_)) => Found::up(format!("{live} live sessions")),
            }
        })
    }

    fn stop(&self) -> Work<'_, ()> {
        Box::pin(async { self.watching.end() })
    }
}
