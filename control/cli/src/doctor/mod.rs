//! `doctor`: whether two sites can talk, on one screen. It looks, and changes nothing.

mod ends;
mod handshake;
mod report;
mod socket;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use novacron_control_api::{Endpoint, PeerDirection, PeerIdentity, Peers};
use novacron_keys::chain::{Usage, verify};
use novacron_keys::limits::EXPIRING_DAYS;
use novacron_keys::{Certificate, RevocationList, Role, Secret, Trust, TrustError};

use self::handshake::{Met, Unmet};
use self::report::Diagnosis;
use crate::args::socket_path;
use crate::keys::Said;
use crate::limits::{ADDRESSES_MAX, DOCTOR_ANSWER, DOCTOR_HANDSHAKE, DOCTOR_SMALL_SEGMENT};

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The peer's gateway: where it listens for other gateways
    #[arg(value_name = "tcp:HOST:PORT", value_parser = crate::pair::args::tcp)]
    pub(crate) peer: Endpoint,
    #[command(flatten)]
    pub(crate) folder: crate::pair::args::IdentityFolder,
    /// Control socket of this side's gateway
    #[arg(long, value_name = "SOCKET", value_parser = socket_path)]
    pub(crate) gateway: Option<PathBuf>,
    /// Control socket of the peer's gateway, where it can be reached (over ssh -L, say): compares clocks and versions
    #[arg(long, value_name = "SOCKET", value_parser = socket_path)]
    pub(crate) peer_gateway: Option<PathBuf>,
    /// QMP socket of a QEMU on this side
    #[arg(long, value_name = "SOCKET", value_parser = socket_path)]
    pub(crate) source_qmp: Option<PathBuf>,
    /// QMP socket of a QEMU on the peer's side
    #[arg(long, value_name = "SOCKET", value_parser = socket_path)]
    pub(crate) destination_qmp: Option<PathBuf>,
    /// A QEMU program on this side, asked for its version where there is no --source-qmp
    #[arg(long, value_name = "PROGRAM", conflicts_with = "source_qmp")]
    pub(crate) qemu: Option<PathBuf>,
}

/// This gateway's side, read.
struct Own {
    certificate: Certificate,
    key: Secret,
    authorities: Vec<Certificate>,
    lists: Vec<RevocationList>,
    peers: Peers,
}

/// Looks at everything.
pub(crate) fn run(args: &DoctorArgs) -> Said {
    let now = SystemTime::now();
    let mut found = Diagnosis::of(args.peer.to_string());
    let own = own(&Trust::at(&args.folder.identity), &mut found, now);
    let address = reach(&args.peer, &mut found);
    match (&own, address) {
        (Some(own), Some(address)) => talk(own, address, &mut found, now),
        _ => {
            for check in ["TLS", "peer certificate", "peers.toml", "accepted there", "path MTU"] {
                found.skip(check, "needs both this gateway's identity and a port that answers");
            }
        }
    }
    ends::gateways(args.gateway.as_deref(), args.peer_gateway.as_deref(), &mut found);
    ends::hypervisors(args, &mut found);
    let text = if args.folder.json { crate::sessions::json(&found) } else { found.screen() };
    Said { text, exit: found.exit() }
}

fn own(trust: &Trust, found: &mut Diagnosis, now: SystemTime) -> Option<Own> {
    let make = "make one with 'novactl keys issue', or name the folder with --identity";
    let read = || -> Result<Own, TrustError> {
        let peers = Peers::parse(&trust.peers()?)
            .map_err(|why| TrustError::Broken { path: trust.folder().join("peers.toml"), why })?;
        Ok(Own {
            certificate: trust.own()?,
            key: trust.key()?,
            authorities: trust.authorities()?,
            lists: trust.lists()?,
            peers,
        })
    };
    let own = match read() {
        Ok(own) => own,
        Err(why) => {
            found.fail("own identity", why.to_string(), make);
            return None;
        }
    };
    let certificate = &own.certificate;
    found.identity(certificate.holder.to_string());
    match verify(certificate, &own.authorities, &own.lists, Usage::Client, now) {
        Ok(_) => expiry("own identity", certificate, now, found),
        Err(why) => found.fail(
            "own identity",
            format!("{}: {why}", certificate.holder),
            "issue a certificate from an authority that authorities.pem names",
        ),
    }
    if let Some(list) =
        own.lists.iter().find(|list| list.next.is_some_and(|next| SystemTime::from(next) < now))
    {
        let found_ = format!("the list of '{}' was due {}", list.issuer, list.next.unwrap_or(list.made));
        found.warn(
            "revocation lists",
            found_,
            "get a newer one from its site: novactl pair revocations FILE",
        );
    } else {
        found.ok("revocation lists", format!("{} of {} authorities", own.lists.len(), own.authorities.len()));
    }
    Some(own)
}

