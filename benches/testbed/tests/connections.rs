//! Every connection that real hypervisors open, carried through two gateways: multifd's channels, compressed and not,
//! postcopy and its silent preempt channel, both directions at once, and sources and destinations that do not agree.
//!
//! One guest is handed from hypervisor to hypervisor, since booting is what emulation does slowest.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use novacron_testbed::limits::{ANSWER_WAIT, EXIT_WAIT, MIGRATION_WAIT};
use novacron_testbed::migration::{Compression, Postcopy};
use novacron_testbed::session::{Session, unix, wait_ended, wait_record};
use novacron_testbed::{
    Gateway, GatewayOptions, Migration, MigrationReport, Qemu, QemuOptions, Scratch, novactl, opaque, stage,
    wait,
};
use qapi::qmp;
use serde_json::{Value, json};

/// Two gateways that both listen, so that either may be the source's.
fn gateways(scratch: &Scratch) -> Result<[Gateway; 2]> {
    let start = |name| Gateway::start(scratch, name, &GatewayOptions::default());
    Ok([start("gateway-a")?, start("gateway-b")?])
}

/// A migration's addresses and its session.
struct Way {
    session: Session,
    migration: Migration,
}

impl Way {
    /// Opens a session from the first gateway to the second, as an orchestrator does that holds the monitors itself.
    fn open(scratch: &Scratch, [from, to]: [&Gateway; 2], options: &Value) -> Result<Self> {
        let session = Session::new()?;
        let name = |end: &str| unix(&scratch.file(&format!("{end}-{}", &session.id[..6])));
        let (listen, connect) = (name("in"), name("out"));
        let outgoing = session.open(from, to, (&listen, &connect), options)?;
        let migration = Migration { incoming: connect, outgoing, ..Migration::direct_unix(scratch) };
        Ok(Self { session, migration })
    }

    /// Fails unless the session has finished at both gateways with `connections` connections and equal digests.
    fn must_have_carried(&self, gateways: [&Gateway; 2], connections: usize) -> Result<()> {
        for gateway in gateways {
            let record = wait_ended(gateway, &self.session.id, EXIT_WAIT)?;
            ensure!(record["state"] == "finished" && record["digest_equal"] == true, "{record}");
            let carried = record["connections"].as_array().map_or(0, Vec::len);
            ensure!(carried == 2 * connections, "{connections} connections were expected: {record}");
        }
        Ok(())
    }
}

fn quiet_end() -> Value {
    json!({"destination_may_start": false})
}

/// Where a guest runs, and everything it takes to move it on.
struct Guest<'a> {
    scratch: &'a Scratch,
    gateways: &'a [Gateway; 2],
    options: QemuOptions,
    here: Qemu,
    name: &'static str,
    hops: usize,
}

impl<'a> Guest<'a> {
    fn boot(
        scratch: &'a Scratch,
        gateways: &'a [Gateway; 2],
        name: &'static str,
        options: QemuOptions,
    ) -> Result<Self> {
        let here = Qemu::source(scratch, &format!("{name}-0"), &options)?;
        here.guest().wait_ready()?;
        Ok(Self { scratch, gateways, options, here, name, hops: 0 })
    }

    fn next(&mut self) -> Result<Qemu> {
        self.hops += 1;
        Qemu::destination(self.scratch, &format!("{}-{}", self.name, self.hops), &self.options)
    }

    /// From gateway a to gateway b and back in turns.
    fn towards(&self) -> [&'a Gateway; 2] {
        let [a, b] = self.gateways;
        if self.hops.is_multiple_of(2) { [a, b] } else { [b, a] }
    }

    /// Moves it on, and sees that it is intact and that its session carried `connections`.
    fn hop(
        &mut self,
        connections: usize,
        how: impl FnOnce(Migration) -> Migration,
    ) -> Result<MigrationReport> {
        let towards = self.towards();
        let way = Way::open(self.scratch, towards, &quiet_end())?;
        let mut there = self.next()?;
        let report = how(way.migration.clone()).run(&mut self.here, &mut there)?;
        there.guest().must_be_intact()?;
        self.here = there;
        way.must_have_carried(towards, connections)?;
        eprintln!("{} {}: {report}", self.name, self.hops);
        Ok(report)
    }

