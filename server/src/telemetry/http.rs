//! The HTTP endpoint of the control thread: `/metrics`, `/health`, `/ready`, `/debug/upstreams`.
//!
//! `/health` says whether every worker still turns, `/ready` whether new clients should come here,
//! `/debug/upstreams` what is known of each upstream (JSON).

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use swiftlet_net::clock::Clock;
use tokio::sync::Semaphore;

use super::{Board, Counter};
use super::{metrics, query};
use crate::backend;
use crate::config;
use crate::filters::Filters;
use crate::lifecycle::{Lifecycle, Phase};
use crate::mailbox::Post;
use crate::pipeline::Service;
use crate::upstream::{Routes, Servers};

/// A worker that does not turn for this long after it was rung is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(1);

/// How often a worker that was rung is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Connections served at once.
const MAX_CONNECTIONS: usize = 64;

/// How long a client may take for its request, and for all.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// How long accepting rests after the kernel refused a connection.
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// What the endpoint shows.
pub struct Observed {
    /// The workers' counters.
    pub board: Board,
    /// The cache among others.
    pub service: Arc<Service>,
    /// Where questions go, and who of them forwards back.
    pub routes: Arc<Routes>,
    /// The phase of the process.
    pub lifecycle: Lifecycle,
    /// The upstreams.
    pub servers: Servers,
    /// The time, for how long ago things were.
    pub clock: Clock,
    /// The bells of the workers.
    pub post: Post,
    /// The backend that was asked for, and the one that serves.
    pub backends: (config::Backend, backend::Kind),
    /// What gives frames to the workers past their sockets.
    pub filters: Filters,
    /// The workers' sockets, for what the kernel dropped at them; by worker.
    pub sockets: Vec<Vec<socket2::Socket>>,
}

/// Serves until its runtime ends: one request a connection, so that nobody can sit on one.
pub async fn serve(listener: TcpListener, observed: Arc<Observed>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/", get(index))
        .route("/debug/query", get(query::show))
        .route("/metrics", get(show_metrics))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/debug/upstreams", get(upstreams))
        .with_state(observed);
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // More clients wait in the kernel's backlog.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return Ok(());
        };
        let Ok((stream, _)) = listener.accept().await else {
            // For lack of open files mostly, which others have to give up first.
            tokio::time::sleep(ACCEPT_REST).await;
            continue;
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .keep_alive(false)
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A client that fails has only itself to tell.
            let _ = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await;
            drop(place);
        });
    }
}

async fn index() -> &'static str {
    concat!(
        "swiftlet ",
        env!("CARGO_PKG_VERSION"),
        "\n\n/debug/query?name=example.com&type=A  what happens to a question, step by step\n",
        "/metrics  counters for Prometheus\n",
        "/health   200 while every worker turns\n",
        "/ready    200 while new clients should come here\n",
        "/debug/upstreams  what is known of each upstream, as JSON\n",
    )
}

async fn show_metrics(State(observed): State<Arc<Observed>>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match metrics::encode(&observed) {
        Ok(text) => Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], text)),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

async fn upstreams(State(observed): State<Arc<Observed>>) -> impl IntoResponse {
    let shown = observed.servers.shown(observed.clock.now().boot_ms);
    match serde_json::to_string_pretty(&shown) {
        Ok(text) => Ok(([(header::CONTENT_TYPE, "application/json")], text + "\n")),
        Err(_) => Err(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

async fn ready(State(observed): State<Arc<Observed>>) -> (StatusCode, &'static str) {
    match observed.lifecycle.phase() {
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Ready => (StatusCode::OK, "ready\n"),
        Phase::Lameduck | Phase::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

async fn health(State(observed): State<Arc<Observed>>) -> (StatusCode, String) {
    let turns = || -> Vec<u64> {
        observed.board.workers().iter().map(|counters| counters.get(Counter::Turns)).collect()
    };
    let before = turns();
    let stuck = || -> Vec<usize> {
        let now = turns();
        (0..before.len()).filter(|&worker| now[worker] == before[worker]).collect()
    };
    observed.post.ring_all();
    let all_turned = async {
        while !stuck().is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    match tokio::time::timeout(STUCK_AFTER, all_turned).await {
        Ok(()) => (StatusCode::OK, "healthy\n".into()),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, format!("workers {:?} are stuck\n", stuck())),
    }
}
