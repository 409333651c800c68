//! Traces of real control processes. The collector is a receiver of this test that stands in for one: it takes OTLP over
//! HTTP and decodes its protobuf with the protocol's own types.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use novacron_testbed::control::Control;
use novacron_testbed::limits::{ANSWER_WAIT, EXIT_WAIT};
use novacron_testbed::session::unix;
use novacron_testbed::{Scratch, Session, port, wait};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// How soon a span must have come, on a machine that builds beside this test.
const EXPORTED: Duration = Duration::from_secs(20);
/// Longest export that is read, bytes.
const EXPORT_BYTES_MAX: usize = 4 << 20;

/// A span and the node that made it.
type Spans = Arc<Mutex<Vec<(String, Span)>>>;

/// Takes what is exported.
struct Receiver {
    spans: Spans,
}

impl Receiver {
    fn at(port: u16) -> Result<Self> {
        Self::over(port, None)
    }

    /// The same over TLS.
    fn over(port: u16, tls: Option<Arc<ServerConfig>>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let spans = Spans::default();
        let all = Arc::clone(&spans);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (all, tls) = (Arc::clone(&all), tls.clone());
                thread::spawn(move || {
                    if let Err(error) = answer(stream, tls, &all) {
                        println!("receiver: {error:#}");
                    }
                });
            }
        });
        Ok(Self { spans })
    }

    fn all(&self) -> Vec<(String, Span)> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The first span of this name that a node made, once it has come.
    fn wait(&self, node: &str, name: &str) -> Result<Span> {
        wait::until(&format!("the span {name} of {node}"), EXPORTED, || {
            let found = self.all().into_iter().find(|(of, span)| of == node && span.name == name);
            Ok(found.map(|(_, span)| span))
        })
    }
}

fn answer(stream: TcpStream, tls: Option<Arc<ServerConfig>>, all: &Spans) -> Result<()> {
    stream.set_read_timeout(Some(ANSWER_WAIT))?;
    match tls {
        None => take(stream, all),
        Some(tls) => take(StreamOwned::new(ServerConnection::new(tls)?, stream), all),
    }
}

