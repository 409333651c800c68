//! `audit`: a node's audit log.

use std::io::Write;

use novacron_control_api::control::{AuditList, AuditRecord, AuditVerified};
use serde_json::{json, to_string};

use super::args::{AuditCommand, AuditListArgs, AuditVerifyArgs};
use super::{Node, failed};
use crate::keys::{Failed, Said};
use crate::limits::AUDIT_VERIFY;
use crate::sessions::{json as as_json, printable};

/// Entries of one answer that is asked for; the node may give fewer.
const PAGE_ITEMS: u32 = 200;

/// Shows, verifies or exports the log.
pub(crate) fn audit(command: &AuditCommand) -> Result<Said, Failed> {
    match command {
        AuditCommand::List(args) => list(args),
        AuditCommand::Verify(args) => {
            let found = verify(&mut Node::connect(&args.node)?, args)?;
            if args.node.json {
                return Ok(Said::done(as_json(&found)));
            }
            let AuditVerified { entries, base, head } = found;
            let text = format!(
                "whole: {entries} entries after {base}\nhead   {head}\nKeep the head elsewhere: --kept then finds what is cut off later.\n"
            );
            Ok(Said::done(text))
        }
        AuditCommand::Export(args) => export(args),
    }
}

fn verify(node: &mut Node, args: &AuditVerifyArgs) -> Result<AuditVerified, Failed> {
    node.call_within(AUDIT_VERIFY, "audit.verify", &json!({"kept": args.kept}))
}

fn number(head: &str) -> u64 {
    head.split(':').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Hands every entry after `after` to `take`, up to number `to`.
fn follow(
    node: &mut Node,
    mut after: u64,
    to: u64,
    mut take: impl FnMut(AuditRecord) -> Result<(), Failed>,
) -> Result<(), Failed> {
    while after < to {
        let page: AuditList = node.call("audit.list", &json!({"after": after, "items_max": PAGE_ITEMS}))?;
        for entry in page.entries {
            if entry.seq > to {
                return Ok(());
            }
            after = entry.seq;
            take(entry)?;
        }
        if page.next.is_none() {
            break;
        }
    }
    Ok(())
}

fn list(args: &AuditListArgs) -> Result<Said, Failed> {
    let mut node = Node::connect(&args.node)?;
    let first: AuditList = node.call("audit.list", &json!({"items_max": 1}))?;
    let head = number(&first.head);
    let after = head.saturating_sub(u64::from(args.last));
    let mut text = match args.node.json {
        true => String::new(),
        false => format!(
            "{:>8}  {:<24}  {:<8}  {:<16}  {:<8}  {:<18}  SUBJECT\n",
            "NUMBER", "AT", "OUTCOME", "ACTOR", "ROLE", "METHOD"
        ),
    };
    follow(&mut node, after, head, |entry| {
        text += &match args.node.json {
            true => to_string(&entry).unwrap_or_default() + "\n",
            false => format!(
                "{:>8}  {:<24}  {:<8}  {:<16}  {:<8}  {:<18}  {}\n",
                entry.seq,
                entry.at.to_string(),
                printable(&entry.outcome),
                printable(&entry.actor),
                printable(&entry.role),
                printable(&entry.method),
                printable(&entry.subject)
            ),
        };
        Ok(())
    })?;
    Ok(Said::done(text))
}

fn export(args: &AuditVerifyArgs) -> Result<Said, Failed> {
    let mut node = Node::connect(&args.node)?;
    let found = verify(&mut node, args)?;
    let mut out = std::io::stdout().lock();
    let path = node.path.clone();
    let mut written = 0u64;
    follow(&mut node, number(&found.base), number(&found.head), |entry| {
        let line = to_string(&entry).unwrap_or_default() + "\n";
        written += 1;
        out.write_all(line.as_bytes())
            .map_err(|error| Failed::Words(format!("the export cannot be written: {error}")))
    })?;
    if written != found.entries {
        let why = format!("gave {written} of {} entries: export again", found.entries);
        return Err(failed(&path, &why));
    }
    eprintln!("{written} entries after {}, head {}", found.base, found.head);
    Ok(Said::done(String::new()))
}
