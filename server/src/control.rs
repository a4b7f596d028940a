//! The control thread: signals, HTTP and the end of the process. Workers never do any of this.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use swiftlet_net::clock::Clock;
use swiftlet_net::network::Changes;
use tokio::signal::unix::{SignalKind, signal};

use crate::lifecycle::Phase;
use crate::telemetry::http::{self, Observed};
use crate::telemetry::sightings::{self, Gateway};
use crate::upstream::Servers;

/// How often it is looked whether clients can be told apart, and which upstreams are down.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The least time between two changes of the network that are acted upon: where containers come and go,
/// there is always one.
const NETWORK_REST: Duration = Duration::from_secs(1);

/// Serves HTTP and waits for SIGTERM or SIGINT; then goes unready at once, lets the workers serve
/// `lameduck` more, and tells them to stop. A second signal cuts the lameduck time short.
pub(crate) fn run(
    observed: &Arc<Observed>,
    http: Option<TcpListener>,
    lameduck: Duration,
    gateway: Gateway,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot build the control thread's runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("cannot handle SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot handle SIGINT")?;
        if let Some(listener) = http {
            tokio::spawn(serve_http(listener, Arc::clone(observed)));
        }
        tokio::spawn(watch_network(Changes::listen(), observed.servers.clone()));
        tokio::spawn(tell_of_upstreams(observed.servers.clone(), observed.clock.clone()));
        if let Some(address) = gateway.address() {
            tokio::spawn(warn_of_indistinct_clients(address, Arc::clone(observed)));
        }
        observed.lifecycle.enter(Phase::Ready);
        tracing::info!("ready");

        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        observed.lifecycle.enter(Phase::Lameduck);
        tracing::info!("{name}: serving {} ms more, then stopping", lameduck.as_millis());
        tokio::select! {
            () = tokio::time::sleep(lameduck) => {}
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // Before the workers stop: what comes from here on waits in their sockets, which they look into at
        // the very last.
        observed.filters.detach();
        observed.lifecycle.enter(Phase::Stopping);
        observed.post.ring_all();
        Ok(())
    })
}

/// Says once that clients cannot be told apart, when that shows.
async fn warn_of_indistinct_clients(gateway: IpAddr, observed: Arc<Observed>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    while !sightings::are_indistinct(&observed.board) {
        looks.tick().await;
    }
    tracing::warn!(
        "every client so far seems to be {gateway}, the container's gateway: the engine hides their \
         addresses, so SWIFTLET_ALLOW cannot tell them apart; use host networking"
    );
}

/// Says when an upstream is down and when it is up again: one line each at most every look, so that one
/// that flaps does not fill the log.
async fn tell_of_upstreams(servers: Servers, clock: Clock) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut down: Vec<bool> = Vec::new();
    loop {
        looks.tick().await;
        let shown = servers.shown(clock.now().boot_ms);
        down.resize(shown.len(), false);
        for (was_down, upstream) in down.iter_mut().zip(&shown) {
            let is_down = upstream.state != "closed";
            if is_down == std::mem::replace(was_down, is_down) {
                continue;
            }
            let address = &upstream.address;
            let why = upstream.last_error.as_ref().map_or("", |last| &*last.class);
            match is_down {
                true => tracing::warn!(
                    "upstream {address} is down ({why}): it is probed until it answers"
                ),
                false => tracing::info!("upstream {address} answers again"),
            }
        }
    }
}

/// Ends the back-offs of all upstreams when the machine's addresses or routes change: what failed before
/// may be reached now.
async fn watch_network(changes: io::Result<Changes>, servers: Servers) {
    let watch = async {
        let mut changes = changes?;
        loop {
            changes.next().await?;
            servers.forget_failures();
            tracing::debug!("addresses or routes changed: upstreams are tried anew");
            tokio::time::sleep(NETWORK_REST).await;
        }
    };
    let ended: io::Result<Infallible> = watch.await;
    let Err(error) = ended;
    tracing::warn!(
        "changes of addresses and routes are not seen ({error}): after one, upstreams that failed \
         are tried again within 5 s"
    );
}

async fn serve_http(listener: TcpListener, observed: Arc<Observed>) {
    if let Err(error) = http::serve(listener, observed).await {
        tracing::error!("HTTP stopped: {error}");
    }
}