fn take(mut stream: impl Read + Write, all: &Spans) -> Result<()> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 16 << 10]);
    let (head, mut body) = loop {
        if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break (String::from_utf8(bytes[..at].to_vec())?, bytes[at + 4..].to_vec());
        }
        let count = stream.read(&mut chunk)?;
        ensure!(count > 0 && bytes.len() < EXPORT_BYTES_MAX, "no whole head");
        bytes.extend_from_slice(&chunk[..count]);
    };
    let head = head.to_ascii_lowercase();
    ensure!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    ensure!(head.contains("content-type: application/x-protobuf") && head.contains("\r\nhost: "), "{head}");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).context("no length")?;
    let length: usize = length.trim().parse()?;
    ensure!(length <= EXPORT_BYTES_MAX, "{length} bytes");
    while body.len() < length {
        let count = stream.read(&mut chunk)?;
        ensure!(count > 0, "no whole body");
        body.extend_from_slice(&chunk[..count]);
    }
    let request = ExportTraceServiceRequest::decode(body.as_slice())?;
    for resource in request.resource_spans {
        let of = resource.resource.context("no resource")?;
        let text = |key: &str| {
            let found = of.attributes.iter().find(|one| one.key == key).and_then(|one| one.value.clone());
            match found.and_then(|value| value.value) {
                Some(Any::StringValue(text)) => text,
                _ => String::new(),
            }
        };
        ensure!(text("service.name") == "novacron-control" && !text("service.version").is_empty(), "{of:?}");
        let node = text("service.instance.id");
        let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        all.lock().unwrap_or_else(PoisonError::into_inner).extend(spans.map(|span| (node.clone(), span)));
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n")?;
    stream.flush()?;
    Ok(())
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|one| one.key == key).and_then(|one| one.value.clone());
    match found.and_then(|value| value.value) {
        Some(Any::StringValue(text)) => text,
        Some(Any::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn part(control: &Control) -> Result<Value> {
    let health = control.rpc()?.call("node.health", json!({}))?;
    let mut all = health["components"].as_array().into_iter().flatten();
    let monitoring = all.find(|one| one["name"] == "monitoring").context("no monitoring")?;
    Ok(monitoring["parts"][0].clone())
}

#[test]
fn a_collector_gets_the_start_the_calls_and_one_trace_of_both_sides() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let at = port::free()?;
        let receiver = Receiver::at(at)?;
        let endpoint = format!("\"http://127.0.0.1:{at}\"");
        let more = [("monitoring.enable_tracing", "true"), ("monitoring.otlp_endpoint", endpoint.as_str())];
        let (a, b) = (Control::start(scratch, "a", &more)?, Control::start(scratch, "b", &more)?);

        let root = receiver.wait("a", "bootstrap")?;
        ensure!(root.parent_span_id.is_empty(), "{root:?}");
        let core = receiver.wait("a", "phase core")?;
        let database = receiver.wait("a", "component database")?;
        ensure!(core.parent_span_id == root.span_id && database.parent_span_id == core.span_id);
        ensure!(core.trace_id == root.trace_id && database.trace_id == root.trace_id);
        for (inner, outer) in [(&database, &core), (&core, &root)] {
            // Clocks of two threads are read a moment apart.
            let slack = 50_000_000;
            ensure!(inner.start_time_unix_nano + slack >= outer.start_time_unix_nano, "{inner:?} {outer:?}");
            ensure!(inner.end_time_unix_nano <= outer.end_time_unix_nano + slack, "{inner:?} {outer:?}");
        }
        for name in ["phase pre-init", "phase services", "phase post-init", "component api"] {
            receiver.wait("a", name)?;
        }

        // A session, opened at both sides, whose hypervisors are sockets of the test.
        let session = Session::new()?;
        let (from, to) = (scratch.file("from"), scratch.file("to"));
        let listener = UnixListener::bind(&to)?;
        b.rpc()?.call("session.open", session.at_destination(&unix(&to), &json!({})))?;
        a.rpc()?.call("session.open", session.at_source(b.peer(), &unix(&from), &json!({})))?;
        let mut source = UnixStream::connect(&from)?;
        source.write_all(&[9; 100_000])?;
        let (mut destination, _) = listener.accept()?;
        destination.set_read_timeout(Some(ANSWER_WAIT))?;
        destination.read_exact(&mut [0; 100_000])?;
        source.shutdown(std::net::Shutdown::Write)?;
        ensure!(destination.read(&mut [0])? == 0);
        drop(destination);
        ensure!(source.read(&mut [0])? == 0);

        let migration = receiver.wait("a", "migration")?;
        let arrival = receiver.wait("b", "migration at the destination")?;
        ensure!(migration.parent_span_id.is_empty() && arrival.parent_span_id == migration.span_id);
        ensure!(attribute(&migration, "novacron.session") == session.id, "{migration:?}");
        ensure!(attribute(&migration, "novacron.outcome") == "delivered", "{migration:?}");
        ensure!(attribute(&migration, "novacron.guest_bytes") == "100000", "{migration:?}");
        for node in ["a", "b"] {
            let open = receiver.wait(node, "session.open")?;
            ensure!(
                open.trace_id == migration.trace_id && open.parent_span_id == migration.span_id,
                "{open:?}"
            );
            ensure!(
                attribute(&open, "rpc.system") == "jsonrpc"
                    && attribute(&open, "novacron.caller").starts_with("uid:")
            );
        }
        ensure!(arrival.trace_id == migration.trace_id && migration.trace_id != root.trace_id);
        let told = json!({"session": session.id, "outcome": "completed", "downtime_ms": 41});
        a.rpc()?.call("migration.report", told)?;
        let reported = receiver.wait("a", "migration.report")?;
        ensure!(attribute(&reported, "novacron.downtime_ms") == "41", "{reported:?}");
        ensure!(reported.trace_id == migration.trace_id);

        // What is refused is traced as an error, and no secret with it.
        let wrong = json!({"token": "0123456789abcdef0123456789abcdef-secret"});
        ensure!(a.rpc()?.call("caller.identify", wrong).is_err());
        let refused = receiver.wait("a", "caller.identify")?;
        ensure!(refused.status.as_ref().is_some_and(|status| status.code == 2), "{refused:?}");
        ensure!(attribute(&refused, "error.type") == "forbidden", "{refused:?}");
        ensure!(!format!("{:?}", receiver.all()).contains("-secret"), "a token was exported");
        ensure!(part(&a)?["state"] == "up", "{}", part(&a)?);
        Ok(())
    })
}

