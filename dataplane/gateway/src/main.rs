//! The gateway process: carries hypervisors' migration streams between sites.
//!
//! ```text
//!  hypervisor ── shard::connection ── shard::running (protocol::Session) ── shard::stream ── peer gateway
//!                                          │ records                            │
//!  novactl ───── control::server ───── registry                  shard::{dial, accept}
//! ```
//!
//! Guest bytes stay on the shards. The control socket, the records file and signals have threads of their own.
#![forbid(unsafe_code)]

mod args;
mod clock;
mod confine;
mod control;
mod limits;
mod log;
mod path;
mod protection;
mod record;
mod records;
mod registry;
mod shard;
mod spread;
mod told;
mod trust;

use args::Args;
use clap::Parser;
use control::{Calls, Server};
use limits::{POOL_BYTES, PROMISED_BYTES};
use novacron_control_api::{Endpoint, Reason, StreamBounds, Timestamp};
use novacron_protocol::stream::MemoryBudget;
use novacron_protocol::wire::{Identity, gateway_named};
use novacron_transport::shard::{RuntimeConfig, Shutdown, Topology, run_shards, shutdown_on_signals, spawn};
use novacron_transport::{Address, Listener, privacy};
use protection::Protection;
use registry::Registry;
use shard::{Command, Listening, ShardConfig, ShardHandle};
use spread::Spread;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often the main thread looks at what has become due.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(why) = args.check() {
        eprintln!("novacron-gateway: {why}");
        return ExitCode::from(2);
    }
    log::start(&args);
    // Attaching to an interface takes what is given up next.
    let paths = match path::Prepared::new(&args) {
        Ok(paths) => paths,
        Err(why) => {
            tracing::error!("{why}; nothing was started, and no migration is affected");
            return ExitCode::FAILURE;
        }
    };
    if let Err(why) = keep_to_itself(&args) {
        tracing::error!("{why}; nothing was started, and no migration is affected");
        return ExitCode::FAILURE;
    }
    match serve(args, paths) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why}; nothing was started, and no migration is affected");
            ExitCode::FAILURE
        }
    }
}

/// Guest memory stays here: no core dump, no swap where the system allows that, no other program.
fn keep_to_itself(args: &Args) -> Result<(), String> {
    privacy::forbid_core_dumps().map_err(|error| format!("core dumps cannot be forbidden: {error}"))?;
    if let Err(error) = privacy::keep_out_of_swap() {
        tracing::warn!(
            %error,
            "memory of guests may reach swap: lift the limit on locked memory (LimitMEMLOCK=infinity), or use no swap"
        );
    }
    if args.unconfined {
        tracing::warn!("--unconfined: every system call and privilege is left to this process");
        return Ok(());
    }
    let all_the_same = |why| format!("{why}; --unconfined starts the gateway all the same");
    confine::give_up_privileges().map_err(all_the_same)?;
    confine::confine().map_err(all_the_same)
}

/// Random bytes of the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes from the system: {error}"))?;
    Ok(bytes)
}

