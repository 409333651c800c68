//! Traces for a collector that speaks OTLP (OpenTelemetry protocol 1.x, protobuf over HTTP): how the node started, what was
//! called, and every session.
//!
//! ```text
//! bootstrap, calls, recorder ── Traces ── queue, bounded ── export ── collector
//!                                           └ full: spans are dropped, and counted
//! ```
//!
//! A session's trace has a name that follows from the session's own, so that what both sites export of it meets in one
//! trace. Nobody waits for a collector: spans are made after the fact, and what the queue does not take is dropped.

mod export;
mod ids;

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use novacron_control_api::configuration::Monitoring;
use novacron_control_api::{Role, SessionId, SessionRecord, SessionState};
use opentelemetry::trace::{
    Span, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider, Span as SdkSpan,
};

pub(crate) use export::ExportHealth;

use crate::limits::{TRACED_LOOKS_PER_S, TRACES_BATCH_MAX, TRACES_LAST, TRACES_PAUSE, TRACES_QUEUED_MAX};
use crate::metrics::Metrics;
use ids::{Ids, derived, with_ids};

/// What is exported; nothing where tracing is off.
pub(crate) struct Traces(Option<On>);

struct On {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    metrics: Arc<Metrics>,
    health: Arc<ExportHealth>,
    /// When the present second of looks began, against `began`, and how many were traced in it.
    began: Instant,
    looks: AtomicU64,
    /// The start of the node, until it is over.
    start: Mutex<Option<SdkSpan>>,
}

/// A call, after it was carried out.
pub(crate) struct TracedCall<'a> {
    pub(crate) method: &'static str,
    /// Whether it may change something; of those that only look a few a second are traced.
    pub(crate) changes: bool,
    pub(crate) caller: &'a str,
    pub(crate) origin: &'static str,
    pub(crate) session: Option<SessionId>,
    /// Why it was not done: the error's stable name, and its message.
    pub(crate) error: Option<(&'a str, &'a str)>,
    pub(crate) more: Vec<KeyValue>,
}

/// Something that is under way: what belongs to it is traced below it.
pub(crate) struct Piece(Option<SdkSpan>);

/// Below what a span stands.
#[derive(Clone, Default)]
pub(crate) struct Parent(Option<SpanContext>);

impl Parent {
    fn context(&self) -> Context {
        match &self.0 {
            Some(of) => Context::new().with_remote_span_context(of.clone()),
            None => Context::new(),
        }
    }
}

impl Piece {
    /// As the parent of what belongs to it.
    pub(crate) fn parent(&self) -> Parent {
        Parent(self.0.as_ref().map(|span| span.span_context().clone()))
    }

    /// It is over; `fault`: and did not do what it should.
    pub(crate) fn end(self, fault: Option<&str>) {
        let Some(mut span) = self.0 else { return };
        if let Some(fault) = fault {
            span.set_status(Status::error(fault.to_owned()));
        }
        span.end();
    }
}

