//! Gateways with keys against whoever has none, or the wrong ones. Each case is refused with a reason in the log and a
//! counter in `gateway.info`, and a session of others goes on all the while.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use novacron_testbed::identity::{Authority, Folder, Paper, SITE, everything_with, self_signed};
use novacron_testbed::limits::EXIT_WAIT;
use novacron_testbed::opaque::must_carry;
use novacron_testbed::rpc::Refused;
use novacron_testbed::session::{Session, record, unix, wait_ended, wait_record};
use novacron_testbed::{Gateway, GatewayOptions, Opaque, Scratch, Security, wait};
use serde_json::{Value, json};

use crate::wire::{must_count, security};

/// How long a gateway may take to notice what its folder says.
const RELOAD_WAIT: Duration = Duration::from_secs(20);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A gateway whose folder a test has written.
fn start(scratch: &Scratch, name: &str, folder: &Folder<'_>) -> Result<Gateway> {
    let path = scratch.file(&format!("{name}.identity"));
    folder.write(&path)?;
    Gateway::start(
        scratch,
        name,
        &GatewayOptions { security: Security::Identity(path), ..GatewayOptions::default() },
    )
}

/// Two gateways of two sites that trust each other.
pub(crate) struct Sites {
    pub(crate) a: Authority,
    pub(crate) b: Authority,
    paper_a: Paper,
    paper_b: Paper,
    pub(crate) gateway_a: Gateway,
    pub(crate) gateway_b: Gateway,
}

impl Sites {
    pub(crate) fn start(scratch: &Scratch) -> Result<Self> {
        let (a, b) = (Authority::new(SITE)?, Authority::new("site-b")?);
        let (paper_a, paper_b) = (a.issue("edge")?, b.issue("edge")?);
        let peers = everything_with(&[SITE, "site-b"]);
        let believes = &[&a, &b];
        let gateway_a =
            start(scratch, "gateway-a", &Folder { paper: &paper_a, believes, revoked: "", peers: &peers })?;
        let gateway_b =
            start(scratch, "gateway-b", &Folder { paper: &paper_b, believes, revoked: "", peers: &peers })?;
        Ok(Self { a, b, paper_a, paper_b, gateway_a, gateway_b })
    }
}

/// Opens a session at its source's gateway; it must be refused, and its reason is returned.
fn must_refuse(scratch: &Scratch, source: &Gateway, destination: &Gateway, more: &Value) -> Result<Refused> {
    let session = Session::new()?;
    let [listen, connect] =
        ["in", "out"].map(|name| unix(&scratch.file(&format!("{name}-{}", &session.id[..6]))));
    let options = json!({"open_timeout_ms": 5000});
    let with = |mut call: Value| {
        if let (Some(call), Some(more)) = (call.as_object_mut(), more.as_object()) {
            call.extend(more.clone());
        }
        call
    };
    destination.rpc()?.call("session.open", with(session.at_destination(&connect, &options)))?;
    match source.rpc()?.call("session.open", with(session.at_source(destination.peer()?, &listen, &options)))
    {
        Ok(opened) => anyhow::bail!("it was not refused: {opened}"),
        Err(error) => {
            ensure!(record(source, &session.id)?["state"] == "failed");
            Ok(error.downcast::<Refused>()?)
        }
    }
}

#[test]
fn two_sites_carry_a_session_encrypted_and_say_so() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let sites = Sites::start(scratch)?;
        let (a, b) = (&sites.gateway_a, &sites.gateway_b);
        let opaque = Opaque::open(scratch, [a, b], b.peer()?, &json!({}))?;
        opaque.carry(&vec![7; 3_000_000], b"and back")?;
        opaque.must_finish([a, b])?;
        for (gateway, peer) in [(a, "novacron://site-b/gateway/edge"), (b, "novacron://site-a/gateway/edge")]
        {
            let record = opaque.session.record(gateway)?;
            ensure!(record["encrypted"] == true && record["peer_identity"] == peer, "{record}");
            let security = security(gateway)?;
            ensure!(
                security["encrypted"] == true && security["key_exchange"] == "X25519MLKEM768",
                "{security}"
            );
            ensure!(security["refused"] == json!({}), "{security}");
        }
        // In the clear it is said as loudly.
        let plain = Gateway::start(scratch, "plain", &GatewayOptions::plaintext())?;
        let said = security(&plain)?;
        ensure!(said["encrypted"] == false && said["warnings"][0].as_str().is_some(), "{said}");
        Ok(())
    })
}

