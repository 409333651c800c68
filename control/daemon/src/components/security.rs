//! The node's identity: its certificate and key are there, current, and nobody else's.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use novacron_control_api::control::HealthState;
use novacron_keys::Trust;
use novacron_keys::limits::EXPIRING_DAYS;

use crate::component::{Component, Fault, Found, Work};
use crate::node::Node;
use crate::plan::{Declared, Phase};

pub(crate) struct Security {
    node: Arc<Node>,
}

impl Security {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    /// Whom the certificate names and how long it is valid; `None` where nothing is encrypted.
    fn look(&self) -> Result<Option<(String, Option<Duration>)>, String> {
        let security = &self.node.at_start().security;
        if !security.enable_encryption {
            return Ok(None);
        }
        let trust = Trust::at(&security.identity_dir);
        let certificate = trust.own().map_err(|error| error.to_string())?;
        // The gateway may be given its key in another way; then the folder holds none.
        let elsewhere = std::env::var_os("NOVACRON_GATEWAY_KEY").is_some()
            || std::env::var_os("CREDENTIALS_DIRECTORY").is_some();
        if !elsewhere {
            trust.key().map_err(|error| error.to_string())?;
        }
        let name = certificate.identity().map_or_else(String::new, ToString::to_string);
        Ok(Some((name, certificate.left(SystemTime::now()))))
    }
}

impl Component for Security {
    fn declared(&self) -> Declared {
        Declared { name: "security", phase: Phase::Core, needs: &[], critical: true }
    }

    fn start(&self) -> Work<'_, Result<(), Fault>> {
        Box::pin(async {
            match self.look() {
                Ok(Some((name, Some(_)))) => {
                    tracing::info!(identity = name, "identity loaded");
                    Ok(())
                }
                Ok(Some((name, None))) => Err(Fault::lasting(format!(
                    "the certificate of {name} is not valid now: issue another with `novactl keys rotate`, or set the clock"
                ))),
                Ok(None) => {
                    tracing::warn!("encryption is off: whoever reaches the network can read guests' memory");
                    Ok(())
                }
                Err(why) => Err(Fault::lasting(format!(
                    "{why}; `novactl keys issue gateway/NAME --identity DIR` makes the folder, security.identity_dir names it"
                ))),
            }
        })
    }

    fn check(&self) -> Work<'_, Found> {
        Box::pin(async {
            match self.look() {
                Ok(None) => Found::new(HealthState::Degraded, "encryption is off, by configuration"),
                Ok(Some((name, Some(left)))) => {
                    let days = left.as_secs() / 86_400;
                    if days < u64::from(EXPIRING_DAYS) {
                        let what = format!(
                            "the certificate of {name} ends in {days} days: issue another with `novactl keys rotate`"
                        );
                        return Found::new(HealthState::Degraded, what);
                    }
                    Found::up(format!("{name}, valid for {days} days"))
                }
                Ok(Some((name, None))) => Found::new(
                    HealthState::Down,
                    format!("the certificate of {name} has ended: no new stream can be opened"),
                ),
                Err(why) => Found::new(HealthState::Down, why),
            }
        })
    }

    fn stop(&self) -> Work<'_, ()> {
        Box::pin(async {})
    }
}