#[test]
fn a_collector_that_is_away_costs_a_warning_and_gets_what_comes_after_its_return() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let at = port::free()?;
        let endpoint = format!("\"http://127.0.0.1:{at}\"");
        let more = [("monitoring.enable_tracing", "true"), ("monitoring.otlp_endpoint", endpoint.as_str())];
        let mut a = Control::start(scratch, "a", &more)?;
        wait::until("the loss to be told", ANSWER_WAIT, || {
            Ok((part(&a)?["state"] == "degraded").then_some(()))
        })?;
        ensure!(a.health("/ready")?.0 == 200, "a node without its collector is ready");
        // Several batches fail; it is said once.
        for _ in 0..4 {
            a.rpc()?.call("config.reload", json!({}))?;
            thread::sleep(Duration::from_millis(600));
        }
        let log = std::fs::read_to_string(a.process().log())?;
        ensure!(log.matches("traces are not exported").count() == 1, "{log}");
        let metrics = a.metrics()?;
        ensure!(metrics.contains(r#"novacron_trace_spans_total{outcome="failed"}"#), "{metrics}");
        ensure!(!metrics.contains(r#"novacron_trace_spans_total{outcome="exported"}"#), "{metrics}");
        let receiver = Receiver::at(at)?;
        a.rpc()?.call("config.reload", json!({}))?;
        receiver.wait("a", "config.reload")?;
        wait::until("the return to be told", ANSWER_WAIT, || Ok((part(&a)?["state"] == "up").then_some(())))
    })
}

/// An authority, as PEM, and TLS of a collector on this host that it vouches for.
fn collector() -> Result<(String, Arc<ServerConfig>)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &authority)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok((authority.pem(), Arc::new(config)))
}

#[test]
fn traces_go_to_a_collector_that_its_authority_vouches_for_and_to_no_other() -> Result<()> {
    Scratch::with_logs(|scratch| {
        let (authority, tls) = collector()?;
        let (stranger, _) = collector()?;
        let at = port::free()?;
        let receiver = Receiver::over(at, Some(tls))?;
        let endpoint = format!("\"https://localhost:{at}\"");
        for (name, pem, taken) in [("known", authority, true), ("strange", stranger, false)] {
            let file = scratch.file(&format!("{name}.pem"));
            std::fs::write(&file, pem)?;
            let file = json!(file).to_string();
            let more = [
                ("monitoring.enable_tracing", "true"),
                ("monitoring.otlp_endpoint", endpoint.as_str()),
                ("monitoring.otlp_authorities", file.as_str()),
            ];
            let control = Control::start(scratch, name, &more)?;
            if taken {
                receiver.wait(name, "bootstrap")?;
                continue;
            }
            let told = wait::until("the refusal to be told", ANSWER_WAIT, || {
                Ok(Some(part(&control)?).filter(|part| part["state"] == "degraded"))
            })?;
            let detail = told["detail"].to_string();
            ensure!(detail.contains("takes none") && detail.contains("certificate"), "{told}");
            ensure!(receiver.all().iter().all(|(node, _)| node != name), "a stranger got traces");
        }
        Ok(())
    })
}

#[test]
fn a_collector_that_hangs_holds_nobody_up() -> Result<()> {
    Scratch::with_logs(|scratch| {
        // Connections are taken by the kernel, and nobody ever answers.
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let endpoint = format!("\"http://{}\"", listener.local_addr()?);
        let more = [("monitoring.enable_tracing", "true"), ("monitoring.otlp_endpoint", endpoint.as_str())];
        let mut a = Control::start(scratch, "a", &more)?;
        let before = a.process().usage()?.rss_bytes;
        let (began, mut rpc) = (Instant::now(), a.rpc()?);
        let mut calls = 0;
        while calls < 4000 {
            // Each is a span, and none of them leaves: more than the queue holds.
            rpc.call("session.cancel", json!({"session": 5})).err().context("that is no session")?;
            calls += 1;
        }
        println!("{calls} calls in {:?}", began.elapsed());
        let made = a.metrics()?;
        ensure!(made.contains(r#"novacron_trace_spans_total{outcome="made"} 4"#), "{made}");
        ensure!(a.health("/ready")?.0 == 200);
        let grown = a.process().usage()?.rss_bytes.saturating_sub(before);
        ensure!(grown < 24 << 20, "{grown} bytes wait for a collector that hangs");
        let began = Instant::now();
        a.process().terminate()?;
        ensure!(began.elapsed() < EXIT_WAIT, "the stop took {:?}", began.elapsed());
        Ok(())
    })
}
