//! Whether the addresses can be used and peers are there.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use novacron_control_api::Endpoint;
use novacron_control_api::control::HealthState;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use crate::component::{Component, Fault, Found, Work, part};
use crate::environment::bindable;
use crate::limits::{PEER_CONNECT, PEERS_LOOK};
use crate::node::{Node, Task};
use crate::plan::{Declared, Phase};

pub(crate) struct Network {
    node: Arc<Node>,
    /// Why a peer was not there when it was last asked; `None`: it was.
    peers: Arc<Mutex<BTreeMap<String, Option<String>>>>,
    asking: Task,
}

impl Network {
    pub(crate) fn new(node: Arc<Node>) -> Self {
        Self { node, peers: Arc::default(), asking: Task::default() }
    }

    /// Whether what is about to listen can. A gateway that runs holds its address already.
    async fn addresses(&self) -> Result<(), Fault> {
        let of = self.node.at_start();
        let runs = UnixStream::connect(&of.dwcp.gateway_socket).await.is_ok();
        let port = u16::try_from(of.network.bind_port.get()).unwrap_or_default();
        if !runs {
            bindable(SocketAddr::new(of.network.listen_address, port)).map_err(|why| {
                // An address that is not this host's yet, or a port in the hands of something that ends.
                Fault::passing(format!("{why}; network.listen_address and network.bind_port name it"))
            })?;
        }
        Ok(())
    }
}

/// Whether somebody takes connections there.
async fn answers(peer: &Endpoint) -> Result<(), String> {
    let Endpoint::Tcp { host, port } = peer else { return Err("it is no TCP address".to_owned()) };
    match timeout(PEER_CONNECT, TcpStream::connect((host.as_str(), *port))).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("it did not answer in time".to_owned()),
    }
}

impl Component for Network {
    fn declared(&self) -> Declared {
        Declared { name: "network", phase: Phase::Core, needs: &["security"], critical: true }
    }

    fn start(&self) -> Work<'_, Result<(), Fault>> {
        Box::pin(async {
            self.addresses().await?;
            let (node, peers) = (Arc::clone(&self.node), Arc::clone(&self.peers));
            self.asking.run(async move {
                loop {
                    let mut asked = BTreeMap::new();
                    for peer in &node.resolved().configuration.network.peers {
                        asked.insert(peer.get().to_string(), answers(peer.get()).await.err());
                    }
                    *peers.lock().unwrap_or_else(PoisonError::into_inner) = asked;
                    sleep(PEERS_LOOK).await;
                }
            });
            Ok(())
        })
    }

    fn check(&self) -> Work<'_, Found> {
        Box::pin(async {
            let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
            let parts: Vec<_> = peers
                .iter()
                .map(|(peer, why)| match why {
                    None => part(format!("peer {peer}"), HealthState::Up, "takes connections"),
                    Some(why) => part(format!("peer {peer}"), HealthState::Down, why.as_str()),
                })
                .collect();
            let away = peers.values().flatten().count();
            let found = match away {
                0 => Found::up(format!("{} peers named, all take connections", peers.len())),
                away => Found::new(
                    HealthState::Degraded,
                    format!("{away} of {} peers do not answer", peers.len()),
                ),
            };
            Found { parts, ..found }
        })
    }

    fn stop(&self) -> Work<'_, ()> {
        Box::pin(async { self.asking.end() })
    }
}
