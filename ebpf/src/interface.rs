//! Network interfaces.

use nix::ifaddrs::getifaddrs;
use std::net::IpAddr;
use std::path::Path;

/// The interface that holds an address; an error says why there is none to attach to.
pub fn holding(address: IpAddr) -> Result<String, String> {
    if address.is_unspecified() {
        return Err(format!("{address} is every interface's: name an address of one, or the interface"));
    }
    let addresses = getifaddrs().map_err(|error| format!("interfaces cannot be listed: {error}"))?;
    for interface in addresses {
        let held = interface.address.and_then(|held| {
            let v4 = held.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| held.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        });
        if held == Some(address) {
            return Ok(interface.interface_name);
        }
    }
    Err(format!("no interface of this machine holds {address}"))
}

/// How many receive queues an interface has, or why packets of a stream cannot be steered to the shard that reads it.
pub fn queues(interface: &str) -> Result<usize, String> {
    let folder = Path::new("/sys/class/net").join(interface);
    let entries = std::fs::read_dir(folder.join("queues"))
        .map_err(|error| format!("{interface}: its queues cannot be listed: {error}"))?;
    let receive =
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-")).count();
    if !folder.join("device").exists() {
        return Err(format!(
            "{interface} is no hardware ({receive} software queues): there is nothing to steer"
        ));
    }
    match receive {
        0 | 1 => Err(format!("{interface} has {receive} receive queue: every shard reads from the same one")),
        more => Ok(more),
    }
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

    #[test]
    fn an_interface_without_hardware_says_why_nothing_is_steered() {
        assert!(queues("lo").unwrap_err().contains("no hardware"));
        assert!(queues("no-such-0").unwrap_err().contains("cannot be listed"));
    }
}
