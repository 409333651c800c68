//! What to type at the hypervisors once a session is open: addresses, and the lines for virsh and QMP.

use novacron_control_api::{Endpoint, LabelledEndpoint, SessionId};
use serde::Serialize;
use serde_json::{Value, json};

/// One end of an open session.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Side {
    /// The gateway's control socket.
    pub(crate) gateway: String,
    /// Where the source's hypervisor connects, or the destination's listens.
    pub(crate) uri: Endpoint,
    /// The same for other connections.
    pub(crate) labelled: Vec<LabelledEndpoint>,
}

/// An open session, as far as this caller opened it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Opened {
    pub(crate) session: SessionId,
    pub(crate) source: Option<Side>,
    pub(crate) destination: Option<Side>,
    /// How long the gateways wait for who is to connect, in seconds.
    pub(crate) accept_timeout_s: u64,
    /// Whether the destination is known to wait for a command before it runs the guest.
    pub(crate) destination_stopped: bool,
    /// For libvirt; absent where the two ends differ in more than their host.
    pub(crate) virsh: Option<String>,
    /// For QEMU's monitor at the destination, in their order.
    pub(crate) destination_qmp: Vec<Value>,
    /// For QEMU's monitor at the source, after those.
    pub(crate) source_qmp: Vec<Value>,
}

/// As libvirt writes addresses: `tcp://host:port`, `unix:///path`.
fn libvirt(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Unix(path) => format!("unix://{}", path.display()),
        tcp @ Endpoint::Tcp { .. } => tcp.to_string().replacen("tcp:", "tcp://", 1),
    }
}

/// Whether libvirt can use one name for both: the same path, or the same port on two hosts.
fn same_name(source: &Endpoint, destination: &Endpoint) -> bool {
    match (source, destination) {
        (Endpoint::Tcp { port: here, .. }, Endpoint::Tcp { port: there, .. }) => here == there,
        (here, there) => here == there,
    }
}

impl Opened {
    /// Everything that follows from where the two ends are.
    pub(crate) fn new(
        session: SessionId,
        source: Option<Side>,
        destination: Option<Side>,
        accept_timeout_s: u64,
        destination_stopped: bool,
    ) -> Self {
        let virsh = virsh(source.as_ref(), destination.as_ref());
        let return_path = json!({"execute": "migrate-set-capabilities", "arguments": {"capabilities": [
            {"capability": "return-path", "state": true}]}});
        let mut destination_qmp = Vec::new();
        if let Some(side) = &destination {
            for disk in side.labelled.iter().filter(|named| named.label.kind() == "disk") {
                destination_qmp.push(
                    json!({"execute": "nbd-server-start", "arguments": {"addr": address(&disk.endpoint)}}),
                );
            }
            let uri = side.uri.to_string();
            destination_qmp.push(return_path.clone());
            destination_qmp.push(json!({"execute": "migrate-incoming", "arguments": {"uri": uri}}));
        }
        let mut source_qmp = Vec::new();
        if let Some(side) = &source {
            source_qmp.push(return_path);
            source_qmp.push(json!({"execute": "migrate", "arguments": {"uri": side.uri.to_string()}}));
        }
        Self {
            session,
            source,
            destination,
            accept_timeout_s,
            destination_stopped,
            virsh,
            destination_qmp,
            source_qmp,
        }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("session {} is open\n", self.session);
        let sides = [
            ("the source's hypervisor connects to", &self.source),
            ("the destination's hypervisor listens at", &self.destination),
        ];
        for (who, side) in sides {
            let Some(side) = side else { continue };
            text += &format!("  {who:<40} {}\n", side.uri);
            for named in &side.labelled {
                text += &format!("  {:<40} {}\n", format!("  for {}", named.label), named.endpoint);
            }
        }
        text += &format!("  it is given up when nobody connects within {} s\n", self.accept_timeout_s);
        match &self.virsh {
            Some(virsh) => {
                text +=
                    &format!("\nWith libvirt, at the source (DOMAIN and DESTINATION are yours):\n  {virsh}\n")
            }
            None => {
                text += "\nlibvirt uses one path or port at both ends: for virsh open the session with --at, or with the same \
                         port in --listen and --connect.\n";
            }
        }
        for (heading, lines) in [
            ("With QMP, at the destination, started with -S -incoming defer:", &self.destination_qmp),
            ("With QMP, at the source, once the destination listens:", &self.source_qmp),
        ] {
            if !lines.is_empty() {
                text += &format!("\n{heading}\n");
                lines.iter().for_each(|line| text += &format!("  {line}\n"));
            }
        }
        if self.source.is_some() {
            text += "\nWhen query-migrate says completed at the source, and only then, let the destination run: \
                     {\"execute\":\"cont\"}\n";
        }
        if !self.destination_stopped {
            text += "If the session fails late, the source's sockets are held until somebody knows where the guest runs; \
                     --destination-stopped says that it cannot start by itself.\n";
        }
        for side in [&self.source, &self.destination].into_iter().flatten() {
            let (session, gateway) = (self.session, &side.gateway);
            text += &format!(
                "\n  novactl session show {session} --gateway {gateway}\n  novactl session close {session} --gateway {gateway}\n"
            );
        }
        text
    }
}

