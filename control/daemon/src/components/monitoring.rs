//! Health and metrics over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use novacron_control_api::control::HealthState;

use crate::component::{Component, Fault, Found, Work, part};
use crate::http::{self, Pages};
use crate::node::{Node, Task};
use crate::plan::{Declared, Phase};
use crate::server::Status;

pub(crate) struct Monitoring {
    node: Arc<Node>,
    status: Arc<Status>,
    addresses: Mutex<Vec<String>>,
    serving: Task,
}

impl Monitoring {
    pub(crate) fn new(node: Arc<Node>, status: Arc<Status>) -> Self {
        Self { node, status, addresses: Mutex::default(), serving: Task::default() }
    }

    async fn serve(&self, port: u64, pages: Pages) -> Result<(), Fault> {
        let of = &self.node.at_start().system;
        let address = SocketAddr::new(of.health_check_address, u16::try_from(port).unwrap_or_default());
        let listener = http::listen(address).await.map_err(Fault::passing)?;
        let bound = listener.local_addr().map_or_else(|_| address.to_string(), |address| address.to_string());
        let what = if pages.health { "health" } else { "metrics" };
        tracing::info!(address = bound, what, "HTTP serves");
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{what} at {bound}"));
        self.serving.run(http::serve(listener, Arc::new(pages)));
        Ok(())
    }
}

impl Component for Monitoring {
    fn declared(&self) -> Declared {
        Declared { name: "monitoring", phase: Phase::Services, needs: &["network"], critical: false }
    }

    fn start(&self) -> Work<'_, Result<(), Fault>> {
        Box::pin(async {
            // A try before this one may have got as far as one of the two.
            self.serving.end();
            self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clear();
            let of = self.node.at_start();
            let health = Pages { status: Arc::clone(&self.status), metrics: None, health: true };
            self.serve(of.system.health_check_port.get(), health).await?;
            if of.monitoring.enable_metrics {
                let metrics = Some(Arc::clone(&self.node.metrics));
                let pages = Pages { status: Arc::clone(&self.status), metrics, health: false };
                self.serve(of.monitoring.metrics_port.get(), pages).await?;
            }
            Ok(())
        })
    }

    fn check(&self) -> Work<'_, Found> {
        Box::pin(async {
            if self.serving.has_ended() {
                return Found::new(HealthState::Down, "HTTP is served no longer");
            }
            let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let mut found = Found::up(addresses.join(", "));
            // Whoever watches traces will miss them; the node does not.
            found.parts.extend(match (&self.node.untraced, self.node.traces.health()) {
                (Some(why), _) => Some(part("traces", HealthState::Down, why)),
                (None, Some(health)) => Some(match health.told() {
                    (to, None) => part("traces", HealthState::Up, format!("exported to {to}")),
                    (to, Some(why)) => {
                        let what = format!("{to} takes none, they are dropped: {why}");
                        part("traces", HealthState::Degraded, what)
                    }
                }),
                (None, None) => None,
            });
            found
        })
    }

    fn stop(&self) -> Work<'_, ()> {
        Box::pin(async { self.serving.end() })
    }
}
