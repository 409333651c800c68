//! To the collector: OTLP's protobuf by HTTP POST, over TLS unless it is on this host.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use novacron_control_api::configuration::Monitoring;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as Exporter};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::limits::{TRACE_ANSWER_BYTES_MAX, TRACES_EXPORT};
use crate::metrics::Metrics;

/// How the last export went.
#[derive(Debug)]
pub(crate) struct ExportHealth {
    endpoint: String,
    failing: Mutex<Option<String>>,
    /// What the network said last: the library's own words for it are few.
    cause: Mutex<Option<String>>,
}

impl ExportHealth {
    /// Where to, and why the last batch did not get there.
    pub(crate) fn told(&self) -> (&str, Option<String>) {
        (&self.endpoint, self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    fn note(&self, result: &OTelSdkResult) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => {
                if failing.take().is_some() {
                    tracing::info!(endpoint = self.endpoint, "the collector takes traces again");
                }
            }
            Err(error) => {
                let cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner).take();
                let error = cause.unwrap_or_else(|| error.to_string());
                // Once: what repeats tells nothing new, and the metrics count it.
                if failing.is_none() {
                    tracing::warn!(
                        endpoint = self.endpoint,
                        "traces are not exported and are dropped until the collector answers: {error}"
                    );
                }
                *failing = Some(error);
            }
        }
    }
}

/// The library's exporter, with its results counted and told.
#[derive(Debug)]
pub(super) struct Counted {
    inner: SpanExporter,
    told: Told,
}

struct Told {
    health: Arc<ExportHealth>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

impl Exporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let result = self.inner.export(batch).await;
        self.told.metrics.spans_exported(count, result.is_ok());
        self.told.health.note(&result);
        result
    }

    fn shutdown_with_timeout(&self, within: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(within)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// What exports to the configured collector. It is called on a thread of the SDK; its connections are this runtime's.
///
/// # Errors
/// When the endpoint is none, or the authorities cannot be read.
pub(super) fn exporter(
    configured: &Monitoring,
    metrics: Arc<Metrics>,
) -> Result<(Counted, Arc<ExportHealth>), String> {
    let base = configured.otlp_endpoint.as_str();
    let uri: Uri = base.parse().map_err(|error| format!("monitoring.otlp_endpoint: {base}: {error}"))?;
    // As OTLP has it: the address of a collector gets the signal's own path, a whole address stays.
    let endpoint = match uri.path() {
        "" | "/" => format!("{}/v1/traces", base.trim_end_matches('/')),
        _ => base.to_owned(),
    };
    let tls = match uri.scheme_str() {
        Some("https") => Some(connector(configured)?),
        _ => None,
    };
    let (failing, cause) = (Mutex::default(), Mutex::default());
    let health = Arc::new(ExportHealth { endpoint: endpoint.clone(), failing, cause });
    let client = Client { tls: tls.map(Tls), runtime: Handle::current(), health: Arc::clone(&health) };
    let inner = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        // What a collector misses while it is away is lost anyway, and the queue must not wait for it.
        .with_retry_policy(RetryPolicy::disabled())
        .with_endpoint(&endpoint)
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(TRACES_EXPORT)
        .build()
        .map_err(|error| format!("traces cannot be exported to {endpoint}: {error}"))?;
    Ok((Counted { inner, told: Told { health: Arc::clone(&health), metrics } }, health))
}

fn connector(configured: &Monitoring) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    match &configured.otlp_authorities {
        Some(file) => {
            let told = |why: String| {
                format!("monitoring.otlp_authorities: {} cannot be used: {why}", file.display())
            };
            let found = CertificateDer::pem_file_iter(file).map_err(|error| told(error.to_string()))?;
            for authority in found {
                let authority = authority.map_err(|error| told(error.to_string()))?;
                roots.add(authority).map_err(|error| told(error.to_string()))?;
            }
            if roots.is_empty() {
                return Err(told("it holds no certificate".to_owned()));
            }
        }
        None => {
            // Those that cannot be read are the system's to mend; what is missing then shows in the handshake.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// One connection a batch: there is one a second, and none that could have gone stale.
#[derive(Clone, Debug)]
struct Client {
    tls: Option<Tls>,
    runtime: Handle,
    health: Arc<ExportHealth>,
}

#[derive(Clone)]
struct Tls(TlsConnector);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl HttpClient for Client {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let client = self.clone();
        let sent = self.runtime.spawn(async move {
            let health = Arc::clone(&client.health);
            let late = || HttpError::from(format!("no answer within {} s", TRACES_EXPORT.as_secs()));
            let answer = timeout(TRACES_EXPORT, client.send(request)).await.unwrap_or_else(|_| Err(late()));
            let cause = answer.as_ref().err().map(ToString::to_string);
            *health.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause;
            answer
        });
        Box::pin(async move { sent.await.unwrap_or_else(|error| Err(error.into())) })
    }
}

impl Client {
    async fn send(self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let uri = request.uri();
        let host = uri.host().ok_or("the collector's address names no host")?.to_owned();
        // An address of IPv6 stands in brackets in a URL, and without them everywhere else.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        match self.tls {
            None => over(stream, request).await,
            Some(Tls(tls)) => {
                let name = ServerName::try_from(host)?;
                over(tls.connect(name, stream).await?, request).await
            }
        }
    }
}

async fn over<S>(stream: S, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().map(|name| name.as_str()).unwrap_or_default();
    parts.headers.insert(HOST, HeaderValue::from_str(authority)?);
    parts.uri = parts.uri.path_and_query().map_or("/", |path| path.as_str()).parse()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let answered = async {
        let response = sender.send_request(Request::from_parts(parts, Full::new(body))).await?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, TRACE_ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok(Response::from_parts(parts, body))
    };
    let answered = answered.await;
    driving.abort();
    answered
}
