//! The control process: starts a node in order, watches it, takes commands, says how it is.
//!
//! ```text
//! main ── bootstrap ─┬ security, database, cache, network, dataplane ── gateway::process ── novacron-gateway
//!                    └ orchestrator ── gateway::sessions, records     monitoring ── http
//!                      api ── server ── node, features, gateway::calls        traces ── a collector
//! ```
//!
//! It decides nothing about guests and moves no byte of theirs: it may end at any moment.
#![forbid(unsafe_code)]

mod args;
mod bootstrap;
mod checkpoint;
mod component;
mod components;
mod environment;
mod events;
mod features;
mod gateway;
mod health;
mod http;
mod limits;
mod log;
mod metrics;
mod node;
mod plan;
mod records;
mod reload;
mod server;
mod traces;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use novacron_configuration::Sources;
use novacron_control_api::configuration::{Configuration, Congestion, ForcedMode, LogFormat, Resolved};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

use args::Args;
use bootstrap::Bootstrap;
use checkpoint::{Before, Checkpoint};
use component::Component;
use components::{
    Absent, Api, CacheBefore, Database, Dataplane, Monitoring, Network, Orchestrator, Security,
};
use events::Events;
use gateway::{Gateway, Launch, Supervisor};
use health::Board;
use limits::{POST_INIT, PRE_INIT};
use log::Levels;
use metrics::Metrics;
use node::{Node, Parts, variables};
use plan::Phase;
use server::{Books, Server, Status};

/// Exit code when the configuration or the command line is wrong.
const WRONG: u8 = 2;

fn main() -> ExitCode {
    let started = Instant::now();
    let args = Args::parse();
    let loaded = args.sources().and_then(|sources| {
        let resolved = sources.load(variables()).map_err(|error| error.to_string())?;
        Ok((sources, resolved))
    });
    let (sources, resolved) = match loaded {
        Ok(loaded) => loaded,
        Err(why) => {
            eprintln!("novacron-control: the configuration is refused, nothing was started:\n{why}");
            return ExitCode::from(WRONG);
        }
    };
    raise_descriptors();
    let system = &resolved.configuration.system;
    let levels = log::start(system.log_format, system.log_level);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(sources, resolved, levels, started)),
        Err(error) => Err(format!("no threads: {error}")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why}; no migration is affected");
            ExitCode::FAILURE
        }
    }
}

/// A caller is a file descriptor: as many as the system lets this process have.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where that is refused, fewer callers are served.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

async fn run(sources: Sources, resolved: Resolved, levels: Levels, started: Instant) -> Result<(), String> {
    let mut terms =
        signal(SignalKind::terminate()).map_err(|error| format!("signals cannot be received: {error}"))?;
    let mut ints =
        signal(SignalKind::interrupt()).map_err(|error| format!("signals cannot be received: {error}"))?;
    let begun = timeout(PRE_INIT, begin(sources, resolved, levels, started));
    let (node, bootstrap, board, status) =
        begun.await.map_err(|_| "what comes before components took too long".to_owned())??;
    let starting = start(&node, &bootstrap, &board, &status);
    let stopped_early = tokio::select! {
        result = starting => { result?; false }
        _ = terms.recv() => true,
        _ = ints.recv() => true,
    };
    if !stopped_early {
        let reloading = tokio::spawn(reload::watch(Arc::clone(&node)));
        let looking = tokio::spawn(look_around(Arc::clone(&node), Arc::clone(&status)));
        tokio::select! {
            _ = terms.recv() => {}
            _ = ints.recv() => {}
        }
        reloading.abort();
        looking.abort();
    }
    tracing::info!("stopping");
    board.set_started(false);
    let within = node.resolved().configuration.system.shutdown_timeout.get();
    tokio::select! {
        () = bootstrap.stop(within) => {}
        // A second signal ends the wait.
        _ = terms.recv() => {}
        _ = ints.recv() => {}
    }
    export_last(&node).await;
    bootstrap.checkpoint().ended();
    tracing::info!("stopped");
    Ok(())
}

type Begun = (Arc<Node>, Arc<Bootstrap>, Arc<Board>, Arc<Status>);

