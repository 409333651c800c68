//! Knows the sessions, through the gateway: also those that run since before this process. Has them recorded.

use std::sync::Arc;
use std::time::Duration;

use novacron_control_api::control::HealthState;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::component::{Component, Fault, Found, Work};
use crate::limits::RECORD_LAST;
use crate::node::{Node, Task};
use crate::plan::{Declared, Phase};
use crate::records::{Recorder, sample_over};

/// Sessions that were not seen for so long may stand otherwise by now.
const STALE: Duration = Duration::from_secs(2);

pub(crate) struct Orchestrator {
    node: Arc<Node>,
    watching: Task,
    recorder: Arc<Mutex<Recorder>>,
}

impl Orchestrator {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        let recorder = Arc::new(Mutex::new(Recorder::new(Arc::clone(&node))));
        Self { node, watching: Task::default(), recorder }
    }
}

impl Component for Orchestrator {
    fn declared(&self) -> Declared {
        Declared {
            name: "orchestrator",
            phase: Phase::Services,
            needs: &["database", "dataplane"],
            critical: true,
        }
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
            self.watching.run(Recorder::run_over(Arc::clone(&self.recorder)));
            self.watching.run(sample_over(Arc::clone(&self.node)));
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
        Box::pin(async {
            // What changed a moment ago; what is not written in time the next process finds at the gateway.
            let _ = timeout(RECORD_LAST, async {
                let mut recorder = self.recorder.lock().await;
                self.watching.end();
                recorder.flush().await
            })
            .await;
            self.watching.end();
        })
    }
}