    /// Starts a migration that must fail, with the guest where it is.
    fn must_stay(
        &mut self,
        way: &Way,
        there: &mut Qemu,
        how: impl FnOnce(Migration) -> Migration,
    ) -> Result<()> {
        let failed = how(way.migration.clone()).run(&mut self.here, there);
        ensure!(failed.is_err(), "it was migrated all the same");
        there.process().kill();
        stage::must_run_intact(&mut self.here)
    }
}

#[test]
fn every_kind_of_migration_is_carried_connection_by_connection() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let gateways = gateways(scratch)?;
        let mut guest = Guest::boot(scratch, &gateways, "guest", QemuOptions::small())?;
        for channels in [2, 4, 8] {
            guest.hop(1 + usize::from(channels), |plain| Migration {
                multifd_channels: Some(channels),
                ..plain
            })?;
        }
        for compression in [Compression::Zlib(1), Compression::Zstd(1)] {
            let multifd_compression = Some(compression);
            guest.hop(3, |plain| Migration { multifd_channels: Some(2), multifd_compression, ..plain })?;
        }
        // Slow enough that the first pass is not all there is.
        let postcopy = |preempt| {
            move |plain| Migration { postcopy: Some(Postcopy { preempt }), max_bandwidth: 20 << 20, ..plain }
        };
        let report = guest.hop(1, postcopy(false))?;
        ensure!(report.postcopy, "it was done before it switched to postcopy: {report}");
        // The preempt channel opens late and says nothing before a page is asked for.
        let report = guest.hop(2, postcopy(true))?;
        ensure!(report.postcopy, "it was done before it switched to postcopy: {report}");
        guest.hop(1, |plain| Migration { switchover_ack: true, ..plain })?;
        for gateway in &gateways {
            let list = gateway.rpc()?.call("session.list", json!({}))?;
            let sessions = list["sessions"].as_array().context("no list")?;
            ensure!(sessions.iter().all(|record| record["refused_connections"] == 0), "{list}");
        }
        Ok(())
    })
}

/// Sources and destinations that do not agree on how many channels there are, and a session that takes fewer: the guest
/// stays where it is, whoever waits is named, and another session goes on.
///
/// Each case has a guest of its own. Where one channel fails while others are told to flush, QEMU 10.0.2 may wait for ever for a
/// channel whose thread has gone (`multifd_send_sync_main`): it says `failed`, its guest runs on, it keeps its sockets, and it
/// begins no other migration.
#[test]
fn channels_too_few_and_too_many_leave_the_guest_at_its_source() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let gateways = gateways(scratch)?;
        let boot = |name| Guest::boot(scratch, &gateways, name, QemuOptions::small());
        more_than_the_session_takes(boot("beyond-the-session")?)?;
        more_than_the_destination_expects(boot("beyond-the-destination")?)?;
        fewer_than_the_destination_expects(boot("too-few")?)?;
        // After all of it the same gateways carry another guest.
        boot("after")?.hop(5, multifd(4)).map(drop)
    })
}

fn multifd(channels: u8) -> impl Fn(Migration) -> Migration {
    move |plain| Migration { multifd_channels: Some(channels), ..plain }
}

/// The destination expects another number of channels than the source opens.
fn begin_with(guest: &mut Guest<'_>, way: &Way, there: &mut Qemu, [opened, expected]: [u8; 2]) -> Result<()> {
    let migration = multifd(opened)(way.migration.clone());
    migration.prepare(&mut guest.here, there)?;
    there.qmp().execute(qmp::migrate_set_parameters(qmp::MigrateSetParameters {
        multifd_channels: Some(expected),
        ..qmp::MigrateSetParameters::default()
    }))?;
    migration.listen(there)?;
    migration.dial(&mut guest.here).map(drop)
}