fn expiry(check: &'static str, certificate: &Certificate, now: SystemTime, found: &mut Diagnosis) {
    let days = certificate.left(now).map_or(0, |left| left.as_secs() / (24 * 3600));
    let text = format!("{}, {days} days left", certificate.holder);
    if days < u64::from(EXPIRING_DAYS) {
        found.warn(check, text, "its site rotates it: novactl keys rotate");
    } else {
        found.ok(check, text);
    }
}

/// Names and port; the first address that answers.
fn reach(peer: &Endpoint, found: &mut Diagnosis) -> Option<SocketAddr> {
    let Endpoint::Tcp { host, port } = peer else { return None };
    let addresses: Vec<SocketAddr> = match (host.as_str(), *port).to_socket_addrs() {
        Ok(addresses) => addresses.take(ADDRESSES_MAX).collect(),
        Err(why) => {
            found.fail(
                "name",
                format!("{host} is not known here: {why}"),
                "correct the name or this host's resolver",
            );
            found.skip("port", "there is no address to dial");
            return None;
        }
    };
    let list: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
    match host.parse::<std::net::IpAddr>() {
        Ok(_) => found.ok("name", format!("{host} needs no name service")),
        Err(_) => found.ok("name", format!("{host} is {}", list.join(", "))),
    }
    let mut refused = Vec::new();
    let mut first = None;
    for address in addresses {
        let began = Instant::now();
        match socket::connect(address, None, DOCTOR_ANSWER) {
            Ok(_) => {
                let time = began.elapsed();
                first.get_or_insert((address, time));
            }
            Err(why) => refused.push(format!("{address}: {why}")),
        }
    }
    let Some((address, time)) = first else {
        let next = "start the gateway there with --listen, and open the port in firewalls between";
        found.fail("port", refused.join("; "), next);
        return None;
    };
    let answers = format!("{address} answers in {:.1} ms", time.as_secs_f64() * 1e3);
    if refused.is_empty() {
        found.ok("port", answers);
    } else {
        let next = "take the addresses that do not answer out of the name, or open them";
        found.warn("port", format!("{answers}; {}", refused.join("; ")), next);
    }
    Some(address)
}

/// A handshake, and everything that it shows.
fn talk(own: &Own, address: SocketAddr, found: &mut Diagnosis, now: SystemTime) {
    let meet = |segment| handshake::meet(address, &own.certificate, &own.key, segment);
    let met = match meet(None) {
        Ok(met) => met,
        Err(unmet) => {
            failed(unmet, || meet(Some(DOCTOR_SMALL_SEGMENT)).is_ok(), found);
            for check in ["peer certificate", "peers.toml", "accepted there"] {
                found.skip(check, "no handshake");
            }
            return;
        }
    };
    let tls = format!("TLS 1.3, {}, {}", met.key_exchange, met.cipher_suite);
    if met.key_exchange == "X25519MLKEM768" {
        found.ok("TLS", tls);
    } else {
        found.fail(
            "TLS",
            tls,
            "the peer lacks the post-quantum key exchange X25519MLKEM768: it is no gateway, or too old",
        );
    }
    peer(own, &met, found, now);
    match &met.refused {
        None => found.ok("accepted there", "the peer did not refuse this gateway's certificate"),
        Some(why) => found.fail(
            "accepted there",
            format!("the peer refused: {why}"),
            "its log has the reason: pair there too, or its peers.toml does not name this gateway",
        ),
    }
    path(&met, found);
}

