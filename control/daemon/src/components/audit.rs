//! The audit log, and the answers to idempotent calls that it remembers.

use std::sync::Arc;

use novacron_control_api::control::HealthState;

use crate::audit::Audit;
use crate::component::{Component, Fault, Found, Work};
use crate::node::Node;
use crate::plan::{Declared, Phase};
use crate::server::{Books, Repeats};

pub(crate) struct AuditLog {
    node: Arc<Node>,
    books: Arc<Books>,
}

impl AuditLog {
    pub(crate) fn new(node: Arc<Node>, books: Arc<Books>) -> Self {
        Self { node, books }
    }
}

impl Component for AuditLog {
    fn declared(&self) -> Declared {
        Declared { name: "audit", phase: Phase::Core, needs: &["security"], critical: true }
    }

    fn start(&self) -> Work<'_, Result<(), Fault>> {
        Box::pin(async {
            let path = self.node.at_start().system.data_dir.join("audit.jsonl");
            let opened = tokio::task::spawn_blocking(move || {
                let mut repeats = Repeats::default();
                Audit::open(&path, |entry| repeats.remember(entry)).map(|audit| (audit, repeats))
            });
            let opened = opened.await.map_err(|error| Fault::lasting(error.to_string()))?;
            let (audit, repeats) = opened.map_err(Fault::lasting)?;
            self.books.open(audit, repeats);
            Ok(())
        })
    }

    fn check(&self) -> Work<'_, Found> {
        Box::pin(async {
            match self.books.head() {
                None => Found::new(HealthState::Down, "not open"),
                Some((entries, head)) => match self.books.trouble() {
                    Some(why) => Found::new(
                        HealthState::Degraded,
                        format!("{why}; calls that change anything are refused"),
                    ),
                    None => Found::up(format!("{entries} entries, the last one is {head}")),
                },
            }
        })
    }

    fn stop(&self) -> Work<'_, ()> {
        Box::pin(async {})
    }
}