/// The socket of one too many closes at once.
fn more_than_the_session_takes(mut guest: Guest<'_>) -> Result<()> {
    let [a, b] = guest.towards();
    let options = json!({"destination_may_start": false, "connections_max": 3});
    let way = Way::open(guest.scratch, [a, b], &options)?;
    let mut there = guest.next()?;
    guest.must_stay(&way, &mut there, multifd(4))?;
    guest.here.process().kill();
    let record = wait_ended(a, &way.session.id, EXIT_WAIT)?;
    ensure!(record["refused_connections"].as_u64() >= Some(1), "{record}");
    Ok(())
}

/// It breaks off.
fn more_than_the_destination_expects(mut guest: Guest<'_>) -> Result<()> {
    let [a, b] = guest.towards();
    let way = Way::open(guest.scratch, [a, b], &quiet_end())?;
    let mut there = guest.next()?;
    begin_with(&mut guest, &way, &mut there, [4, 2])?;
    wait_ended(a, &way.session.id, EXIT_WAIT)?;
    wait_failed(&mut guest.here)?;
    there.process().kill();
    stage::must_run_intact(&mut guest.here)
}

/// It waits for ever. The session does not, and says for what.
fn fewer_than_the_destination_expects(mut guest: Guest<'_>) -> Result<()> {
    const IDLE: Duration = Duration::from_secs(4);
    let [a, b] = guest.towards();
    let options = json!({"destination_may_start": false, "idle_timeout_ms": IDLE.as_millis() as u64});
    let way = Way::open(guest.scratch, [a, b], &options)?;
    let mut there = guest.next()?;
    begin_with(&mut guest, &way, &mut there, [2, 4])?;
    opaque::must_carry(guest.scratch, [a, b])?;
    let record = wait_ended(a, &way.session.id, IDLE + EXIT_WAIT)?;
    ensure!(record["reason"]["code"] == "timeout", "{record}");
    let said = record["reason"]["message"].as_str().unwrap_or_default();
    ensure!(said.contains("no byte has moved"), "{record}");
    eprintln!("{said}");
    wait_failed(&mut guest.here)?;
    there.process().kill();
    stage::must_run_intact(&mut guest.here)
}

/// Waits until the source has given up.
fn wait_failed(source: &mut Qemu) -> Result<()> {
    let failed = [qmp::MigrationStatus::failed, qmp::MigrationStatus::cancelled];
    wait_status(source, "the end of a migration that cannot work", &failed)
}

/// Two guests, one with its memory in two blocks, pass each other between the same two gateways.
#[test]
fn both_directions_between_the_same_gateways_at_once() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let gateways = gateways(scratch)?;
        let [a, b] = &gateways;
        let mut two_blocks = QemuOptions::small();
        // QEMU 10.0.2 under emulation loses pages that are dirtied while memory of two blocks moves, from one QEMU straight to
        // another as well: what this test is about is that both blocks arrive.
        two_blocks.guest.rate_mb = 0;
        two_blocks.extra = ["ram0", "ram1"]
            .iter()
            .flat_map(|id| {
                let half = two_blocks.memory_mib / 2;
                [
                    "-object".into(),
                    format!("memory-backend-ram,id={id},size={half}M"),
                    "-numa".into(),
                    format!("node,memdev={id}"),
                ]
            })
            .collect();
        let (mut there, mut back) = thread::scope(|scope| {
            let there = scope.spawn(|| Guest::boot(scratch, &gateways, "there", two_blocks));
            let back = Guest::boot(scratch, &gateways, "back", QemuOptions::small())?;
            Ok::<_, anyhow::Error>((there.join().map_err(|_| anyhow::anyhow!("a thread failed"))??, back))
        })?;
        let ways = [Way::open(scratch, [a, b], &quiet_end())?, Way::open(scratch, [b, a], &quiet_end())?];
        let mut far = [there.next()?, back.next()?];
        thread::scope(|scope| {
            let [one, other] = &mut far;
            let multifd = Migration { multifd_channels: Some(2), ..ways[0].migration.clone() };
            let moving = scope.spawn(move || multifd.run(&mut there.here, one));
            let report = ways[1].migration.run(&mut back.here, other)?;
            eprintln!("back: {report}");
            eprintln!("there: {}", moving.join().map_err(|_| anyhow::anyhow!("a thread failed"))??);
            Ok::<_, anyhow::Error>(())
        })?;
        for qemu in &far {
            qemu.guest().must_be_intact()?;
        }
        ways[0].must_have_carried([a, b], 3)?;
        ways[1].must_have_carried([b, a], 1)
    })
}