#[test]
fn papers_that_are_not_in_order_are_refused_by_whoever_sees_them() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let sites = Sites::start(scratch)?;
        let (a, b) = (&sites.gateway_a, &sites.gateway_b);
        let peers = everything_with(&[SITE, "site-b", "site-c"]);
        let stranger = Authority::new("site-c")?;

        // No authority that the other believes; then the same the other way round.
        let paper = stranger.issue("edge")?;
        let folder = Folder { paper: &paper, believes: &[&stranger, &sites.b], revoked: "", peers: &peers };
        let c = start(scratch, "gateway-c", &folder)?;
        must_refuse(scratch, &c, b, &json!({}))?;
        must_count(b, "unknown_authority", 1)?;
        let refused = must_refuse(scratch, a, &c, &json!({}))?;
        ensure!(refused.data["code"] == "peer_refused" && refused.message.contains("pair"), "{refused}");
        must_count(a, "unknown_authority", 1)?;

        // Revoked, as the destination's gateway knows.
        let revoked = sites.a.issue("revoked")?;
        let list = sites.a.revoke(&[&revoked])?;
        let believes = &[&sites.a, &sites.b];
        let d =
            start(scratch, "gateway-d", &Folder { paper: &revoked, believes, revoked: "", peers: &peers })?;
        let strict = sites.b.issue("strict")?;
        let e =
            start(scratch, "gateway-e", &Folder { paper: &strict, believes, revoked: &list, peers: &peers })?;
        let refused = must_refuse(scratch, &d, &e, &json!({}))?;
        ensure!(refused.message.contains("revoked") || refused.message.contains("closed"), "{refused}");
        must_count(&e, "revoked", 1)?;

        // The others have gone on.
        must_carry(scratch, [a, b])
    })
}

#[test]
fn a_gateway_does_not_start_with_papers_that_are_not_in_order() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let a = Authority::new(SITE)?;
        let name = "novacron://site-a/gateway/edge";
        let peers = everything_with(&[SITE]);
        let cases = [
            ("expired", a.issue_with(name, |paper| paper.not_after = (SystemTime::now() - DAY / 2).into())?),
            ("valid", a.issue_with(name, |paper| paper.not_before = (SystemTime::now() + DAY / 2).into())?),
            ("no authority that is known here", self_signed(name)?),
            ("another site", a.issue_with("novacron://site-b/gateway/edge", |_| {})?),
            ("no certificates of gateways", a.issue_with("novacron://site-a/caller/me", |_| {})?),
        ];
        for (number, (said, paper)) in cases.iter().enumerate() {
            let folder = Folder { paper, believes: &[&a], revoked: "", peers: &peers };
            let error = start(scratch, &format!("gateway-{number}"), &folder).expect_err(said);
            let text = format!("{error:#}");
            ensure!(text.contains(said) && !text.contains("PRIVATE KEY-----\n"), "{said}: {text}");
        }
        Ok(())
    })
}