fn serve(args: Args, paths: Option<path::Prepared>) -> Result<(), String> {
    let shutdown = Shutdown::new();
    shutdown_on_signals(shutdown.clone()).map_err(|error| format!("signals cannot be received: {error}"))?;
    let protection = Protection::start(args.identity.clone())?;
    let callers = args.callers.as_deref().map(control::read_callers).transpose()?;
    // Who comes is asked of the kernel, for each connection, where others than the owner may.
    let mode = if callers.is_some() { 0o666 } else { 0o600 };
    let server = Server::bind(&args.control, mode).map_err(|error| error.to_string())?;
    let (registry, ended) = Registry::new(args.session_limits());
    let registry = Arc::new(registry);
    records::start(args.records.clone(), ended)?;

    let gateway = match protection.trust() {
        Some(trust) => gateway_named(&trust.own().0.to_string()),
        None => random()?,
    };
    let identity = Identity { gateway, instance: random()? };
    let count = args.shards();
    let machine = Topology::here();
    let cpus = args.placement(&machine)?;
    let (handles, received): (Vec<_>, Vec<_>) = (0..count).map(|_| ShardHandle::new()).unzip();
    // Each shard takes its own mailboxes out; `run_shards` wants one function for all.
    let received = Arc::new(Mutex::new(received.into_iter().map(Some).collect::<Vec<_>>()));
    let modes = Arc::new(path::Modes::new(args.mode.forced()));
    let pairs = paths.as_ref().map_or_else(|| Arc::new(path::Pairs::off()), path::Prepared::pairs);
    let config = ShardConfig {
        registry: Arc::clone(&registry),
        identity,
        trust: protection.trust(),
        refusals: protection.refusals(),
        pool_bytes: POOL_BYTES / count.max(1),
        promised_bytes: PROMISED_BYTES / count.max(1),
        told: args.told(),
        modes: Arc::clone(&modes),
        pairs: Arc::clone(&pairs),
        delta_bytes: args.delta_budget << 20,
        delta_memory: MemoryBudget::new(args.delta_memory << 20),
        content_memory: MemoryBudget::new(args.content_memory << 20),
        content_keep: args.content_keep,
        shards: handles.clone(),
        cpus: cpus.clone(),
        spread: Arc::new(Spread::here(&cpus)),
    };
    for said in config.spread.said() {
        tracing::info!("{said}");
    }
    let (bound, listening) = sync_channel(1);
    let listen = args.listen.clone();
    let peers = handles.clone();
    let runtime = RuntimeConfig { shards: count, cpus: cpus.clone(), ..RuntimeConfig::default() };
    let running = run_shards(&runtime, move |shard| {
        let mailboxes = received.lock().ok().and_then(|mut all| all[shard.index].take());
        let (config, listen, bound, peers) = (config.clone(), listen.clone(), bound.clone(), peers.clone());
        async move {
            let Some(mailboxes) = mailboxes else { return };
            if shard.index == 0 {
                let (registry, trust) = (Arc::clone(&config.registry), config.trust.clone());
                let refusals = Arc::clone(&config.refusals);
                let pairs = Arc::clone(&config.pairs);
                let listening = Listening { identity, registry, shards: peers, trust, refusals, pairs };
                listen_for_peers(Rc::new(listening), &listen, &bound).await;
            }
            shard::run(shard.index, config, mailboxes).await;
        }
    })
    .map_err(|error| error.to_string())?;
    let listen = listening.recv().map_err(|_| "the first shard did not start".to_owned())??;

    let started_at = Timestamp::now();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        control = %args.control.display(),
        listen = %listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        shards = count,
        cpus = %placed(&cpus, &machine),
        encryption = protection.described(),
        "gateway ready"
    );
    let paths = paths.map_or_else(
        || Ok(path::Paths::none()),
        |paths| paths.start(&registry, &modes, &handles, &shutdown),
    )?;
    let ((least, most), congestion) = args.streams();
    let calls = Calls {
        registry: Arc::clone(&registry),
        paths,
        shards: handles.clone(),
        protection: Arc::clone(&protection),
        callers,
        listen,
        streams: StreamBounds {
            least: least as u32,
            most: most as u32,
            congestion: congestion.unwrap_or("system").to_owned(),
        },
        started_at,
        started: Instant::now(),
    };
    let calls = Arc::new(calls);
    let control_path = args.control.clone();
    let serving = Arc::clone(&calls);
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || server.run(&serving))
        .map_err(|error| format!("no thread for the control socket: {error}"))?;

    while !shutdown.is_requested() {
        std::thread::sleep(HOUSEKEEPING);
        protection.look(&handles);
        for session in registry.overdue() {
            let message = "the peer gateway did not open the session in time; no byte arrived".to_owned();
            registry.end_expected(session, Reason { code: "timeout".to_owned(), message });
        }
    }
    drain(&calls, &shutdown, args.drain_timeout);
    for handle in &handles {
        // A shard that is gone needs no command to end.
        let _ = handle.send(Command::End);
    }
    let _ = std::fs::remove_file(control_path);
    running.join().map_err(|error| error.to_string())?;
    tracing::info!("gateway stopped");
    Ok(())
}

/// Where the shards run, for people.
fn placed(cpus: &[usize], machine: &Topology) -> String {
    if cpus.is_empty() {
        return "wherever the kernel puts them".to_owned();
    }
    let one = |cpu: &usize| match machine.node_of(*cpu) {
        Some(node) => format!("{cpu} (node {node})"),
        None => cpu.to_string(),
    };
    cpus.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// Drains; a second signal ends the wait.
fn drain(calls: &Calls, shutdown: &Shutdown, timeout: Duration) {
    let hurry = || shutdown.requests() > 1;
    calls.drain(timeout, hurry);
    let held = calls.registry.held();
    if held == 0 || hurry() {
        return;
    }
    // Ending closes the sockets, and a source that sees its own close runs the guest again: a second one, if the
    // destination has started.
    tracing::warn!(
        held,
        "the gateway stays, because sources are held whose guest may run at the destination: settle where it runs, \
         then `session.release`; a second signal ends the gateway all the same"
    );
    while calls.registry.held() > 0 && !hurry() {
        std::thread::sleep(HOUSEKEEPING);
    }
}

type Bound = SyncSender<Result<Vec<Endpoint>, String>>;

/// Listens for peers on every address, and says where that is.
async fn listen_for_peers(listening: Rc<Listening>, endpoints: &[Endpoint], bound: &Bound) {
    let mut actual = Vec::with_capacity(endpoints.len());
    let mut listeners = Vec::with_capacity(endpoints.len());
    for endpoint in endpoints {
        let address: Result<Address, String> = endpoint
            .to_string()
            .parse()
            .map_err(|error: novacron_transport::net::AddressError| error.to_string());
        let listener = match address {
            Ok(address) => Listener::bind(&address).await.map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match listener {
            Ok(listener) => {
                actual.push(listener.address().to_string().parse().unwrap_or_else(|_| endpoint.clone()));
                listeners.push(listener);
            }
            Err(error) => {
                // The main thread may have given up already.
                let _ = bound.try_send(Err(format!("peer gateways cannot connect at {endpoint}: {error}")));
                return;
            }
        }
    }
    for listener in listeners {
        spawn(shard::listen(Rc::clone(&listening), listener)).detach();
    }
    let _ = bound.try_send(Ok(actual));
}