/// Sixteen guests at once, as when a host is emptied. One boots and is kept as a file; the others begin from there, since
/// sixteen that boot at once would measure the emulator.
#[test]
fn sixteen_small_guests_move_at_once() -> Result<()> {
    const GUESTS: usize = 16;
    Scratch::with_logs(|scratch| {
        // A gateway's processors are not those that guests run on: here sixteen emulated ones would starve it.
        let prefix = ["nice", "-n", "-10"].map(String::from).to_vec();
        let apart = GatewayOptions { prefix, ..GatewayOptions::default() };
        let start = |name| Gateway::start(scratch, name, &apart);
        let gateways = [start("gateway-a")?, start("gateway-b")?];
        let towards = [&gateways[0], &gateways[1]];
        let mut options = QemuOptions::small();
        // Two processors emulate all of them: each does little, and does it all the time.
        options.guest.rate_mb = 1;
        options.guest.beat = Duration::from_millis(50);
        let kept = scratch.file("kept");
        let mut first = Qemu::source(scratch, "first", &options)?;
        first.guest().wait_ready()?;
        let uri = Some(format!("exec:cat > {}", kept.display()));
        first.qmp().execute(qmp::migrate { uri, channels: None, detach: None, resume: None })?;
        wait_status(&mut first, "the first guest to be kept", &[qmp::MigrationStatus::completed])?;
        first.quit()?;

        let mut guests = Vec::new();
        for number in 0..GUESTS {
            let mut here = Qemu::destination(scratch, &format!("here-{number}"), &options)?;
            let uri = Some(format!("exec:cat {}", kept.display()));
            here.qmp().execute(qmp::migrate_incoming { uri, channels: None, exit_on_error: None })?;
            wait_status(&mut here, "a guest to be there again", &[qmp::MigrationStatus::completed])?;
            here.cont()?;
            let there = Qemu::destination(scratch, &format!("there-{number}"), &options)?;
            guests.push((here, there));
        }
        // A session waits for its hypervisor: none is opened before all guests are there, and on a busy machine the last of them
        // may take a while to be told.
        let patient = json!({"destination_may_start": false, "accept_timeout_ms": 120_000});
        let mut moves = Vec::new();
        for (here, there) in guests {
            moves.push((here, there, Way::open(scratch, towards, &patient)?));
        }
        let reports = thread::scope(|scope| {
            let running: Vec<_> = moves
                .iter_mut()
                .map(|(here, there, way)| scope.spawn(move || way.migration.run(here, there)))
                .collect();
            let ended =
                running.into_iter().map(|one| one.join().map_err(|_| anyhow::anyhow!("a thread failed"))?);
            ended.collect::<Result<Vec<_>>>()
        })?;
        for (report, (_, there, way)) in reports.iter().zip(&moves) {
            eprintln!("{report}");
            there.guest().must_be_intact()?;
            way.must_have_carried(towards, 1)?;
        }
        Ok(())
    })
}

/// Waits until a hypervisor's migration stands there.
fn wait_status(qemu: &mut Qemu, what: &str, wanted: &[qmp::MigrationStatus]) -> Result<()> {
    wait::until(what, EXIT_WAIT, || {
        let status = qemu.qmp().execute(qmp::query_migrate {})?.status;
        Ok(status.is_some_and(|status| wanted.contains(&status)).then_some(()))
    })
}

