//! The demonstration's two sites: joined by a link of the lab, or, where none can be made, this machine's loopback.

use anyhow::{Context, Result};
use novacron_lab::Conditions;

use crate::network::{Network, Place};
use crate::scenario::Link;

/// The link between the sites, each way.
const RATE_MBIT: f64 = 200.0;
/// Half of its round-trip time.
const DELAY_MS: f64 = 20.0;

/// Both sites. Dropping this removes what was made for them.
pub(super) struct Sites {
    pub(super) network: Network,
    /// What joins them, for people.
    pub(super) link: String,
}

impl Sites {
    /// Joins two namespaces by a link of the lab; where that cannot be, both sites are loopback, and [`Sites::link`] says why.
    ///
    /// # Errors
    /// When there is not even that.
    pub(super) fn make() -> Result<Sites> {
        Sites::joined().or_else(|error| Sites::apart(&error))
    }

    /// Both on loopback, as there is no link for the reason given.
    fn apart(why: &anyhow::Error) -> Result<Sites> {
        let network = Network::loopback().context("looking at loopback")?;
        Ok(Sites { network, link: format!("loopback, as there is no lab here: {why:#}") })
    }

    fn joined() -> Result<Sites> {
        novacron_lab::available().map_err(anyhow::Error::msg)?;
        let way = Conditions { rate_mbit: Some(RATE_MBIT), delay_ms: DELAY_MS, ..Conditions::default() };
        let link = Link { forward: way.clone(), back: way };
        Ok(Sites { network: Network::joined(&link, None)?, link: link.text() })
    }

    /// Where the guest goes from the source or from the destination.
    pub(super) fn across(&self, from_source: bool) -> &Place {
        if from_source { &self.network.destination } else { &self.network.source }
    }

    /// What the link carries is counted from here on.
    ///
    /// # Errors
    /// When the lab is gone.
    pub(super) fn count_anew(&self) -> Result<()> {
        self.network.wire().reset()
    }

    /// Bytes of whole Ethernet frames that the link has carried, both ways; `None`: there is no link.
    ///
    /// # Errors
    /// When the lab is gone.
    pub(super) fn wire_bytes(&self) -> Result<Option<u64>> {
        Ok(self.network.wire().carried()?.map(|carried| carried.forward + carried.back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_lab_the_sites_say_why_and_count_nothing() {
        let sites = Sites::apart(&anyhow::anyhow!("making a lab needs root")).unwrap();
        assert_eq!(sites.link, "loopback, as there is no lab here: making a lab needs root");
        assert!(sites.across(true).prefix.is_empty());
        sites.count_anew().unwrap();
        assert_eq!(sites.wire_bytes().unwrap(), None);
    }
}
