//! Network interfaces.

use nix::ifaddrs::getifaddrs;
use std::net::IpAddr;

/// The interface that holds an address; an error says why there is none to attach to.
pub fn holding(address: IpAddr) -> Result<String, String> {
    if address.is_unspecified() {
        return Err(format!("{address} is every interface's: name an address of one, or the interface"));
    }
    let held = addresses()?;
    let holder = held.into_iter().find(|(held, _)| *held == address).map(|(_, interface)| interface);
    holder.ok_or_else(|| format!("no interface of this machine holds {address}"))
}

/// Every address of this machine, and the interface that holds it.
pub fn addresses() -> Result<Vec<(IpAddr, String)>, String> {
    let interfaces = getifaddrs().map_err(|error| format!("interfaces cannot be listed: {error}"))?;
    let held = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let address = v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))?;
        Some((address, interface.interface_name))
    });
    Ok(held.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_holds_its_address_and_nobody_holds_others() {
        assert_eq!(holding("127.0.0.1".parse().unwrap()).unwrap(), "lo");
        let why = holding("192.0.2.77".parse().unwrap()).unwrap_err();
        assert!(why.contains("192.0.2.77"), "{why}");
        assert!(holding("0.0.0.0".parse().unwrap()).is_err());
    }
}
