//! The gateway, and the parts of the dataplane one by one.

use std::sync::Arc;

use novacron_control_api::control::{HealthPart, HealthState};

use crate::component::{Component, Fault, Found, Work, part};
use crate::node::{Node, Task};
use crate::plan::{Declared, Phase};

pub(crate) struct Dataplane {
    node: Arc<Node>,
    watching: Task,
}

impl Dataplane {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, watching: Task::default() }
    }

    /// The six parts that the owner's specification names; the glossary says which acronym is which.
    fn parts(&self) -> Vec<HealthPart> {
        let absent = |name: &str, what: &str| part(name, HealthState::NotBuilt, what);
        let Some(info) = self.node.supervisor.info() else {
            let down = |name: &str| part(name, HealthState::Down, "the gateway does not answer");
            return vec![
                down("stream"),
                down("page"),
                absent("bandwidth", "not built"),
                absent("sync", "not built"),
                absent("consensus", "not built"),
                absent("placement", "not built"),
            ];
        };
        let security = if info.security.as_ref().is_some_and(|security| security.encrypted) {
            "TLS 1.3"
        } else {
            "plaintext"
        };
        let listen: Vec<String> = info.listen.iter().map(ToString::to_string).collect();
        let listen = if listen.is_empty() {
            "dials only".to_owned()
        } else {
            format!("listens at {}", listen.join(" "))
        };
        vec![
            part(
                "stream",
                HealthState::Up,
                format!("TCP with {security}, {} shards, {listen}; RDMA is not built", info.shards),
            ),
            part(
                "page",
                HealthState::Up,
                format!("wire versions {:?}; a learned choice of codecs is not built", info.wire_versions),
            ),
            absent("bandwidth", "not built: nothing predicts bandwidth"),
            absent("sync", "not built: nodes share no state"),
            absent("consensus", "not built: nodes agree on nothing"),
            absent("placement", "not built: callers choose destinations"),
        ]
    }
}

impl Component for Dataplane {
    fn declared(&self) -> Declared {
        Declared {
            name: "dataplane",
            phase: Phase::Core,
            needs: &["database", "network", "security"],
            critical: true,
        }
    }

    fn start(&self) -> Work<'_, Result<(), Fault>> {
        Box::pin(async {
            self.node.supervisor.start().await?;
            let node = Arc::clone(&self.node);
            self.watching.run(async move { node.supervisor.watch_over().await });
            Ok(())
        })
    }

    fn check(&self) -> Work<'_, Found> {
        Box::pin(async { Found { parts: self.parts(), ..self.node.supervisor.found() } })
    }

    fn stop(&self) -> Work<'_, ()> {
        Box::pin(async {
            self.watching.end();
            self.node.supervisor.stop().await;
        })
    }
}
