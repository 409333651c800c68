//! Which addresses, devices and routes a topology gets: the same in every lab, as namespaces do not see each other.
//!
//! Link number `n` (from 1) is `10.99.n.0/24` and `fd00:9900:n::/64`; its `from` end has host number 1, its `to` end 2.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::topology::Topology;

/// Bits of a link's IPv4 network.
pub(crate) const V4_BITS: u8 = 24;
/// Bits of a link's IPv6 network.
pub(crate) const V6_BITS: u8 = 64;

/// One end of a link, in a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The link, and the device in the site's namespace.
    pub link: String,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
    /// Its Ethernet address.
    pub mac: [u8; 6],
}

impl End {
    fn new(link: &str, number: usize, host: u8) -> Self {
        // Topologies are bounded far below 256 links.
        let n = u8::try_from(number + 1).unwrap_or(u8::MAX);
        Self {
            link: link.to_owned(),
            v4: Ipv4Addr::new(10, 99, n, host),
            v6: Ipv6Addr::new(0xfd00, 0x9900, n.into(), 0, 0, 0, 0, host.into()),
            // Locally administered.
            mac: [0x02, 0x4c, 0x41, 0x42, n, host],
        }
    }

    pub(crate) fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// Both ends of link number `number`.
pub(crate) fn ends(topology: &Topology, number: usize) -> (End, End) {
    let name = topology.links.get(number).map_or("", |link| link.name.as_str());
    (End::new(name, number, 1), End::new(name, number, 2))
}

/// The networks that an end is in.
pub(crate) fn networks(end: &End) -> (Ipv4Addr, Ipv6Addr) {
    let [a, b, c, _] = end.v4.octets();
    let [p, q, r, s, ..] = end.v6.segments();
    (Ipv4Addr::new(a, b, c, 0), Ipv6Addr::new(p, q, r, s, 0, 0, 0, 0))
}

/// A network that a site reaches through another site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) network: (IpAddr, u8),
    pub(crate) via: IpAddr,
}

/// Routes of a site to links that it has no end on: over the fewest links, the first in the file where there are several.
pub(crate) fn routes(topology: &Topology, site: &str) -> Vec<Route> {
    let mut routes = Vec::new();
    for (number, link) in topology.links.iter().enumerate() {
        if link.from == site || link.to == site {
            continue;
        }
        let Some(first) = first_hop(topology, site, &[&link.from, &link.to]) else { continue };
        let (end, _) = ends(topology, number);
        let (v4, v6) = networks(&end);
        routes.push(Route { network: (v4.into(), V4_BITS), via: first.v4.into() });
        routes.push(Route { network: (v6.into(), V6_BITS), via: first.v6.into() });
    }
    routes
}

/// The neighbour's end through which `from` reaches the nearest of `to`.
fn first_hop(topology: &Topology, from: &str, to: &[&String]) -> Option<End> {
    let mut seen = vec![from.to_owned()];
    let mut next: VecDeque<(String, Option<End>)> = VecDeque::from([(from.to_owned(), None)]);
    while let Some((site, hop)) = next.pop_front() {
        if to.contains(&&site) {
            return hop;
        }
        for (number, link) in topology.links.iter().enumerate() {
            let (near, far) = ends(topology, number);
            let (neighbour, end) = match () {
                () if link.from == site => (&link.to, far),
                () if link.to == site => (&link.from, near),
                () => continue,
            };
            if !seen.contains(neighbour) {
                seen.push(neighbour.clone());
                next.push_back((neighbour.clone(), Some(hop.clone().unwrap_or(end))));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_behind_another_is_reached_through_it() {
        let topology = Topology::find("slow-site").unwrap();
        let routes = routes(&topology, "slow");
        assert_eq!(routes.len(), 2, "IPv4 and IPv6 of the core: {routes:?}");
        // Link 2 is the edge; its `from` end stands in b.
        assert_eq!(routes[0].via, IpAddr::from([10, 99, 2, 1]));
        assert_eq!(routes[0].network, (IpAddr::from([10, 99, 1, 0]), 24));
    }

    #[test]
    fn neighbours_need_no_route() {
        let topology = Topology::find("two-sites").unwrap();
        assert_eq!(routes(&topology, "a"), []);
    }
}
