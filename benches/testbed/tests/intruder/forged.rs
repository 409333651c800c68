//! Certificates that no gateway would start with, shown to one all the same, and TLS that no gateway would speak.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use novacron_protocol::wire::{Hello, HelloRefuse, Identity, Kind, RefuseCode, gateway_named};
use novacron_testbed::Scratch;
use novacron_testbed::identity::{Authority, SITE, self_signed};
use novacron_testbed::opaque::must_carry;
use rcgen::ExtendedKeyUsagePurpose;
use rustls::crypto::aws_lc_rs::kx_group;

use crate::papers::Sites;
use crate::tls::{Manner, dial_tls};
use crate::wire::{NONCE, must_count, must_log, read_frame};

const HOUR: Duration = Duration::from_secs(3600);

/// What a gateway says to whoever greets it so; empty: it has closed the stream.
fn greeted(gateway: &novacron_testbed::Gateway, manner: &Manner<'_>) -> Vec<u8> {
    let Ok(mut stream) = dial_tls(gateway, manner) else { return Vec::new() };
    let me = Identity { gateway: [1; 16], instance: [2; 16] };
    let mut heard = Vec::new();
    // Either may fail first: a refusal comes as an alert, or as a connection that is gone.
    if stream.write_all(&Hello::new(me, 0, NONCE).to_frame()).is_ok() {
        let _ = stream.read_to_end(&mut heard);
    }
    heard
}

#[test]
fn each_certificate_that_is_not_in_order_is_refused_by_its_reason() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let sites = Sites::start(scratch)?;
        let b = &sites.gateway_b;
        let name = format!("novacron://{SITE}/gateway/edge");
        let now = SystemTime::now();
        let stranger = Authority::new("site-c")?;
        // Of the name of a site that is known, and not its authority.
        let impostor = Authority::new(SITE)?;
        let cases = [
            ("expired", sites.a.issue_with(&name, |paper| paper.not_after = (now - HOUR).into())?),
            ("not_yet_valid", sites.a.issue_with(&name, |paper| paper.not_before = (now + HOUR).into())?),
            ("unknown_authority", self_signed(&name)?),
            ("unknown_authority", stranger.issue("edge")?),
            ("unknown_authority", impostor.issue("edge")?),
            ("wrong_certificate", sites.a.issue_with("novacron://site-b/gateway/edge", |_| {})?),
            ("wrong_certificate", sites.a.issue_with(&format!("novacron://{SITE}/caller/me"), |_| {})?),
            ("wrong_certificate", sites.a.issue_with(&name, |paper| paper.subject_alt_names.clear())?),
            (
                "wrong_certificate",
                sites.a.issue_with(&name, |paper| {
                    paper.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
                })?,
            ),
        ];
        let mut expected = std::collections::BTreeMap::new();
        for (reason, paper) in &cases {
            let heard = greeted(b, &Manner::of(paper));
            ensure!(heard.is_empty(), "{reason}: it was answered with {} bytes", heard.len());
            *expected.entry(*reason).or_insert(0) += 1;
            must_count(b, reason, expected[reason])?;
        }
        must_log(scratch, "gateway-b", "a stream was refused")?;
        must_carry(scratch, [&sites.gateway_a, b])
    })
}

#[test]
fn tls_of_less_than_is_asked_for_is_refused() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let sites = Sites::start(scratch)?;
        let b = &sites.gateway_b;
        let paper = sites.a.issue("edge")?;
        let downgrades = [
            ("an old key exchange", Manner { group: kx_group::X25519, ..Manner::of(&paper) }, "protocol"),
            ("another protocol inside", Manner { protocol: b"h2", ..Manner::of(&paper) }, "protocol"),
            ("no certificate", Manner { paper: None, ..Manner::of(&paper) }, "no_certificate"),
        ];
        let mut counted = std::collections::BTreeMap::new();
        for (what, manner, reason) in downgrades {
            ensure!(greeted(b, &manner).is_empty(), "{what} was answered");
            *counted.entry(reason).or_insert(0) += 1;
            must_count(b, reason, counted[reason])?;
        }
        must_carry(scratch, [&sites.gateway_a, b])
    })
}

/// DWCP-60: papers in order, and another name than theirs in the handshake inside.
#[test]
fn who_calls_itself_otherwise_than_its_certificate_is_refused_in_words() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let sites = Sites::start(scratch)?;
        let paper = sites.a.issue("edge")?;
        let mut stream = dial_tls(&sites.gateway_b, &Manner::of(&paper))?;
        let other = gateway_named("novacron://site-b/gateway/edge");
        let me = Identity { gateway: other, instance: [2; 16] };
        stream.write_all(&Hello::new(me, 0, NONCE).to_frame())?;
        let (header, payload) = read_frame(&mut stream)?;
        ensure!(header.kind == Kind::HelloRefuse, "{header:?}");
        let refuse = HelloRefuse::read(&payload)?;
        ensure!(
            refuse.code == RefuseCode::NotAuthorised && refuse.text.contains("certificate"),
            "{refuse:?}"
        );
        must_count(&sites.gateway_b, "not_allowed", 1)?;
        must_log(scratch, "gateway-b", "calls itself otherwise")
    })
}
