//! `keys list` and `keys show`.

use std::path::Path;
use std::time::{Duration, SystemTime};

use novacron_keys::{Certificate, Entry, Ledger, Role, Which, store};
use serde_json::json;

use super::args::{ListArgs, ShowArgs};
use super::{Failed, Said, either, find};
use crate::report::{EXIT_DONE, EXIT_FAILED};

/// Lists everything, and says by the exit code whether somebody must act.
pub(crate) fn list(args: &ListArgs, now: SystemTime) -> Result<Said, Failed> {
    let mut certificates = Vec::new();
    let mut authorities = Vec::new();
    let mut words = format!("{:<34}  {:<10}  {:>5}  {:<24}  SERIAL\n", "HOLDER", "STANDING", "DAYS", "UNTIL");
    let mut act = Vec::new();
    for role in Role::ALL {
        let ledger = Ledger::open(&args.folder.keys, role)?;
        let authority = &ledger.certificate;
        // An authority outlives what it issues, or that ends early: it is replaced that much sooner.
        let term = args.expiring_within + CERTIFICATE;
        let left = authority.left(now);
        let list = ledger.revocation_list()?;
        let stale = list.next.is_some_and(|next| SystemTime::from(next) < now);
        let encrypted = ledger.is_encrypted()?;
        let ends = left.is_none_or(|left| left < term);
        words += &row(
            &authority.holder.to_string(),
            if ends { "expiring" } else { "authority" },
            days(left),
            authority,
        );
        if ends {
            act.push(format!(
                "{} ends {}: make another, and pair again",
                authority.holder, authority.not_after
            ));
        }
        if stale {
            act.push(format!(
                "the revocation list of {} is old: any issue, rotation or revocation renews it",
                authority.holder
            ));
        }
        let entries = ledger.list(now, args.expiring_within)?;
        for entry in &entries {
            let certificate = &entry.certificate;
            words += &row(
                &certificate.holder.to_string(),
                &entry.standing.to_string(),
                entry.days_left,
                certificate,
            );
            if entry.needs_action {
                act.push(advice(entry));
            }
        }
        authorities.push(json!({
            "authority": authority,
            "days_left": days(left),
            "needs_action": ends,
            "key_encrypted": encrypted,
            "revocation_list": { "made": list.made, "next": list.next, "stale": stale, "revoked": list.serials.len() },
        }));
        certificates.extend(entries);
    }
    for line in &act {
        words += &format!("act: {line}\n");
    }
    let value = json!({ "authorities": authorities, "certificates": certificates, "act": act });
    let mut said = either(args.folder.json, &value, words);
    said.exit = if act.is_empty() { EXIT_DONE } else { EXIT_FAILED };
    Ok(said)
}

/// The longest life of what an authority usually issues.
const CERTIFICATE: Duration = Duration::from_secs(novacron_keys::limits::CERTIFICATE_DAYS as u64 * 24 * 3600);

fn days(left: Option<Duration>) -> u64 {
    left.map_or(0, |left| left.as_secs() / (24 * 3600))
}

fn row(holder: &str, standing: &str, days: u64, certificate: &Certificate) -> String {
    let holder = holder.strip_prefix("novacron://").unwrap_or(holder);
    format!("{holder:<34}  {standing:<10}  {days:>5}  {}  {}\n", certificate.not_after, certificate.serial)
}

fn advice(entry: &Entry) -> String {
    let certificate = &entry.certificate;
    let holder = certificate.holder.to_string();
    let short = holder.splitn(4, '/').nth(3).unwrap_or(&holder);
    match entry.days_left {
        0 => {
            format!("{holder} ended or ends {}: novactl keys rotate {short}, or issue", certificate.not_after)
        }
        days => format!("{holder} ends in {days} days: novactl keys rotate {short}"),
    }
}

/// Shows what a serial number, a holder or a file names.
pub(crate) fn show(args: &ShowArgs, now: SystemTime) -> Result<Said, Failed> {
    if args.which.ends_with(".crt") || args.which.ends_with(".pem") {
        let path = Path::new(&args.which);
        let read = Certificate::from_pem(&store::read(path)?);
        let certificates = read.map_err(|why| Failed::Words(format!("{}: {why}", args.which)))?;
        let words: Vec<String> = certificates.iter().map(|one| described(one, now)).collect();
        return Ok(either(args.folder.json, &json!({ "certificates": certificates }), words.join("\n")));
    }
    let (ledger, which) = find(&args.folder.keys, &args.which)?;
    let term = Duration::from_secs(u64::from(novacron_keys::limits::EXPIRING_DAYS) * 24 * 3600);
    let entries: Vec<Entry> = ledger
        .list(now, term)?
        .into_iter()
        .filter(|entry| match &which {
            Which::Serial(serial) => entry.certificate.serial == *serial,
            Which::Identity(identity) => entry.certificate.identity() == Some(identity),
        })
        .collect();
    if entries.is_empty() {
        return Err(novacron_keys::LedgerError::Unknown(args.which.clone()).into());
    }
    let words: Vec<String> = entries
        .iter()
        .map(|entry| {
            let revoked = entry
                .revoked
                .as_ref()
                .map_or_else(String::new, |one| format!(", {} ({:?})", one.at, one.why));
            format!("{}standing    {}{revoked}\n", described(&entry.certificate, now), entry.standing)
        })
        .collect();
    Ok(either(args.folder.json, &json!({ "certificates": entries }), words.join("\n")))
}

fn described(certificate: &Certificate, now: SystemTime) -> String {
    let usages = match (certificate.is_authority, certificate.usages.as_slice()) {
        (true, _) => "signs certificates and revocation lists".to_owned(),
        (false, usages) => usages.join(", "),
    };
    format!(
        "holder      {}\nserial      {}\nissuer      {}\nvalid       {} to {} ({} days left)\nkey         {}\n\
         for         {usages}\nSHA-256     {}\n",
        certificate.holder,
        certificate.serial,
        certificate.issuer,
        certificate.not_before,
        certificate.not_after,
        days(certificate.left(now)),
        certificate.key,
        certificate.fingerprint,
    )
}
