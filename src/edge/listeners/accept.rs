//! The accept loop of a TCP listener, whatever is spoken on its connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::server::ShutdownWatch;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::admit::admit;
use super::clock;
use super::connection::Connections;
use super::drain::Drain;
use super::evict::{Idlers, Queue};
use super::settings::Settings;
use crate::telemetry::metrics::METRICS;

/// What an accept loop does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// It accepts.
    Accept,
    /// New connections wait in the kernel's queue, or go to another process that has the socket.
    Pause,
    /// What waits in the queue is served first: it is reset with the socket.
    Stop,
    /// What waits in the queue is left to another process, which has the socket too.
    Leave,
}

/// Waits for a place. When there is none and somebody waits for it, the connection that has been idle for longest ends.
async fn place(
    places: &Arc<Semaphore>,
    socket: &TcpListener,
    full: &mut Option<Queue>,
    idlers: &mut Idlers,
) -> Option<OwnedSemaphorePermit> {
    if let Ok(place) = Arc::clone(places).try_acquire_owned() {
        return Some(place);
    }
    if full.is_none() {
        *full = Queue::of(socket).ok();
    }
    if let Some(queue) = full {
        tokio::select! {
            biased;
            place = Arc::clone(places).acquire_owned() => return place.ok(),
            () = queue.somebody() => {}
        }
    }
    loop {
        idlers.end_one();
        if let Ok(place) = tokio::time::timeout(clock::TICK, Arc::clone(places).acquire_owned()).await {
            return place.ok();
        }
    }
}

/// Accepts until it is stopped. Over the limit of connections idle ones make room; where none is, further ones wait in
/// the kernel's queue.
pub async fn accept(
    socket: Arc<TcpListener>,
    settings: Arc<Settings>,
    drain: Arc<Drain>,
    closing: ShutdownWatch,
    mut work: watch::Receiver<Work>,
) {
    let places = Arc::clone(&settings.places);
    let connections = Arc::clone(settings.service.connections());
    let watcher = tokio::spawn(watch_deadlines(Arc::clone(&connections), closing, Arc::clone(&drain)));
    let mut failing = false;
    let (mut full, mut idlers) = (None, Idlers::new(Arc::clone(&connections)));
    let last = loop {
        let now = *work.borrow_and_update();
        match now {
            Work::Stop | Work::Leave => break now,
            Work::Pause => {
                if work.changed().await.is_err() {
                    break now;
                }
                continue;
            }
            Work::Accept => {}
        }
        let next = async {
            let place = place(&places, &socket, &mut full, &mut idlers).await;
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
                    log::info!("listener {}: accepts again", settings.home.name.load());
                }
                admit(stream, peer, place, &settings, &drain);
            }
            Err(error) => {
                // Out of file descriptors, most likely: the connection stays in the queue meanwhile. One
                // line for as long as it lasts.
                if !std::mem::replace(&mut failing, true) {
                    log::error!("listener {}: cannot accept: {error}", settings.home.name.load());
                }
                METRICS.refused.with_label_values(&["accept"]).inc();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    // It has the socket too.
    drop(full);
    if last != Work::Leave {
        empty(socket, |stream, peer| admit(stream, peer, None, &settings, &drain)).await;
    }
    settings.stopping.lock().take();
    // The socket closes with this; connections that are still open keep their deadlines until they are gone.
    tokio::spawn(async move {
        while connections.lock().iter().any(|c| c.strong_count() > 0) {
            tokio::time::sleep(clock::TICK).await;
        }
        watcher.abort();
    });
}

/// Serves whoever has got into the queue, and closes the socket right behind the last: who comes in between is reset.
async fn empty(mut socket: Arc<TcpListener>, serve: impl Fn(TcpStream, SocketAddr)) {
    let only = loop {
        while let Some((stream, peer)) = queued(&socket) {
            serve(stream, peer);
        }
        match Arc::try_unwrap(socket) {
            Ok(only) => break only,
            // Whoever ends the listener lets go of it in a moment.
            Err(shared) => socket = shared,
        }
        tokio::task::yield_now().await;
    };
    // What takes time about closing is done before.
    if let Ok(only) = only.into_std() {
        while let Some((stream, peer)) = queued(&only) {
            serve(stream, peer);
        }
    }
}

/// A connection that is in the queue already, whether the runtime has heard of it or not.
fn queued<'s>(socket: impl Into<socket2::SockRef<'s>>) -> Option<(TcpStream, SocketAddr)> {
    let (stream, peer) = socket.into().accept().ok()?;
    stream.set_nonblocking(true).ok()?;
    Some((TcpStream::from_std(stream.into()).ok()?, peer.as_socket()?))
}

/// How long a connection without a request may stay once the process drains: a request that is on its
/// way when the drain begins is still answered, with `Connection: close`.
const LINGER: Duration = Duration::from_millis(500);

/// Sets the clock and wakes whoever is late.
async fn watch_deadlines(connections: Connections, shutdown: ShutdownWatch, drain: Arc<Drain>) {
    let mut draining_since = None;
    loop {
        tokio::time::sleep(clock::TICK).await;
        let now = clock::tick();
        // A drain may be called off.
        draining_since = if *shutdown.borrow() { draining_since.or(Some(now)) } else { None };
        let linger = LINGER.as_millis() as u64;
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
