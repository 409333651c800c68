//! `sessions`, `show`, `cancel` and `info`: one call each, printed.

use indicatif::HumanBytes;
use novacron_control_api::{
    Call, CancelParams, GatewayInfo, Role, SessionList, SessionRecord, SessionRef, SessionState,
};
use serde::Serialize;

use crate::args::{GatewayArgs, SessionArgs};
use crate::rpc::{self, GatewayError};

/// Lists the sessions.
pub(crate) fn list(args: &GatewayArgs) -> Result<String, GatewayError> {
    let list: SessionList = rpc::call(&args.gateway, Call::SessionList)?;
    if args.json {
        return Ok(json(&list));
    }
    let mut text = format!(
        "{:<16}  {:<11}  {:<11}  {:<10}  {:>9}  {:>11}  {:>11}  LABEL\n",
        "SESSION", "ROLE", "STATE", "PHASE", "ELAPSED", "GUEST", "WIRE"
    );
    for record in &list.sessions {
        text += &format!(
            "{}  {:<11}  {:<11}  {:<10}  {:>7} s  {:>11}  {:>11}  {}\n",
            record.session,
            word(&record.role),
            word(&record.state),
            word(&record.phase),
            record.elapsed_ms / 1000,
            HumanBytes(record.guest_bytes).to_string(),
            HumanBytes(wire(record)).to_string(),
            printable(&record.label),
        );
    }
    Ok(text)
}

/// Shows one session.
pub(crate) fn show(args: &SessionArgs) -> Result<String, GatewayError> {
    let record = rpc::call(&args.gateway.gateway, Call::SessionGet(SessionRef { session: args.session }))?;
    Ok(if args.gateway.json { json(&record) } else { describe(&record) })
}

/// Cancels one session.
pub(crate) fn cancel(args: &SessionArgs) -> Result<String, GatewayError> {
    let params = CancelParams { session: args.session, reason: "novactl cancel".into() };
    let record: SessionRecord = rpc::call(&args.gateway.gateway, Call::SessionCancel(params))?;
    if args.gateway.json {
        return Ok(json(&record));
    }
    let said = match record.state {
        SessionState::Finished => "had finished already; nothing was cancelled",
        SessionState::Failed => {
            "is cancelled; the source's hypervisor sees its socket close and goes on by itself"
        }
        _ => "is being cancelled",
    };
    Ok(format!("session {} {said}\n", record.session))
}

/// Shows the gateway.
pub(crate) fn info(args: &GatewayArgs) -> Result<String, GatewayError> {
    let info: GatewayInfo = rpc::call(&args.gateway, Call::GatewayInfo)?;
    if args.json {
        return Ok(json(&info));
    }
    let listen: Vec<_> = info.listen.iter().map(ToString::to_string).collect();
    Ok(format!(
        "version   {}\nwire      {:?}\npid       {}\nshards    {}\nlisten    {}\ndraining  {}\nstarted   {} ({} s ago)\n",
        info.version,
        info.wire_versions,
        info.pid,
        info.shards,
        if listen.is_empty() { "nowhere".to_owned() } else { listen.join(" ") },
        info.draining,
        info.started_at,
        info.uptime_ms / 1000,
    ))
}