/// Says lines to a hypervisor's monitor, as a person does.
fn say(qemu: &Qemu, lines: &[Value]) -> Result<()> {
    let mut monitor = UnixStream::connect(qemu.qmp_path()).context("the monitor's socket")?;
    monitor.set_read_timeout(Some(ANSWER_WAIT))?;
    let mut answers = BufReader::new(monitor.try_clone()?).lines();
    let negotiate = json!({"execute": "qmp_capabilities"});
    for line in std::iter::once(&negotiate).chain(lines) {
        writeln!(monitor, "{line}")?;
        loop {
            let answer: Value = serde_json::from_str(&answers.next().context("the monitor has closed")??)?;
            ensure!(answer.get("error").is_none(), "{line}: {answer}");
            if answer.get("return").is_some() {
                break;
            }
        }
    }
    Ok(())
}

/// `novactl session open`, and then nothing but the lines that it prints.
#[test]
fn a_session_opened_without_a_monitor_moves_a_guest_and_its_disk() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let gateways = gateways(scratch)?;
        let [a, b] = &gateways;
        let mut guest = Guest::boot(scratch, &gateways, "guest", QemuOptions::small())?;
        let there = guest.next()?;
        let path = |name: &str| scratch.file(name).display().to_string();
        let token = path("token");
        let (status, said) = novactl::run(scratch, "token", &["session", "token", &token])?;
        ensure!(status.success(), "{said}");
        let uid = format!("uid:{}", rustix::process::getuid().as_raw());
        let (listen, connect) = (format!("unix:{}", path("vm-in")), format!("unix:{}", path("vm-out")));
        let (disk, far_disk) = (format!("unix:{}", path("disk-in")), format!("unix:{}", path("disk-out")));
        let far_disk_server = std::os::unix::net::UnixListener::bind(path("disk-out"))?;
        let (gateway_a, gateway_b) = (a.control().display().to_string(), b.control().display().to_string());
        let common = [
            "session",
            "open",
            "--json",
            "--session",
            "00c0ffee00c0ffee",
            "--token-file",
            &token,
            "--destination-stopped",
            "--idle-timeout",
            "60",
        ];
        let open = |name: &str, own: &[&str]| -> Result<Value> {
            let (status, said) = novactl::run(scratch, name, &[&common[..], own].concat())?;
            ensure!(status.success(), "{said}");
            serde_json::from_str(&said).with_context(|| said)
        };
        // Each site's operator with the own control socket only; both on this machine, so their paths differ.
        let destination = open(
            "open-b",
            &["--destination-gateway", &gateway_b, "--connect", &connect, "--connect-disk", &far_disk],
        )?;
        let source = open(
            "open-a",
            &[
                "--source-gateway",
                &gateway_a,
                "--peer",
                b.peer()?,
                "--listen",
                &listen,
                "--disk",
                &disk,
                "--from",
                &uid,
            ],
        )?;
        let lines = |said: &Value, which: &str| said[which].as_array().cloned().unwrap_or_default();
        // The disk's server is this test's, so the line that starts one is not said.
        let incoming: Vec<_> = lines(&destination, "destination_qmp").split_off(1);
        say(&there, &incoming)?;

        // The disk comes first, and waits, as a mirror does for its migration.
        let mut client = UnixStream::connect(path("disk-in"))?;
        let (mut server, _) = far_disk_server.accept()?;
        server.write_all(b"NBDMAGIC")?;
        let mut greeting = [0; 8];
        client.set_read_timeout(Some(ANSWER_WAIT))?;
        std::io::Read::read_exact(&mut client, &mut greeting)?;
        ensure!(&greeting == b"NBDMAGIC");

        say(&guest.here, &lines(&source, "source_qmp"))?;
        wait::until("the source's word that it has completed", MIGRATION_WAIT, || {
            let status = guest.here.qmp().execute(qmp::query_migrate {})?.status;
            ensure!(!matches!(status, Some(qmp::MigrationStatus::failed)), "the migration failed");
            Ok(matches!(status, Some(qmp::MigrationStatus::completed)).then_some(()))
        })?;
        say(&there, &[json!({"execute": "cont"})])?;
        there.guest().must_be_intact()?;
        let record = wait_record(a, "00c0ffee00c0ffee", EXIT_WAIT, |record| {
            record["connections"]
                .as_array()
                .is_some_and(|all| all.iter().filter(|one| one["ended"] == true).count() == 2)
        })?;
        ensure!(record["state"] == "running", "the disk is still there: {record}");
        let labels: Vec<_> =
            record["connections"].as_array().into_iter().flatten().map(|one| &one["label"]).collect();
        ensure!(labels == ["disk", "migration", "disk", "migration"], "{record}");
        drop((client, server));
        for gateway in [a, b] {
            let record = wait_ended(gateway, "00c0ffee00c0ffee", EXIT_WAIT)?;
            ensure!(record["state"] == "finished" && record["digest_equal"] == true, "{record}");
        }
        let close = ["session", "close", "00c0ffee00c0ffee", "--gateway", &gateway_a];
        let (status, said) = novactl::run(scratch, "close", &close)?;
        ensure!(status.success() && said.contains("ended already"), "{said}");
        Ok(())
    })
}