fn failed(unmet: Unmet, small_works: impl FnOnce() -> bool, found: &mut Diagnosis) {
    match unmet {
        Unmet::Connect(why) => {
            found.fail(
                "TLS",
                format!("no connection: {why}"),
                "run it again: the port answered a moment before",
            );
            found.skip("path MTU", "no connection");
        }
        Unmet::Own(why) => {
            found.fail("TLS", why, "issue this gateway's certificate again");
            found.skip("path MTU", "no handshake");
        }
        Unmet::Closed(why) => {
            found.fail("TLS", why, "is it a gateway's port, and does it run without --insecure-plaintext?");
            found.skip("path MTU", "no handshake");
        }
        Unmet::Silent if small_works() => {
            found.warn("TLS", "only with small segments", "see path MTU");
            found.fail(
                "path MTU",
                format!("full segments get lost, those of {DOCTOR_SMALL_SEGMENT} bytes arrive"),
                "let ICMP 'fragmentation needed' through, lower the interface's MTU, or clamp the MSS on the tunnel",
            );
        }
        Unmet::Silent => {
            let next = "is it a gateway's port? It accepts connections and answers no TLS";
            found.fail("TLS", format!("nothing came within {} s", DOCTOR_HANDSHAKE.as_secs()), next);
            found.skip("path MTU", "no handshake, with small segments neither");
        }
    }
}

/// What the peer showed, and what it may do here.
fn peer(own: &Own, met: &Met, found: &mut Diagnosis, now: SystemTime) {
    let certificate = match &met.certificate {
        Ok(certificate) => certificate,
        Err(why) => {
            found.fail("peer certificate", why.clone(), "is it a gateway's port?");
            found.skip("peers.toml", "the peer names nobody");
            return;
        }
    };
    match verify(certificate, &own.authorities, &own.lists, Usage::Server, now) {
        Ok(_) => expiry("peer certificate", certificate, now, found),
        Err(why) => found.fail(
            "peer certificate",
            format!("{}: {why}", certificate.holder),
            format!(
                "pair with its site ('novactl pair'), or look at both clocks; it shows SHA-256 {}",
                certificate.fingerprint
            ),
        ),
    }
    let identity = certificate.identity().filter(|identity| identity.role == Role::Gateway);
    let Some(identity) = identity.and_then(|identity| identity.to_string().parse::<PeerIdentity>().ok())
    else {
        found.skip("peers.toml", "the peer is no gateway");
        return;
    };
    let ways: Vec<PeerDirection> = [PeerDirection::From, PeerDirection::To]
        .into_iter()
        .filter(|way| own.peers.allows(&identity, *way).is_ok())
        .collect();
    match ways.as_slice() {
        [] => found.fail(
            "peers.toml",
            format!("names {identity} nowhere"),
            "add an entry, or pair with its site",
        ),
        ways => {
            let ways: Vec<String> = ways.iter().map(ToString::to_string).collect();
            found.ok("peers.toml", format!("guests may go {} there", ways.join(" and ")));
        }
    }
}

fn path(met: &Met, found: &mut Diagnosis) {
    let size = match (met.mtu, met.segment) {
        (Some(mtu), Some(segment)) => format!("{mtu} bytes, segments of {segment}"),
        (None, Some(segment)) => format!("segments of {segment} bytes"),
        _ => "of unknown size".into(),
    };
    let probe = format!("{} bytes of handshake", met.probe_bytes);
    match met.arrived {
        Some(true) => found.ok("path MTU", format!("{size}; {probe} were acknowledged")),
        Some(false) => found.fail(
            "path MTU",
            format!("{size}; {probe} were not acknowledged within {} s", Duration::as_secs(&DOCTOR_ANSWER)),
            "full segments get lost: let ICMP 'fragmentation needed' through, or clamp the MSS on the tunnel",
        ),
        None => found.ok("path MTU", format!("{size}; {probe} were sent")),
    }
}
