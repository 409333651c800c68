//! `history`: what a node recorded.

use novacron_control_api::Endpoint;
use novacron_control_api::control::{MigrationHistory, PathHistory, SessionHistory};
use serde::Serialize;
use serde_json::{Value, json};

use super::Node;
use super::args::{HistoryArgs, HistoryCommand, PathHistoryArgs, WhichArg};
use crate::keys::{Failed, Said};
use crate::sessions::printable;

/// Items of one answer that is asked for; the node may give fewer.
const PAGE_ITEMS: u32 = 100;

/// Asks page by page for `last` items.
fn pages<T>(
    last: u32,
    mut ask: impl FnMut(Option<String>, u32) -> Result<(Vec<T>, Option<String>), Failed>,
) -> Result<Vec<T>, Failed> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let left = last.saturating_sub(u32::try_from(all.len()).unwrap_or(u32::MAX));
        if left == 0 {
            return Ok(all);
        }
        let (items, next) = ask(after, left.min(PAGE_ITEMS))?;
        all.extend(items);
        let Some(next) = next else { return Ok(all) };
        after = Some(next);
    }
}

/// One JSON object a line.
fn lines<T: Serialize>(items: &[T]) -> String {
    items.iter().map(|item| serde_json::to_string(item).unwrap_or_default() + "\n").collect()
}

fn shown(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn word<T: Serialize>(of: T) -> String {
    serde_json::to_value(of).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn params(args: &HistoryArgs, after: Option<String>, items_max: u32) -> Value {
    let which = match args.which {
        WhichArg::All => "all",
        WhichArg::Live => "live",
        WhichArg::Ended => "ended",
    };
    json!({"which": which, "after": after, "items_max": items_max})
}

/// Shows what was recorded.
pub(crate) fn history(command: &HistoryCommand) -> Result<Said, Failed> {
    match command {
        HistoryCommand::Migrations(args) => migrations(args),
        HistoryCommand::Sessions(args) => sessions(args),
        HistoryCommand::Paths(args) => paths(args),
    }
}

fn migrations(args: &HistoryArgs) -> Result<Said, Failed> {
    let mut node = Node::connect(&args.node)?;
    let found = pages(args.last, |after, items_max| {
        let page: MigrationHistory = node.call("history.migrations", &params(args, after, items_max))?;
        Ok((page.migrations, page.next))
    })?;
    if args.node.json {
        return Ok(Said::done(lines(&found)));
    }
    let mut text = format!(
        "{:<16}  {:<9}  {:<24}  {:<24}  {:>9}  {:>11}  {:<20}  {:<24}  LABEL\n",
        "SESSION", "OUTCOME", "STARTED", "ENDED", "TOTAL ms", "DOWNTIME ms", "ORDERED BY", "PEER"
    );
    for one in &found {
        let actor = if one.actor.is_empty() { "(at the gateway)" } else { &one.actor };
        text += &format!(
            "{}  {:<9}  {:<24}  {:<24}  {:>9}  {:>11}  {:<20}  {:<24}  {}\n",
            one.session,
            one.outcome.name(),
            one.started_at.to_string(),
            one.ended_at.map_or_else(|| "-".to_owned(), |at| at.to_string()),
            shown(one.total_ms),
            shown(one.downtime_ms),
            printable(actor),
            one.peer.as_ref().map_or_else(|| "-".to_owned(), Endpoint::to_string),
            printable(&one.label)
        );
        if let Some(reason) = &one.reason {
            text += &format!("{:<16}  {}\n", "", printable(&reason.message));
        }
    }
    Ok(Said::done(text))
}

fn sessions(args: &HistoryArgs) -> Result<Said, Failed> {
    let mut node = Node::connect(&args.node)?;
    let found = pages(args.last, |after, items_max| {
        let page: SessionHistory = node.call("history.sessions", &params(args, after, items_max))?;
        Ok((page.sessions, page.next))
    })?;
    if args.node.json {
        return Ok(Said::done(lines(&found)));
    }
    let mut text = format!(
        "{:<16}  {:<12}  {:<11}  {:<11}  {:<24}  {:>14}  {:>14}  GATEWAY\n",
        "SESSION", "STATE", "ROLE", "PHASE", "SEEN", "GUEST BYTES", "WIRE BYTES"
    );
    for one in &found {
        let record = &one.record;
        text += &format!(
            "{}  {:<12}  {:<11}  {:<11}  {:<24}  {:>14}  {:>14}  {}\n",
            record.session,
            word(record.state),
            word(record.role),
            word(record.phase),
            one.seen_at.to_string(),
            record.guest_bytes,
            record.wire_bytes_sent,
            printable(&one.gateway)
        );
    }
    Ok(Said::done(text))
}

fn paths(args: &PathHistoryArgs) -> Result<Said, Failed> {
    let mut node = Node::connect(&args.node)?;
    let found = pages(args.last, |after, items_max| {
        let asked = json!({"peer": args.peer, "after": after, "items_max": items_max});
        let page: PathHistory = node.call("history.paths", &asked)?;
        Ok((page.samples, page.next))
    })?;
    if args.node.json {
        return Ok(Said::done(lines(&found)));
    }
    let mut text =
        format!("{:<24}  {:>10}  {:>16}  {:>9}  MEASURED BY\n", "AT", "RTT us", "BYTES/s", "LOSS ppm");
    for one in &found {
        text += &format!(
            "{:<24}  {:>10}  {:>16}  {:>9}  {}\n",
            one.at.to_string(),
            shown(one.rtt_us),
            shown(one.bandwidth_bytes_per_s),
            shown(one.loss_ppm.map(u64::from)),
            printable(&one.measured_by)
        );
    }
    Ok(Said::done(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_followed_to_the_count_or_the_end() {
        let mut asked = Vec::new();
        let all = pages(250, |after, items_max| {
            asked.push((after.clone(), items_max));
            // The node gives fewer than asked for, as where records are large.
            let from: u32 = after.map_or(0, |after| after.parse().unwrap_or_default());
            Ok(((from..from + 90).collect(), Some((from + 90).to_string())))
        });
        assert!(all.unwrap().len() >= 250);
        assert_eq!(asked[2], (Some("180".to_owned()), 70));
        let few = pages(250, |_, _| Ok((vec![1, 2], None))).unwrap();
        assert_eq!(few, [1, 2]);
    }
}