/// Who is not named is turned away, and neither harms the session nor fills the log.
#[test]
fn only_the_named_source_is_let_in() -> Result<()> {
    const CALLS: u64 = 2000;
    Scratch::with_logs(|scratch| {
        let [mut a, b] = gateways(scratch)?;
        let session = Session::new()?;
        let far = std::net::TcpListener::bind("127.0.0.1:0")?;
        let connect = format!("tcp:{}", far.local_addr()?);
        b.rpc()?.call("session.open", session.at_destination(&connect, &quiet_end()))?;
        let mut parameters = session.at_source(b.peer()?, "tcp:127.0.0.1:0", &quiet_end());
        parameters["from"] = json!(["127.0.0.7"]);
        let opened = a.rpc()?.call("session.open", parameters)?;
        let listen = opened["listen"]
            .as_str()
            .and_then(|at| at.strip_prefix("tcp:"))
            .context("no address")?
            .to_owned();
        for _ in 0..CALLS {
            drop(std::net::TcpStream::connect(&listen)?);
        }
        wait_record(&a, &session.id, EXIT_WAIT, |record| record["refused_connections"] == CALLS)?;
        let log = std::fs::read_to_string(a.process().log())?;
        let lines = log.matches("a connection was refused").count();
        ensure!((1..20).contains(&lines) && log.contains("only 127.0.0.7 may connect"), "{lines} lines");

        // The named one comes from its own address.
        let socket =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)?;
        rustix::net::bind(&socket, &std::net::SocketAddr::from(([127, 0, 0, 7], 0)))?;
        rustix::net::connect(&socket, &listen.parse::<std::net::SocketAddr>()?)?;
        let mut source = std::net::TcpStream::from(socket);
        source.write_all(b"it is me")?;
        let (mut taken, _) = far.accept()?;
        taken.set_read_timeout(Some(ANSWER_WAIT))?;
        let mut bytes = [0; 8];
        std::io::Read::read_exact(&mut taken, &mut bytes)?;
        ensure!(&bytes == b"it is me");
        drop((source, taken));
        ensure!(wait_ended(&a, &session.id, EXIT_WAIT)?["state"] == "finished");
        // On a unix socket the kernel says whose process it is.
        let (session, mine) = (Session::new()?, rustix::process::getuid().as_raw());
        let [listen, connect] = ["in", "out"].map(|name| scratch.file(&format!("user-{name}.sock")));
        let far = std::os::unix::net::UnixListener::bind(&connect)?;
        b.rpc()?.call("session.open", session.at_destination(&unix(&connect), &quiet_end()))?;
        let mut parameters = session.at_source(b.peer()?, &unix(&listen), &quiet_end());
        parameters["from"] = json!([format!("uid:{}", mine + 1)]);
        a.rpc()?.call("session.open", parameters)?;
        let mut refused = UnixStream::connect(&listen)?;
        refused.set_read_timeout(Some(ANSWER_WAIT))?;
        ensure!(
            std::io::Read::read(&mut refused, &mut bytes).map_or(true, |count| count == 0),
            "it was let in"
        );
        wait_record(&a, &session.id, EXIT_WAIT, |record| record["refused_connections"] == 1)?;
        far.set_nonblocking(true)?;
        ensure!(far.accept().is_err(), "the destination heard of a connection that was refused");
        Ok(())
    })
}