/// What comes before components: the host, the data directory, what is short.
async fn begin(
    sources: Sources,
    resolved: Resolved,
    levels: Levels,
    started: Instant,
) -> Result<Begun, String> {
    let (events, metrics) = (Arc::new(Events::new()), Arc::new(Metrics::new()));
    for warning in &resolved.warnings {
        tracing::warn!("{warning}");
    }
    let of = resolved.configuration.clone();
    let data_dir = &of.system.data_dir;
    let made = std::fs::create_dir_all(data_dir);
    made.map_err(|error| {
        format!("{} cannot be made: {error}; system.data_dir names it", data_dir.display())
    })?;
    for socket in [&of.system.control_socket, &of.dwcp.gateway_socket] {
        if let Some(folder) = socket.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| format!("{} cannot be made: {error}", folder.display()))?;
        }
    }
    let host = environment::look(data_dir);
    let environment = environment::environment(&host, &of);
    for short in &environment.short {
        tracing::warn!(what = short.name, fatal = short.fatal, "{}: {}", short.missing, short.costs);
    }
    if let Some(fatal) = environment.short.iter().find(|short| short.fatal) {
        return Err(format!("{}: {}", fatal.missing, fatal.costs));
    }
    let (checkpoint, before) = Checkpoint::begin(data_dir)?;
    match &before {
        Before::None | Before::Ended => {}
        Before::CutOff => {
            tracing::warn!("the run before this one was cut off; its gateway and sessions are looked for")
        }
        Before::CutOffStarting(step) => {
            tracing::warn!(after = step, "the start before this one was cut off, or gave up");
        }
    }
    let gateway = Arc::new(Gateway::at(&of.dwcp.gateway_socket));
    let launch = Launch {
        program: gateway::program(of.dwcp.gateway_program.as_deref()),
        arguments: gateway_arguments(&of),
        note: data_dir.join("gateway.json"),
    };
    let supervisor = Supervisor::new(Arc::clone(&gateway), launch, Arc::clone(&events), Arc::clone(&metrics));
    let supervisor = Arc::new(supervisor);
    let board = Arc::new(Board::new(Arc::clone(&events), Arc::clone(&metrics)));
    let parts = Parts {
        sources,
        resolved,
        levels,
        environment,
        events: Arc::clone(&events),
        metrics: Arc::clone(&metrics),
        gateway,
        supervisor,
        started,
    };
    let node = Arc::new(Node::new(parts));
    let (books, status) =
        (Arc::new(Books::new(Arc::clone(&node.records))), Arc::new(Status::new(Arc::clone(&board))));
    let server = Server::new(Arc::clone(&node), Arc::clone(&books), Arc::clone(&status));
    let components: Vec<Arc<dyn Component>> = vec![
        Arc::new(Security::new(Arc::clone(&node))),
        Arc::new(Database::new(Arc::clone(&node), books)),
        Arc::new(CacheBefore::new(Arc::clone(&node))),
        Arc::new(Network::new(Arc::clone(&node))),
        Arc::new(Dataplane::new(Arc::clone(&node))),
        Arc::new(Orchestrator::new(Arc::clone(&node))),
        Arc::new(Api::new(server)),
        Arc::new(Monitoring::new(Arc::clone(&node), Arc::clone(&status))),
        Arc::new(Absent::models()),
    ];
    let traces = Arc::clone(&node.traces);
    let bootstrap = Bootstrap::new(components, Arc::clone(&board), events, metrics, checkpoint, traces);
    let bootstrap = Arc::new(bootstrap.map_err(|error| error.to_string())?);
    status.of(&bootstrap);
    let took = started.elapsed();
    node.metrics.phase_ended("pre-init", took);
    node.traces.past("phase pre-init", &node.traces.start(), took, Vec::new(), None);
    tracing::info!(
        node = node.node_id,
        version = env!("CARGO_PKG_VERSION"),
        data_dir = %data_dir.display(),
        took_ms = millis(took),
        "phase pre-init ended"
    );
    Ok((node, bootstrap, board, status))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The gateway's command line.
