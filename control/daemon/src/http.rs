//! `/live`, `/ready`, `/health` and `/metrics` over HTTP/1.1. They only look, and only GET and HEAD are taken.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::limits::{HTTP_CONNECTION, HTTP_CONNECTIONS_MAX, HTTP_HEAD};
use crate::metrics::Metrics;
use crate::server::Status;

const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What a port serves.
pub(crate) struct Pages {
    pub(crate) status: Arc<Status>,
    /// `None`: no metrics here.
    pub(crate) metrics: Option<Arc<Metrics>>,
    /// Whether health is told here.
    pub(crate) health: bool,
}

fn page(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    // What was true a moment ago is no health.
    headers.insert(CACHE_CONTROL, hyper::header::HeaderValue::from_static("no-store"));
    response
}

fn as_json<T: Serialize>(status: StatusCode, value: &T) -> Response<Full<Bytes>> {
    page(status, JSON, serde_json::to_string(value).unwrap_or_default() + "\n")
}

fn works(yes: bool) -> StatusCode {
    if yes { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

impl Pages {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response =
                as_json(StatusCode::METHOD_NOT_ALLOWED, &json!({"error": "only GET is taken"}));
            response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match (request.uri().path(), self.health, &self.metrics) {
            ("/live", true, _) => as_json(StatusCode::OK, &json!({"live": true})),
            ("/ready", true, _) => {
                let health = self.status.health().await;
                as_json(works(health.ready), &json!({"ready": health.ready, "state": health.state}))
            }
            ("/health", true, _) => {
                let health = self.status.health().await;
                as_json(works(health.ready), &health)
            }
            ("/metrics", _, Some(metrics)) => page(StatusCode::OK, OPEN_METRICS, metrics.text()),
            _ => as_json(StatusCode::NOT_FOUND, &json!({"error": "there is no such page"})),
        }
    }
}

/// Listens.
///
/// # Errors
/// When the address is taken or not this host's.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("{address} cannot be used: {error}"))
}

/// Serves until this is dropped, and its connections with it.
pub(crate) async fn serve(listener: TcpListener, pages: Arc<Pages>) {
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    let mut serving = JoinSet::new();
    loop {
        while serving.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "an HTTP client cannot be accepted");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // Beyond the bound a connection is closed: probes try again.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let pages = Arc::clone(&pages);
        serving.spawn(async move {
            let _ = timeout(HTTP_CONNECTION, connection(stream, &pages)).await;
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, pages: &Pages) {
    let service = service_fn(|request| async move { Ok::<_, Infallible>(pages.answer(request).await) });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HTTP_HEAD).max_buf_size(16 << 10);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "an HTTP connection ended");
    }
}
