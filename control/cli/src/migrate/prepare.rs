//! Everything before the first guest byte: checks that change nothing, then the arrangement of both ends.

use std::fs::DirBuilder;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use novacron_control_api::{
    Call, Endpoint, GatewayInfo, OpenResult, SessionId, SessionOpen, SessionOptions, SessionSide, Token,
};
use qapi::qmp::{MigrationCapability, MigrationCapabilityStatus};

use super::Trouble;
use crate::args::{MigrateArgs, Via, bytes_per_s};
use crate::ends::{End, Ends};
use crate::limits::RPC_OPEN_MARGIN;
use crate::qmp::{MigrateLimits, QmpError, QueryCpus, QueryMemory, QueryMigrate, QueryStatus};
use crate::rpc::{self, Gateway, GatewayError};

/// Why a migration is not begun. Nothing was changed anywhere.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    Qmp(#[from] QmpError),
    #[error("{0}")]
    Gateway(#[from] GatewayError),
    #[error("source and destination are the same QMP socket; name two QEMUs")]
    SameQmp,
    #[error("the source is '{0}', not running; only a running guest is migrated")]
    SourceNotRunning(String),
    #[error("the source is in a migration already ({0}); wait for it, or cancel it (QMP 'migrate_cancel')")]
    SourceBusy(String),
    #[error("the source's QEMU cannot migrate this guest: {0}")]
    SourceBlocked(String),
    #[error("the destination is '{0}', not waiting for a migration; start it with '-S -incoming defer'")]
    DestinationNotWaiting(String),
    #[error(
        "the destination has been told where to listen already ({0}); start it with '-S -incoming defer', nothing else"
    )]
    DestinationBusy(String),
    #[error(
        "the {what} differs: {source_has} at the source, {destination_has} at the destination; start the destination with the source's"
    )]
    Differs { what: &'static str, source_has: String, destination_has: String },
    #[error(
        "the destination's QEMU {destination_has} is older than the source's {source_has}; a guest is moved to the same or a newer version"
    )]
    Older { source_has: String, destination_has: String },
    #[error(
        "the gateway at {0} is draining and takes no new sessions; use another, or wait until it is back"
    )]
    Draining(String),
    #[error(
        "the gateways share no wire version: {source_has:?} at the source, {destination_has:?} at the destination; upgrade the older one"
    )]
    Wire { source_has: Vec<u16>, destination_has: Vec<u16> },
}

impl Refusal {
    /// Whether the guest was seen running at the source before this was found.
    pub(crate) fn source_runs(&self) -> bool {
        !matches!(self, Self::SameQmp | Self::Qmp(_) | Self::SourceNotRunning(_))
    }
}

/// Checks both hypervisors and both gateways; changes nothing.
pub(crate) fn check(args: &MigrateArgs) -> Result<Ends, Refusal> {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if real(&args.source_qmp) == real(&args.destination_qmp) {
        return Err(Refusal::SameQmp);
    }
    let mut ends = Ends::new(&args.source_qmp, &args.destination_qmp);
    check_states(&mut ends)?;
    check_machines(&mut ends)?;
    let [source, destination] = [&args.source_gateway, &args.destination_gateway]
        .map(|path| rpc::call::<GatewayInfo>(path, Call::GatewayInfo).map(|info| (path, info)));
    let (source, destination) = (source?, destination?);
    for (path, info) in [&source, &destination] {
        if info.draining {
            return Err(Refusal::Draining(path.display().to_string()));
        }
    }
    let (source_has, destination_has) = (source.1.wire_versions, destination.1.wire_versions);
    if !source_has.iter().any(|version| destination_has.contains(version)) {
        return Err(Refusal::Wire { source_has, destination_has });
    }
    Ok(ends)
}