/// An address as QMP's `SocketAddress`.
fn address(endpoint: &Endpoint) -> Value {
    match endpoint {
        Endpoint::Unix(path) => json!({"type": "unix", "data": {"path": path}}),
        Endpoint::Tcp { host, port } => {
            json!({"type": "inet", "data": {"host": host, "port": port.to_string()}})
        }
    }
}

fn virsh(source: Option<&Side>, destination: Option<&Side>) -> Option<String> {
    // What the source connects to is what libvirt has to be told; the port is the destination's too.
    let known = source.or(destination)?;
    if let (Some(source), Some(destination)) = (source, destination) {
        let disks = source.labelled.iter().zip(&destination.labelled);
        if !same_name(&source.uri, &destination.uri)
            || !disks.clone().all(|(here, there)| same_name(&here.endpoint, &there.endpoint))
        {
            return None;
        }
    }
    let mut line = format!(
        "virsh migrate --live --p2p DOMAIN qemu+ssh://DESTINATION/system --migrateuri {}",
        libvirt(&known.uri)
    );
    let mut disks = known.labelled.iter().filter(|named| named.label.kind() == "disk");
    // libvirt has one server for all disks of a domain.
    if let Some(disk) = disks.next() {
        line += &format!(" --copy-storage-all --disks-uri {}", libvirt(&disk.endpoint));
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(uri: &str, disk: Option<&str>) -> Option<Side> {
        let labelled = disk
            .map(|disk| LabelledEndpoint { label: "disk".parse().unwrap(), endpoint: disk.parse().unwrap() });
        let (gateway, uri) = ("/run/gw.sock".to_owned(), uri.parse().unwrap());
        Some(Side { gateway, uri, labelled: labelled.into_iter().collect() })
    }

    fn opened(source: Option<Side>, destination: Option<Side>) -> Opened {
        Opened::new(SessionId(0xc0ffee), source, destination, 300, false)
    }

    #[test]
    fn libvirt_takes_one_name_for_both_ends() {
        let unix = opened(side("unix:/run/m", Some("unix:/run/d")), side("unix:/run/m", Some("unix:/run/d")));
        let line = unix.virsh.unwrap();
        assert!(
            line.ends_with("--migrateuri unix:///run/m --copy-storage-all --disks-uri unix:///run/d"),
            "{line}"
        );
        let ports = opened(side("tcp:192.0.2.1:49200", None), side("tcp:127.0.0.1:49200", None));
        assert!(ports.virsh.unwrap().ends_with("--migrateuri tcp://192.0.2.1:49200"));
        let differ = opened(side("tcp:192.0.2.1:49200", None), side("tcp:127.0.0.1:49201", None));
        assert_eq!(differ.virsh, None);
        assert!(differ.text().contains("--at"));
        let disks =
            opened(side("unix:/run/m", Some("unix:/run/d")), side("unix:/run/m", Some("unix:/run/e")));
        assert_eq!(disks.virsh, None);
    }

    #[test]
    fn qmp_lines_name_the_addresses_of_their_side() {
        let both = opened(side("unix:/run/s", None), side("tcp:[::1]:4444", Some("tcp:127.0.0.1:10809")));
        let [server, capability, incoming] = &both.destination_qmp[..] else { panic!("{both:?}") };
        assert_eq!(server["arguments"]["addr"]["data"]["port"], "10809");
        assert_eq!(capability["execute"], "migrate-set-capabilities");
        assert_eq!(incoming["arguments"]["uri"], "tcp:[::1]:4444");
        assert_eq!(both.source_qmp[1]["arguments"]["uri"], "unix:/run/s");
        let text = both.text();
        assert!(
            text.contains(r#"{"execute":"cont"}"#) && text.contains("session close 0000000000c0ffee"),
            "{text}"
        );
        let one = opened(None, side("unix:/run/m", None));
        assert!(one.source_qmp.is_empty() && one.virsh.is_some());
    }
}