/// `key`, `value` of an attribute of ours.
pub(crate) fn of(key: &'static str, value: impl Into<opentelemetry::Value>) -> KeyValue {
    KeyValue::new(key, value)
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Traces {
    /// Nothing is traced.
    pub(crate) fn off() -> Self {
        Self(None)
    }

    /// Begins to trace, where the configuration says so. `started`: when this process did.
    ///
    /// # Errors
    /// When the collector's authorities cannot be read. A collector that is away is no error.
    pub(crate) fn begin(
        configured: &Monitoring,
        node_id: &str,
        metrics: &Arc<Metrics>,
        started: Instant,
    ) -> Result<Self, String> {
        if !configured.enable_tracing {
            return Ok(Self::off());
        }
        let (exporter, health) = export::exporter(configured, Arc::clone(metrics))?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(TRACES_QUEUED_MAX)
            .with_max_export_batch_size(TRACES_BATCH_MAX)
            .with_scheduled_delay(TRACES_PAUSE)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let resource = Resource::builder_empty()
            .with_service_name("novacron-control")
            .with_attributes([
                KeyValue::new("service.instance.id", node_id.to_owned()),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_id_generator(Ids::default())
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("novacron-control");
        let start = SpanBuilder::from_name("bootstrap").with_start_time(ago(started.elapsed()));
        let start = tracer.build_with_context(start, &Context::new());
        metrics.span_made();
        Ok(Self(Some(On {
            provider,
            tracer,
            metrics: Arc::clone(metrics),
            health,
            began: Instant::now(),
            looks: AtomicU64::new(0),
            start: Mutex::new(Some(start)),
        })))
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// How export goes; `None`: nothing is traced.
    pub(crate) fn health(&self) -> Option<&ExportHealth> {
        self.0.as_ref().map(|on| &*on.health)
    }

    /// The node's start, as the parent of its phases.
    pub(crate) fn start(&self) -> Parent {
        let Some(on) = &self.0 else { return Parent::default() };
        let start = on.start.lock().unwrap_or_else(PoisonError::into_inner);
        Parent(start.as_ref().map(|span| span.span_context().clone()))
    }

    /// The node is ready, or will not be.
    pub(crate) fn started(&self, fault: Option<&str>) {
        let Some(on) = &self.0 else { return };
        let start = on.start.lock().unwrap_or_else(PoisonError::into_inner).take();
        Piece(start).end(fault);
    }

    /// Something begins.
    pub(crate) fn piece(&self, name: impl Into<Cow<'static, str>>, below: &Parent) -> Piece {
        let Some(on) = &self.0 else { return Piece(None) };
        on.metrics.span_made();
        Piece(Some(on.tracer.build_with_context(SpanBuilder::from_name(name), &below.context())))
    }

    /// Something that is over, and took this long.
    pub(crate) fn past(
        &self,
        name: impl Into<Cow<'static, str>>,
        below: &Parent,
        took: Duration,
        more: Vec<KeyValue>,
        fault: Option<&str>,
    ) {
        let Some(on) = &self.0 else { return };
        // The wall clock may have been set meanwhile: what it says now, less what really passed.
        let span = SpanBuilder::from_name(name).with_start_time(ago(took)).with_attributes(more);
        on.metrics.span_made();
        Piece(Some(on.tracer.build_with_context(span, &below.context()))).end(fault);
    }

    /// A call that was answered.
    pub(crate) fn call(&self, call: TracedCall<'_>, took: Duration) {
        let Some(on) = &self.0 else { return };
        if !call.changes && !on.may_trace_look() {
            return;
        }
        let mut attributes = vec![
            of("rpc.system", "jsonrpc"),
            of("rpc.method", call.method),
            of("novacron.caller", call.caller.to_owned()),
            of("novacron.origin", call.origin),
        ];
        attributes.extend(call.session.map(|session| of("novacron.session", session.to_string())));
        attributes.extend(call.error.map(|(name, _)| of("error.type", name.to_owned())));
        attributes.extend(call.more);
        let span = SpanBuilder::from_name(call.method)
            .with_kind(SpanKind::Server)
            .with_start_time(ago(took))
            .with_attributes(attributes);
        let below = Parent(call.session.map(derived));
        on.metrics.span_made();
        let span = on.tracer.build_with_context(span, &below.context());
        Piece(Some(span)).end(call.error.map(|(_, message)| message));
    }

    /// A session that ended: at the source the root of the migration's trace, at the destination below it.
    pub(crate) fn session_ended(&self, record: &SessionRecord, outcome: &'static str) {
        let Some(on) = &self.0 else { return };
        let root = derived(record.session);
        let mut attributes = vec![
            of("novacron.session", record.session.to_string()),
            of("novacron.label", record.label.clone()),
            of("novacron.tenant", record.tenant.clone()),
            of("novacron.outcome", outcome),
            of("novacron.guest_bytes", whole(record.guest_bytes)),
            of("novacron.wire_bytes_sent", whole(record.wire_bytes_sent)),
            of("novacron.streams_ever", i64::from(record.streams.ever)),
            of("novacron.iterations", whole(record.iteration)),
        ];
        attributes.extend(record.digest_equal.map(|equal| of("novacron.digest_equal", equal)));
        attributes.extend(record.peer.as_ref().map(|peer| of("network.peer.address", peer.to_string())));
        attributes.extend(record.reason.as_ref().map(|reason| of("error.type", reason.code.clone())));
        let (name, below, ids) = match record.role {
            Role::Source => ("migration", Parent::default(), Some(root)),
            Role::Destination => ("migration at the destination", Parent(Some(root)), None),
        };
        // Its own clock's words: the session may be older than this process.
        let (from, to) = (wall(record.opened_at), record.ended_at.map_or_else(SystemTime::now, wall));
        let span = SpanBuilder::from_name(name).with_start_time(from).with_attributes(attributes);
        let mut span = with_ids(ids, || on.tracer.build_with_context(span, &below.context()));
        on.metrics.span_made();
        if record.state != SessionState::Finished {
            let why = record.reason.as_ref().map_or_else(String::new, |reason| reason.message.clone());
            span.set_status(Status::error(why));
        }
        span.end_with_timestamp(to.max(from));
    }

    /// Exports what waits, for a bounded time, and ends.
    pub(crate) fn end(&self) {
        let Some(on) = &self.0 else { return };
        self.started(Some("it was stopped before it was ready"));
        if let Err(error) = on.provider.shutdown_with_timeout(TRACES_LAST) {
            tracing::debug!(%error, "the last traces are not exported");
        }
    }
}

impl On {
    /// Status calls come by the thousand: as many are traced a second as tell how they are.
    fn may_trace_look(&self) -> bool {
        let second = self.began.elapsed().as_secs();
        let counted = self.looks.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |looks| {
            let (of, count) = (looks >> 16, looks & 0xffff);
            match of == second {
                true if count >= TRACED_LOOKS_PER_S => None,
                true => Some(looks + 1),
                false => Some(second << 16 | 1),
            }
        });
        counted.is_ok()
    }
}

/// The wall clock's time so long ago.
fn ago(took: Duration) -> SystemTime {
    SystemTime::now().checked_sub(took).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn wall(at: novacron_control_api::Timestamp) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(at.unix_ms())
}