fn gateway_arguments(of: &Configuration) -> Vec<String> {
    let text = |path: &Path| path.display().to_string();
    let listen = std::net::SocketAddr::new(
        of.network.listen_address,
        u16::try_from(of.network.bind_port.get()).unwrap_or_default(),
    );
    let format = match of.system.log_format {
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    };
    let mut arguments: Vec<String> = [
        ("--control", text(&of.dwcp.gateway_socket)),
        ("--listen", format!("tcp:{listen}")),
        ("--shards", of.dwcp.gateway_shards.get().to_string()),
        // Sessions ask for more: a switch that is off must be able to leave it at one.
        ("--streams-min", "1".to_owned()),
        ("--streams-max", of.transport.max_streams.get().to_string()),
        ("--log-level", of.system.log_level.word().to_owned()),
        ("--log-format", format.to_owned()),
    ]
    .into_iter()
    .flat_map(|(name, value)| [name.to_owned(), value])
    .collect();
    if of.dwcp.forced_mode != ForcedMode::Detected {
        arguments.extend(["--mode".to_owned(), of.dwcp.forced_mode.word().to_owned()]);
    }
    if of.transport.congestion_algo != Congestion::Adaptive {
        arguments.extend(["--congestion".to_owned(), of.transport.congestion_algo.word().to_owned()]);
    }
    if of.dwcp.probe_port.get() > 0 {
        let at = std::net::SocketAddr::new(
            of.network.listen_address,
            u16::try_from(of.dwcp.probe_port.get()).unwrap_or_default(),
        );
        // The gateway looks between every second and every hour; what is looked at here may be left alone for longer.
        let look_ms = of.dwcp.detection_interval.ms().clamp(1_000, 3_600_000);
        let interval = ["--detection-interval".to_owned(), format!("{look_ms}ms")];
        arguments.extend(["--probe-listen".to_owned(), at.to_string()].into_iter().chain(interval));
    }
    if of.security.enable_encryption {
        arguments.extend(["--identity".to_owned(), text(&of.security.identity_dir)]);
    } else {
        arguments.push("--insecure-plaintext".to_owned());
    }
    arguments
}

/// The phases of components, and what comes after.
async fn start(
    node: &Arc<Node>,
    bootstrap: &Arc<Bootstrap>,
    board: &Arc<Board>,
    status: &Arc<Status>,
) -> Result<(), String> {
    for phase in Phase::ALL {
        if let Err(failed) = bootstrap.start(phase).await {
            node.traces.started(Some(&failed.to_string()));
            export_last(node).await;
            return Err(format!("{failed}; everything that was started is stopped again"));
        }
    }
    let began = Instant::now();
    board.set_started(true);
    let health = timeout(POST_INIT, status.health()).await;
    let health = health.map_err(|_| "components did not say in time how they are".to_owned())?;
    let after = node.started.elapsed();
    // Set once: there is one start.
    let _ = node.ready_after.set(after);
    node.metrics.phase_ended("post-init", began.elapsed());
    node.traces.past("phase post-init", &node.traces.start(), began.elapsed(), Vec::new(), None);
    node.traces.started(None);
    node.metrics.ready(after);
    bootstrap.checkpoint().ready();
    let degraded: Vec<&str> = health
        .components
        .iter()
        .filter(|one| !matches!(one.state, novacron_control_api::control::HealthState::Up))
        .map(|one| one.name.as_str())
        .collect();
    tracing::info!(after_ms = millis(after), ready = health.ready, not_up = degraded.join(" "), "ready");
    let text = format!("the node is ready after {} ms", millis(after));
    node.events.tell("node.ready", &node.node_id, text, json!({"after_ms": millis(after)}));
    Ok(())
}

/// Hands the collector what it has not got yet; for a bounded time.
async fn export_last(node: &Arc<Node>) {
    let traces = Arc::clone(&node.traces);
    // The exporter's thread needs this runtime meanwhile.
    let _ = tokio::task::spawn_blocking(move || traces.end()).await;
}

/// Looks at the host, and at every component, again and again: changes are told even when nobody asks.
async fn look_around(node: Arc<Node>, status: Arc<Status>) {
    loop {
        let resolved = node.resolved();
        sleep(resolved.configuration.dwcp.detection_interval.get()).await;
        if node.resolved().configuration.dwcp.enable_auto_detection {
            let looking = Arc::clone(&node);
            let _ = tokio::task::spawn_blocking(move || looking.look_around()).await;
        }
        status.health().await;
    }
}