fn describe(record: &SessionRecord) -> String {
    let endpoint = |endpoint: &Option<novacron_control_api::Endpoint>| {
        endpoint.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string)
    };
    let mut text = format!(
        "session    {} {}\nrole       {}\nstate      {}\nphase      {}, iteration {}\nopened     {}\nelapsed    {} ms\n\
         peer       {}\nlisten     {}\nconnect    {}\nstreams    {} open, {} ever, served by {} of its gateway's shards, {} where their packets arrive\n\
         guest      {} bytes, {} pages, {} zero\nencoded    {} bytes\nwire       {} bytes sent, {} received\n\
         rate       {}/s, round trip {} us, window {}\n",
        record.session,
        printable(&record.label),
        word(&record.role),
        word(&record.state),
        word(&record.phase),
        record.iteration,
        record.opened_at,
        record.elapsed_ms,
        endpoint(&record.peer),
        endpoint(&record.listen),
        endpoint(&record.connect),
        record.streams.open,
        record.streams.ever,
        record.streams.shards,
        record.streams.steered,
        record.guest_bytes,
        record.pages,
        record.zero_pages,
        record.encoded_bytes,
        record.wire_bytes_sent,
        record.wire_bytes_received,
        HumanBytes(record.rate_bytes_per_s),
        record.rtt_us,
        HumanBytes(record.window_bytes),
    );
    text += &modes(record);
    if !record.tenant.is_empty() {
        text += &format!("tenant     {}\n", printable(&record.tenant));
    }
    for named in &record.labelled {
        text += &format!("{:<10} {}\n", named.label.as_str(), named.endpoint);
    }
    if !record.from.is_empty() {
        let from: Vec<_> = record.from.iter().map(ToString::to_string).collect();
        text += &format!("from       {}\n", from.join(" "));
    }
    if record.refused_connections > 0 {
        text += &format!("refused    {} connections\n", record.refused_connections);
    }
    if let Some(reason) = &record.reason {
        text += &format!("reason     {} [{}]\n", printable(&reason.message), reason.code);
    }
    text += &codec(record);
    for connection in &record.connections {
        text += &format!(
            "connection {} {} {}: {} bytes, {} verified, {} consumed{}\n",
            connection.connection,
            printable(&connection.label),
            word(&connection.direction),
            connection.position,
            connection.verified,
            connection.consumed,
            if connection.ended { ", ended" } else { "" },
        );
    }
    let digests = match record.digest_equal {
        Some(true) => "equal on both sides",
        Some(false) => "DIFFERENT",
        None => "not compared",
    };
    text + &format!("digests    {digests}\n")
}

/// What the path is taken for, and what it was taken for before; nothing where nobody says.
fn modes(record: &SessionRecord) -> String {
    let Some(mode) = &record.mode else { return String::new() };
    let mut text =
        format!("mode       {}, streams by {}\n", word(mode), record.streams.congestion.join(" and "));
    for change in &record.mode_changes {
        text += &format!("           {} {} ({})\n", change.at, word(&change.to), printable(&change.why));
    }
    text
}

/// How guest bytes were carried, and what that took.
fn codec(record: &SessionRecord) -> String {
    let (bytes, times, memory) = (&record.codec, &record.codec_times, &record.delta_memory);
    let of = |part: u64| format!("{} ({:.1} %)", HumanBytes(part), share(part, record.guest_bytes));
    let mut text = String::new();
    // Only the source's side encodes a guest.
    if record.encoded_bytes > 0 && record.role == Role::Source {
        text += &format!(
            "codec      known {}, unchanged {}, delta {}, uniform {}, raw {}, lz4 {}, zstd {}\nratio      {:.2} guest bytes a byte encoded\n\
             took       comparing {} ms, raw {} ms, lz4 {} ms, zstd {} ms\n",
            of(bytes.known),
            of(bytes.unchanged),
            of(bytes.delta),
            of(bytes.uniform),
            of(bytes.raw),
            of(bytes.lz4),
            of(bytes.zstd),
            record.guest_bytes as f64 / record.encoded_bytes as f64,
            times.memory_us / 1000,
            times.raw_us / 1000,
            times.lz4_us / 1000,
            times.zstd_us / 1000,
        );
    }
    let content = &record.content;
    if content.repaired_pages > 0 {
        text += &format!(
            "repairs    {} pages that were referred to and not held any more",
            content.repaired_pages
        );
        if content.repair_bytes > 0 {
            text += &format!(", {}", HumanBytes(content.repair_bytes));
        }
        text += "\n";
    }
    if content.most > 0 {
        let (held, most) = (HumanBytes(content.held), HumanBytes(content.most));
        text += &format!("content    {held} of {most} held for this tenant and peer\n");
    }
    if memory.agreed > 0 {
        text += &format!("remembers  {} of {}\n", HumanBytes(memory.held), HumanBytes(memory.agreed));
    }
    text
}

/// A part in hundredths of a whole.
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 }
}

fn wire(record: &SessionRecord) -> u64 {
    record.wire_bytes_sent.saturating_add(record.wire_bytes_received)
}

/// An enum's name as the wire writes it.
fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Free text of others, without what would move a terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).collect()
}

/// Indented JSON, newline included.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
