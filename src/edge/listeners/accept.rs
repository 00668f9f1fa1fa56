//! The accept loop of a TCP listener, for every protocol.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::accept_state::AcceptState;
use super::admit::admit;
use super::clock;
use super::connection::Connections;
use super::drain::Drain;
use super::evict::{AcceptQueue, IdleConnections};
use super::settings::Settings;
use crate::telemetry::metrics::METRICS;

/// Waits for a place. When none is free and a client waits, the connection that has been idle longest is ended.
async fn acquire_place(
    places: &Arc<Semaphore>,
    socket: &TcpListener,
    full: &mut Option<AcceptQueue>,
    idle: &mut IdleConnections,
) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Some(place);
    }
    if full.is_none() {
        *full = AcceptQueue::of(socket).ok();
    }
    if let Some(queue) = full {
        tokio::select! {
            biased;
            place = Arc::clone(places).acquire_owned() => return place.ok(),
            () = queue.wait_for_client() => {}
        }
    }
    loop {
        idle.end_one();
        if let Ok(place) = tokio::time::timeout(clock::TICK, Arc::clone(places).acquire_owned()).await {
            return place.ok();
        }
    }
}

/// Accepts until it is stopped. At the limit of connections idle ones are ended for new ones; where none is idle, new
/// ones wait in the kernel's queue.
pub async fn accept(
    socket: Arc<TcpListener>,
    settings: Arc<Settings>,
    drain: Arc<Drain>,
    closing: ShutdownWatch,
    mut work: watch::Receiver<AcceptState>,
) {
    let places = Arc::clone(&settings.places);
    let connections = Arc::clone(settings.service.connections());
    let watcher = tokio::spawn(watch_deadlines(Arc::clone(&connections), closing, Arc::clone(&drain)));
    let mut failing = false;
    let (mut full, mut idle) = (None, IdleConnections::new(Arc::clone(&connections)));
    let last = loop {
        let now = *work.borrow_and_update();
        match now {
            AcceptState::Stop | AcceptState::Leave => break now,
            AcceptState::Pause => {
                if work.changed().await.is_err() {
                    break now;
                }
                continue;
            }
            AcceptState::Accept => {}
        }
        let next = async {
            let place = acquire_place(&places, &socket, &mut full, &mut idle).await;
            (socket.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            biased;
            changed = work.changed() => match changed {
                Ok(()) => continue,
                Err(_) => break now,
            },
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                if std::mem::take(&mut failing) {
                    log::info!("listener {}: accepts again", settings.listener_state.name.load());
                }
                admit(stream, peer, place, &settings, &drain);
            }
            Err(error) => {
                // Out of file descriptors, most likely: the connection stays in the queue meanwhile. One log line is
                // written for as long as it lasts.
                if !std::mem::replace(&mut failing, true) {
                    log::error!("listener {}: cannot accept: {error}", settings.listener_state.name.load());
                }
                METRICS.refused.with_label_values(&["accept"]).inc();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    // Another process has the socket too.
    drop(full);
    if last != AcceptState::Leave {
        serve_queue(socket, |stream, peer| admit(stream, peer, None, &settings, &drain)).await;
    }
    settings.stopping.lock().take();
    // The socket closes with this; connections that are still open keep their deadlines to their end.
    tokio::spawn(async move {
        while connections.lock().iter().any(|c| c.strong_count() > 0) {
            tokio::time::sleep(clock::TICK).await;
        }
        watcher.abort();
    });
}

/// Serves the clients in the queue, and closes the socket right behind the last: one that comes in between is reset.
async fn serve_queue(mut socket: Arc<TcpListener>, serve: impl Fn(TcpStream, SocketAddr)) {
    let only = loop {
        while let Some((stream, peer)) = accept_queued(&socket) {
            serve(stream, peer);
        }
        match Arc::try_unwrap(socket) {
            Ok(only) => break only,
            // The code that ends the listener drops its socket in a moment.
            Err(shared) => socket = shared,
        }
        tokio::task::yield_now().await;
    };
    // Whatever takes time in closing is done before.
    if let Ok(only) = only.into_std() {
        while let Some((stream, peer)) = accept_queued(&only) {
            serve(stream, peer);
        }
    }
}

/// Returns a connection that is in the queue already, whether the runtime has been notified of it or not.
fn accept_queued<'s>(socket: impl Into<socket2::SockRef<'s>>) -> Option<(TcpStream, SocketAddr)> {
    let (stream, peer) = socket.into().accept().ok()?;
    stream.set_nonblocking(true).ok()?;
    Some((TcpStream::from_std(stream.into()).ok()?, peer.as_socket()?))
}

/// How long a connection without a request may stay open once the process drains: a request that is on its way when
/// the drain begins still gets its response, with `Connection: close`.
const DRAIN_LINGER: Duration = Duration::from_millis(500);

/// Sets the clock and wakes every connection whose deadline has passed.
async fn watch_deadlines(connections: Connections, shutdown: ShutdownWatch, drain: Arc<Drain>) {
    let mut draining_since = None;
    loop {
        tokio::time::sleep(clock::TICK).await;
        let now = clock::tick();
        // A drain may be cancelled.
        draining_since = if *shutdown.borrow() { draining_since.or(Some(now)) } else { None };
        let linger = DRAIN_LINGER.as_millis() as u64;
        let linger_is_over = draining_since.is_some_and(|since: u64| now - since > linger);
        let all_is_over = drain.is_over();
        connections.lock().retain(|connection| {
            let Some(connection) = connection.upgrade() else { return false };
            connection.check(now, linger_is_over, linger);
            if all_is_over {
                connection.cut();
            }
            true
        });
    }
}
