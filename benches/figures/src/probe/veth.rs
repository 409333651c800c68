//! A pair of veth devices between the lab's two sites: frames cross it without a program between, so that what an answer takes
//! shows, and not what the lab adds. It goes with the sites.

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::sites::Sites;

/// Addresses of `a` and `b`; the lab's are in another network (`10.99.0.0/16`).
const ADDRESSES: [[u8; 4]; 2] = [[10, 98, 0, 1], [10, 98, 0, 2]];
const DEVICES: [&str; 2] = ["cost-a", "cost-b"];

/// The pair's addresses, in `a` and in `b`.
pub(super) struct Veth {
    pub(super) a: IpAddr,
    pub(super) b: IpAddr,
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("starting ip")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "ip {}: {}", arguments.join(" "), said.trim());
    Ok(())
}

impl Veth {
    /// Makes it, with addresses and neighbours that are known.
    pub(super) fn between(sites: &Sites) -> Result<Self> {
        let namespaces = [sites.a()?.namespace(), sites.b()?.namespace()];
        let [a, b] = DEVICES;
        // Both are made inside, so that their names meet no others.
        ip(&[
            "link",
            "add",
            a,
            "netns",
            namespaces[0],
            "type",
            "veth",
            "peer",
            "name",
            b,
            "netns",
            namespaces[1],
        ])?;
        for (at, device) in DEVICES.iter().enumerate() {
            let address = IpAddr::from(ADDRESSES[at]);
            ip(&["-n", namespaces[at], "address", "add", &format!("{address}/30"), "dev", device])?;
            ip(&["-n", namespaces[at], "link", "set", device, "up"])?;
        }
        Ok(Self { a: ADDRESSES[0].into(), b: ADDRESSES[1].into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_in_one_network_of_four() {
        let [a, b] = ADDRESSES.map(u32::from_be_bytes);
        assert!(a != b && a >> 2 == b >> 2);
        for host in [a & 3, b & 3] {
            assert!((1..=2).contains(&host), "neither the network's nor everybody's");
        }
    }
}