fn check_states(ends: &mut Ends) -> Result<(), Refusal> {
    let source = ends.source.qmp()?;
    let status = source.execute(QueryStatus {})?;
    if !status.running {
        return Err(Refusal::SourceNotRunning(status.status));
    }
    let migration = source.execute(QueryMigrate {})?;
    if !migration.is_terminal() {
        return Err(Refusal::SourceBusy(migration.status_or_none().to_owned()));
    }
    if !migration.blocked_reasons.is_empty() {
        return Err(Refusal::SourceBlocked(migration.blocked_reasons.join("; ")));
    }
    let destination = ends.destination.qmp()?;
    let status = destination.execute(QueryStatus {})?;
    if status.status != "inmigrate" {
        return Err(Refusal::DestinationNotWaiting(status.status));
    }
    let migration = destination.execute(QueryMigrate {})?;
    if let Some(status) = migration.status {
        return Err(Refusal::DestinationBusy(status));
    }
    Ok(())
}

/// What must be equal, and a version that must not go back.
fn check_machines(ends: &mut Ends) -> Result<(), Refusal> {
    let source = machine(&mut ends.source)?;
    let destination = machine(&mut ends.destination)?;
    for ((what, source_has), (_, destination_has)) in source.equal.into_iter().zip(destination.equal) {
        if source_has != destination_has {
            return Err(Refusal::Differs { what, source_has, destination_has });
        }
    }
    let [from, to] = [source.version, destination.version];
    if (to.0, to.1) < (from.0, from.1) {
        let text = |(major, minor, micro)| format!("{major}.{minor}.{micro}");
        return Err(Refusal::Older { source_has: text(from), destination_has: text(to) });
    }
    Ok(())
}

