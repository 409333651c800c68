//! Whom this gateway believes, and what they may do.
//!
//! A peer is who its certificate names; what it may do stands in `peers.toml`. Both are read from one folder, all of it or
//! none, and again when a file changes: sessions of peers that are still believed go on.

mod files;
mod refusals;

pub(crate) use files::{FolderStamp, read, text_of_owner};
pub(crate) use refusals::Refusals;

use novacron_control_api::{IdentityKind, PeerDirection, PeerIdentity, Peers};
use novacron_transport::{OpenSocket, TlsCredentials, TlsFailure, TlsPeer};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

/// What the folder says.
pub(crate) struct Believed {
    pub(crate) credentials: TlsCredentials,
    pub(crate) peers: Peers,
    pub(crate) own: PeerIdentity,
}

/// Whom this gateway believes. Shared by every thread; what it says may change.
pub(crate) struct Trust {
    believed: RwLock<Arc<Believed>>,
    pub(crate) refusals: Arc<Refusals>,
}

/// Whether an authority of this name may issue a gateway's certificate of that one: its own site's, and a gateway's.
pub(crate) fn vouches(gateway: &str, authority: &str) -> Result<(), String> {
    let named: PeerIdentity = gateway.parse().map_err(|error| format!("{error}"))?;
    let by: PeerIdentity = authority.parse().map_err(|error| format!("the authority: {error}"))?;
    if by.kind() != IdentityKind::Authority || named.kind() != IdentityKind::Gateway || by.name() != "gateway"
    {
        return Err(format!("{authority} issues no certificates of gateways, or {gateway} is none"));
    }
    if by.site() != named.site() {
        return Err(format!("{authority} does not speak for {gateway}, which is of another site"));
    }
    Ok(())
}

/// A peer as its stream knows it.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) identity: PeerIdentity,
    tls: TlsPeer,
    /// Seen from here: sessions that come from it, or go to it.
    pub(crate) direction: PeerDirection,
}

/// A handshake, or what follows from it, was refused.
#[derive(Debug)]
pub(crate) struct Refused {
    /// For counters.
    pub(crate) what: &'static str,
    /// For people.
    pub(crate) why: String,
}

impl From<TlsFailure> for Refused {
    fn from(failure: TlsFailure) -> Self {
        Refused { what: failure.refusal.name(), why: failure.to_string() }
    }
}

/// Not named in `peers.toml`, or not for this.
pub(crate) const NOT_ALLOWED: &str = "not_allowed";
/// The tenant's sessions are not the peer's to share.
pub(crate) const WRONG_TENANT: &str = "wrong_tenant";
/// Does not know the session's token, or says what was said on another stream.
pub(crate) const WRONG_TOKEN: &str = "wrong_token";
/// Another gateway than the one that the caller named.
pub(crate) const WRONG_PEER: &str = "wrong_peer";

impl Trust {
    pub(crate) fn new(believed: Believed, refusals: Arc<Refusals>) -> Arc<Trust> {
        Arc::new(Trust { believed: RwLock::new(Arc::new(believed)), refusals })
    }

    /// What is believed now.
    pub(crate) fn now(&self) -> Arc<Believed> {
        Arc::clone(&self.believed.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn replace(&self, believed: Believed) {
        *self.believed.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(believed);
    }

    /// Secures a connection that this gateway made, and knows whom it reached.
    pub(crate) async fn dialled(
        &self,
        socket: OpenSocket,
        expected: Option<&PeerIdentity>,
    ) -> Result<OpenSocket, Refused> {
        let believed = self.now();
        let socket = believed.credentials.secure_dialled(socket).await?;
        let known = Self::known(&socket, PeerDirection::To)?;
        if let Some(expected) = expected.filter(|expected| **expected != known.identity) {
            let why = format!("{} answered where {expected} was expected", known.identity);
            return Err(Refused { what: WRONG_PEER, why });
        }
        believed.peers.allows(&known.identity, PeerDirection::To).map_err(not_allowed)?;
        Ok(socket)
    }

    /// Secures a connection that was accepted, when it is its `turn`. Whether the peer may anything is asked afterwards, when it
    /// can be told.
    pub(crate) async fn accepted(
        &self,
        socket: OpenSocket,
        turn: impl Future<Output = ()>,
    ) -> Result<OpenSocket, Refused> {
        Ok(self.now().credentials.secure_accepted(socket, turn).await?)
    }

    /// Who is at the other end of a secured connection.
    pub(crate) fn known(socket: &OpenSocket, direction: PeerDirection) -> Result<Known, Refused> {
        let tls = socket.tls_peer().ok_or_else(|| not_allowed("the stream is not secured".to_owned()))?;
        let identity = tls.identity.parse().map_err(|error| not_allowed(format!("{error}")))?;
        Ok(Known { identity, tls: tls.clone(), direction })
    }

    /// Whether the peer may have sessions that go its way.
    pub(crate) fn allows(&self, known: &Known) -> Result<(), Refused> {
        self.now().peers.allows(&known.identity, known.direction).map_err(not_allowed)
    }

    /// Whether a tenant's session may be shared with a peer.
    pub(crate) fn admits(&self, known: &Known, tenant: &str) -> Result<(), Refused> {
        let allowed = self.now().peers.allows_tenant(&known.identity, known.direction, tenant);
        allowed.map_err(|why| Refused { what: WRONG_TENANT, why })
    }

    /// Whether a peer that was believed when its stream opened is believed now.
    pub(crate) fn still_believes(&self, known: &Known) -> Result<(), String> {
        let believed = self.now();
        believed.credentials.still_believes(&known.tls, known.direction == PeerDirection::From)?;
        believed.peers.allows(&known.identity, known.direction)
    }

    /// This gateway's own name, and the end of its certificate's time.
    pub(crate) fn own(&self) -> (PeerIdentity, SystemTime) {
        let believed = self.now();
        (believed.own.clone(), believed.credentials.expires_at())
    }
}

fn not_allowed(why: String) -> Refused {
    Refused { what: NOT_ALLOWED, why }
}

#[cfg(test)]
mod tests {
    use super::vouches;

    #[test]
    fn an_authority_speaks_for_its_own_sites_gateways() {
        let gateway = "novacron://site-a/gateway/edge-1";
        assert_eq!(vouches(gateway, "novacron://site-a/authority/gateway"), Ok(()));
        for (gateway, authority) in [
            (gateway, "novacron://site-b/authority/gateway"),
            (gateway, "novacron://site-a/authority/caller"),
            (gateway, "novacron://site-a/gateway/edge-2"),
            (gateway, "somebody"),
            ("novacron://site-a/caller/me", "novacron://site-a/authority/gateway"),
            ("novacron://site-a/authority/gateway", "novacron://site-a/authority/gateway"),
            ("", "novacron://site-a/authority/gateway"),
        ] {
            assert!(vouches(gateway, authority).is_err(), "{authority} for {gateway}");
        }
    }
}