#[test]
fn a_peer_does_what_peers_toml_allows_and_nothing_else() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let sites = Sites::start(scratch)?;
        let (a, b) = (&sites.gateway_a, &sites.gateway_b);
        let believes = &[&sites.a, &sites.b];
        let rules = |directions: &str| {
            format!(
                "[[peer]]\nidentity = \"novacron://{SITE}/gateway/edge\"\ntenants = [\"red\"]\ndirections = [{directions}]\n"
            )
        };
        let paper = sites.b.issue("careful")?;
        let peers = rules("\"from\"");
        let careful =
            start(scratch, "careful", &Folder { paper: &paper, believes, revoked: "", peers: &peers })?;

        // Of the right tenant, it is carried; of another, it is not, and the caller is told.
        let red = json!({"tenant": "red"});
        let session = Session::new()?;
        let [listen, connect] = ["in", "out"].map(|name| unix(&scratch.file(name)));
        let with = |mut call: Value| {
            call["tenant"] = red["tenant"].clone();
            call
        };
        careful.rpc()?.call("session.open", with(session.at_destination(&connect, &json!({}))))?;
        a.rpc()?.call("session.open", with(session.at_source(careful.peer()?, &listen, &json!({}))))?;
        let refused = must_refuse(scratch, a, &careful, &json!({"tenant": "blue"}))?;
        ensure!(refused.message.contains("tenant blue"), "{refused}");
        must_count(&careful, "wrong_tenant", 1)?;
        wait_record(a, &session.id, EXIT_WAIT, |record| record["state"] == "running")
            .context("the red session has not gone on")?;

        // The other way is not allowed: it does not even dial through.
        let refused = must_refuse(scratch, &careful, a, &red)?;
        ensure!(refused.message.contains("no session may go to"), "{refused}");
        must_count(&careful, "not_allowed", 1)?;

        // A peer that is known to the authority and named by no rule.
        let unnamed = sites.b.issue("unnamed")?;
        let everything = everything_with(&[SITE, "site-b"]);
        let folder = Folder { paper: &unnamed, believes, revoked: "", peers: &everything };
        let unnamed = start(scratch, "unnamed", &folder)?;
        let refused = must_refuse(scratch, &unnamed, &careful, &red)?;
        ensure!(refused.message.contains("not named in peers.toml"), "{refused}");
        must_count(&careful, "not_allowed", 2)?;

        // Another gateway than the caller named, by who dials and by who is dialled.
        let refused =
            must_refuse(scratch, a, b, &json!({"peer_identity": "novacron://site-b/gateway/another"}))?;
        ensure!(refused.message.contains("was expected"), "{refused}");
        must_count(a, "wrong_peer", 1)?;
        let session = Session::new()?;
        let mut call = session.at_destination(&connect, &json!({}));
        call["peer_identity"] = json!("novacron://site-a/gateway/another");
        b.rpc()?.call("session.open", call)?;
        let listen = unix(&scratch.file("in-2"));
        let refused = a.rpc()?.call("session.open", session.at_source(b.peer()?, &listen, &json!({})));
        let refused = refused.expect_err("another gateway opened it").downcast::<Refused>()?;
        ensure!(refused.message.contains("announced for another gateway"), "{refused}");
        ensure!(record(b, &session.id)?["state"] == "waiting", "the session is still there for whom it is");
        Ok(())
    })
}

#[test]
fn strangers_plaintext_and_half_handshakes_get_nothing_and_hold_up_nobody() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut sites = Sites::start(scratch)?;
        let (a, b) = (&sites.gateway_a, &sites.gateway_b);
        let opaque = Opaque::open(scratch, [a, b], b.peer()?, &json!({}))?;
        let (mut source, mut destination) = (opaque.source()?, None);
        let address = b.peer()?.strip_prefix("tcp:").context("no address")?.to_owned();
        let old =
            [&[22, 3, 1, 0, 43, 1, 0, 0, 39, 3, 3][..], &[7; 32], &[0, 0, 2, 0xc0, 0x2f, 1, 0]].concat();
        let endless = [&[22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..], &[0; 0x4000 - 4]].concat().repeat(4);
        let cases: [(&str, &[u8]); 5] = [
            ("a plaintext frame", &[0x38, 0, 0, 0, 0x44, 0, 0xff, 0xff]),
            ("garbage", &[0xa5; 4096]),
            ("HTTP", b"GET / HTTP/1.1\r\n\r\n"),
            ("TLS 1.2", &old),
            ("a hello of 16 MiB", &endless),
        ];
        for (what, bytes) in cases {
            let mut socket = TcpStream::connect(&address)?;
            socket.set_read_timeout(Some(Duration::from_secs(20)))?;
            let _ = socket.write_all(bytes);
            let _ = socket.shutdown(Shutdown::Write);
            let mut heard = Vec::new();
            match socket.read_to_end(&mut heard) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
                Err(error) => return Err(error).with_context(|| format!("{what} was not closed")),
            }
            ensure!(heard.len() < 64, "{what} heard {} bytes", heard.len());
        }
        must_count(b, "protocol", 3)?;
        // A plaintext gateway gets nowhere either, in both directions.
        let plain = Gateway::start(scratch, "plain", &GatewayOptions::plaintext())?;
        must_refuse(scratch, &plain, b, &json!({}))?;
        must_refuse(scratch, a, &plain, &json!({}))?;

        // Those that say nothing make room for those that do.
        let idle: Vec<_> = (0..100).map(|_| TcpStream::connect(&address)).collect::<std::io::Result<_>>()?;
        for piece in 0..50 {
            opaque.pass(&mut source, &mut destination, piece)?;
        }
        drop(idle);
        sites.gateway_b.process().must_run()
    })
}