struct Machine {
    equal: [(&'static str, String); 3],
    version: (i64, i64, i64),
}

fn machine(end: &mut End) -> Result<Machine, QmpError> {
    let qmp = end.qmp()?;
    // The type's name carries its version (`pc-q35-10.0-machine`), whatever alias it was started by.
    let kind = qmp.execute(qapi::qmp::qom_get { path: "/machine".into(), property: "type".into() })?;
    let kind = kind.as_str().map_or_else(|| kind.to_string(), str::to_owned);
    let memory = qmp.execute(QueryMemory {})?;
    let bytes = memory.base_memory.saturating_add(memory.plugged_memory);
    let cpus = qmp.execute(QueryCpus {})?.len();
    let equal = [
        ("machine type", kind),
        ("RAM size", format!("{bytes} bytes")),
        ("number of CPUs", cpus.to_string()),
    ];
    Ok(Machine { equal, version: qmp.version() })
}

/// Where the hypervisors and their gateways meet.
pub(crate) struct Meeting {
    /// The private directory, to be removed at the end.
    pub(crate) dir: Option<PathBuf>,
    /// Where the source's gateway listens for the source.
    pub(crate) source: Endpoint,
    /// Where the destination listens for its gateway.
    pub(crate) destination: Endpoint,
}

/// Chooses where the hypervisors and their gateways meet.
pub(crate) fn meeting(args: &MigrateArgs, migration: SessionId) -> Result<Meeting, Trouble> {
    let trouble = |why: String| Trouble::new("meeting_place", why);
    if args.via == Via::Tcp {
        let loopback = |port| Endpoint::tcp((Ipv4Addr::LOCALHOST, port).into());
        // The gateway must know the port before QEMU listens on it, so a free one is chosen here. Should somebody
        // take it in between, `migrate-incoming` says so before anything has happened.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .map_err(|error| trouble(format!("no free loopback port: {error}")))?
            .port();
        return Ok(Meeting { dir: None, source: loopback(0), destination: loopback(port) });
    }
    let base = args
        .socket_dir
        .clone()
        .or_else(|| std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute()))
        .unwrap_or_else(std::env::temp_dir);
    let dir = base.join(format!("novacron-{migration}"));
    let socket = |name: &str| {
        let text = format!("unix:{}", dir.join(name).display());
        text.parse::<Endpoint>().map_err(|error| trouble(format!("{error}; choose another --socket-dir")))
    };
    let (source, destination) = (socket("source.sock")?, socket("destination.sock")?);
    DirBuilder::new().mode(0o700).create(&dir).map_err(|error| {
        trouble(format!("the socket directory {} cannot be made: {error}", dir.display()))
    })?;
    Ok(Meeting { dir: Some(dir), source, destination })
}

/// Announces the session at both gateways, the destination's first. Gives the URI for QEMU's `migrate`.
pub(crate) fn open_sessions(
    args: &MigrateArgs,
    session: SessionId,
    meeting: &Meeting,
) -> Result<Endpoint, Trouble> {
    let mut secret = [0; 32];
    random(&mut secret)?;
    let token = Token::from_bytes(secret);
    let options = SessionOptions {
        lanes: args.lanes,
        streams: args.streams,
        weight: args.weight,
        rate_limit_bytes_per_s: bytes_per_s(args.rate_limit),
        digest: !args.no_digest,
        codec: args.codec.into(),
        level: args.level,
        outage_ms: args.outage * 1000,
        // The destination runs only by `cont`: closing the source's socket late is safe, and lets it resume.
        destination_may_start: false,
        ..SessionOptions::default()
    };
    let wait = Duration::from_millis(options.open_timeout_ms) + RPC_OPEN_MARGIN;
    let open = |path: &Path, side: SessionSide| -> Result<OpenResult, Trouble> {
        let label = args.label.clone();
        let open =
            SessionOpen { options: options.clone(), label, ..SessionOpen::new(session, token.clone(), side) };
        Ok(Gateway::connect(path)?.call(Call::SessionOpen(Box::new(open)), wait)?)
    };
    let connect = meeting.destination.clone();
    open(&args.destination_gateway, SessionSide::Destination { connect })?;
    let side = SessionSide::Source { peer: args.peer.clone(), listen: meeting.source.clone() };
    open(&args.source_gateway, side)?.listen.ok_or_else(|| {
        Trouble::new(
            "gateway_lost",
            "the source's gateway opened the session and did not say where it listens",
        )
    })
}

/// Sets both hypervisors up and lets the destination listen. After this the destination is of no other use.
pub(crate) fn arrange(args: &MigrateArgs, ends: &mut Ends, meeting: &Meeting) -> Result<(), Trouble> {
    for end in [&mut ends.destination, &mut ends.source] {
        let qmp = end.qmp()?;
        let capabilities = [MigrationCapability::return_path, MigrationCapability::events]
            .map(|capability| MigrationCapabilityStatus { capability, state: true })
            .to_vec();
        qmp.execute(qapi::qmp::migrate_set_capabilities { capabilities })?;
        let (max_bandwidth, downtime_limit) = (args.max_bandwidth, args.downtime_limit);
        qmp.execute(MigrateLimits { max_bandwidth, downtime_limit })?;
    }
    let qmp = ends.destination.qmp()?;
    // QMP cannot say whether QEMU was started with -S: an incoming guest is 'inmigrate' either way. It can be made
    // so: 'stop' in 'inmigrate' takes the autostart away (QEMU `monitor/qmp-cmds.c`, `qmp_stop`: `autostart = 0`).
    qmp.execute(qapi::qmp::stop {})?;
    let uri = Some(meeting.destination.to_string());
    qmp.execute(qapi::qmp::migrate_incoming { uri, channels: None, exit_on_error: None })?;
    Ok(())
}

/// Fills `bytes` from the system's random source.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), Trouble> {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Trouble::new("no_randomness", format!("no random numbers: {error}"))),
        }
    }
    Ok(())
}

/// A migration's name.
pub(crate) fn new_id() -> Result<SessionId, Trouble> {
    let mut bytes = [0; 8];
    random(&mut bytes)?;
    Ok(SessionId(u64::from_be_bytes(bytes)))
}