#[test]
fn keys_are_renewed_without_dropping_a_session_and_revoked_with() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let mut sites = Sites::start(scratch)?;
        let opaque =
            Opaque::open(scratch, [&sites.gateway_a, &sites.gateway_b], sites.gateway_b.peer()?, &json!({}))?;
        let (mut source, mut destination) = (opaque.source()?, None);
        let mut carries = |piece| opaque.pass(&mut source, &mut destination, piece);
        carries(1)?;

        // Another certificate of the same name; the gateway says so in when it ends.
        let peers = everything_with(&[SITE, "site-b"]);
        let believes = &[&sites.a, &sites.b];
        let before = security(&sites.gateway_b)?["expires_at"].clone();
        let renewed = sites.b.issue_with("novacron://site-b/gateway/edge", |paper| {
            paper.not_after = (SystemTime::now() + 2 * DAY).into();
        })?;
        let folder = scratch.file("gateway-b.identity");
        Folder { paper: &renewed, believes, revoked: "", peers: &peers }.write(&folder)?;
        wait::until("the renewed certificate", RELOAD_WAIT, || {
            let security = security(&sites.gateway_b)?;
            // Two days are less than a week: it is warned about early.
            let warned = security["warnings"][0].as_str().is_some_and(|text| text.contains("ends in"));
            Ok((security["expires_at"] != before && warned).then_some(()))
        })?;
        carries(2)?;
        ensure!(opaque.session.record(&sites.gateway_b)?["streams"]["ever"].as_u64() <= Some(4));

        // A folder that cannot be used changes nothing, and is told of.
        std::fs::write(folder.join("peers.toml"), "[[peer]]\nidentity = 7\n")?;
        wait::until("the warning", RELOAD_WAIT, || {
            let text = security(&sites.gateway_b)?["warnings"].to_string();
            Ok(text.contains("peers.toml").then_some(()))
        })?;
        carries(3)?;

        // The other's certificate is revoked: its streams and its session end, on both sides.
        let list = sites.a.revoke(&[&sites.paper_a])?;
        Folder { paper: &renewed, believes, revoked: &list, peers: &peers }.write(&folder)?;
        let ended = wait_ended(&sites.gateway_b, &opaque.session.id, RELOAD_WAIT)?;
        ensure!(ended["reason"]["code"] == "not_authorised", "{ended}");
        ensure!(ended["reason"]["message"].to_string().contains("revoked"), "{ended}");
        wait_record(&sites.gateway_a, &opaque.session.id, RELOAD_WAIT, |record| {
            ["failed", "held"].iter().any(|state| record["state"] == *state)
        })?;
        must_count(&sites.gateway_b, "ended", 1)?;
        must_refuse(scratch, &sites.gateway_a, &sites.gateway_b, &json!({}))?;
        must_count(&sites.gateway_b, "revoked", 1)?;
        let _ = &sites.paper_b;
        sites.gateway_b.process().must_run()
    })
}

#[test]
fn a_key_that_others_may_read_is_not_used() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    Scratch::with_logs(|scratch| {
        let folder = novacron_testbed::identity::folder_of(scratch, "gateway")?;
        for (name, mode) in [("gateway.key", 0o640), ("peers.toml", 0o666)] {
            let path = folder.join(name);
            let was = std::fs::metadata(&path)?.permissions();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
            let started = Gateway::start(scratch, "gateway", &GatewayOptions::default());
            let text = format!("{:#}", started.expect_err(name));
            ensure!(text.contains(name) && text.contains("others may"), "{text}");
            std::fs::set_permissions(&path, was)?;
        }
        Gateway::start(scratch, "gateway", &GatewayOptions::default()).map(drop)
    })
}
