//! TCP sessions that another process goes on with: one that this process hands over, or has taken over.
//!
//! A session can move while none of its bytes is in this process, in memory or in a pipe: then its two sockets are all
//! there is of it. The successor confirms each one, and what it does not take goes on here.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::batch::{MAX_BATCH_DESCRIPTORS, StreamBatch};
use super::prelude::SessionClient;
use super::pump::{Pump, PumpCounts, PumpState};
use super::record::Session;
use super::session::{JoinedSession, limits};
use super::side::SideStream;
use crate::edge::listeners::{Admitted, ListenerState, TcpService};
use crate::rules::protocols::ClientHelloFacts;
use crate::upstreams::Visit;

/// The kind of these streams in a hand-over, and the version of their form.
const KIND: (&str, u32) = ("sessions", 1);

/// How long it is waited for a further session before those that are ready are sent.
const READY_INTERVAL: Duration = Duration::from_millis(10);

/// A session as another process needs it.
#[derive(Debug, Serialize, Deserialize)]
struct SavedSession {
    /// The name of its listener.
    listener: String,
    client: SocketAddr,
    rule: String,
    upstream: String,
    target: SocketAddr,
    tries: u32,
    connected: Option<Duration>,
    /// How long it has lived.
    age: Duration,
    /// The bytes that the target has taken, and those that the client has.
    carried: [u64; 2],
    /// How far it is.
    pump: PumpState,
    server_name: Option<String>,
    alpn: Vec<Vec<u8>>,
    postgres: bool,
    id: Option<String>,
}

/// A session that is held: nothing of it is in this process but its state.
pub struct OfferedSession(Box<JoinedSession>);

/// What a session needs of the listener that it belongs to.
pub struct Adopted {
    /// The listener.
    pub listener_state: Arc<ListenerState>,
    /// Its settings.
    pub service: Arc<TcpService>,
    /// The count of the connection, to its end.
    pub admitted: Admitted,
}

/// The sessions that this process hands over.
#[derive(Debug)]
pub struct MovingSessions {
    wanted: watch::Sender<bool>,
    /// Held from the decision to offer a session until it is offered, so that none is offered when nobody takes any.
    offer: Mutex<Sender<OfferedSession>>,
    offered: Mutex<Receiver<OfferedSession>>,
}

impl Default for MovingSessions {
    fn default() -> Self {
        let (offer, offered) = channel();
        Self { wanted: watch::Sender::new(false), offer: Mutex::new(offer), offered: Mutex::new(offered) }
    }
}

impl MovingSessions {
    /// Resolves when sessions are to move, or when they are not.
    pub async fn reach(&self, are_wanted: bool) {
        // The sender lives as long as this.
        let _ = self.wanted.subscribe().wait_for(|wanted| *wanted == are_wanted).await;
    }

    /// Offers a session to the successor. It goes on here if sessions are no longer to move.
    pub fn offer(self: &Arc<Self>, session: Box<JoinedSession>) {
        let offered = OfferedSession(session);
        let offer = self.offer.lock();
        let returned =
            if *self.wanted.borrow() { offer.send(offered).err().map(|error| error.0) } else { Some(offered) };
        drop(offer);
        if let Some(returned) = returned {
            returned.go_on_here(Arc::clone(self));
        }
    }

    /// Lets sessions stay, those that are offered and not taken too. It has to be called within the runtime of the
    /// workers.
    pub fn stop(self: &Arc<Self>) {
        let offer = self.offer.lock();
        self.wanted.send_replace(false);
        drop(offer);
        let offered: Vec<OfferedSession> = self.offered.lock().try_iter().collect();
        resolve(offered, |_| true, self);
    }

    /// Asks every session to move, and returns those that are ready, after a moment; none if there are none.
    pub fn take_ready(&self) -> Vec<OfferedSession> {
        self.wanted.send_replace(true);
        let offered = self.offered.lock();
        let mut ready: Vec<OfferedSession> = offered.recv_timeout(READY_INTERVAL).ok().into_iter().collect();
        if !ready.is_empty() {
            ready.extend(offered.try_iter().take(MAX_BATCH_DESCRIPTORS / 2 - 1));
        }
        ready
    }
}

/// Returns the batch of these sessions.
///
/// # Errors
/// Fails when no descriptor is left.
pub fn batch_of(sessions: &[OfferedSession]) -> std::io::Result<StreamBatch> {
    let mut descriptors = Vec::with_capacity(2 * sessions.len());
    for OfferedSession(joined) in sessions {
        // Only such sessions are offered.
        let sockets = joined.pump.sockets().ok_or(std::io::ErrorKind::Unsupported)?;
        for socket in sockets {
            descriptors.push(socket.as_fd().try_clone_to_owned()?);
        }
    }
    let saved: Vec<SavedSession> = sessions.iter().map(OfferedSession::save).collect();
    Ok(StreamBatch::new(KIND, &saved, descriptors)?)
}

/// Ends the sessions of a batch here, which another process goes on with; those at the places `refused` go on here. It
/// has to be called within the runtime of the workers.
pub fn resolve(sessions: Vec<OfferedSession>, is_refused: impl Fn(usize) -> bool, moving: &Arc<MovingSessions>) {
    for (place, offered) in sessions.into_iter().enumerate() {
        if is_refused(place) {
            offered.go_on_here(Arc::clone(moving));
        } else {
            offered.leave();
        }
    }
}

impl OfferedSession {
    fn save(&self) -> SavedSession {
        let (session, about) = (&self.0.session, &self.0.session.about);
        let visit = session.visit.as_ref();
        SavedSession {
            listener: session.listener_state.name.load().to_string(),
            client: about.address,
            rule: session.rule.as_ref().map(|rule| rule.name.clone()).unwrap_or_default(),
            upstream: visit.map(|visit| visit.upstream().name.clone()).unwrap_or_default(),
            target: visit.and_then(Visit::address).unwrap_or(about.address),
            tries: visit.map_or(0, Visit::tries),
            connected: session.connected,
            age: session.age(),
            carried: [session.counts.received(), session.counts.sent()],
            pump: self.0.pump.state(),
            server_name: about.requested.server_name.clone(),
            alpn: about.requested.alpn.clone(),
            postgres: about.postgres,
            id: about.id().map(std::borrow::Cow::into_owned),
        }
    }

    /// Ends the session here: it goes on elsewhere, where it will be counted and logged.
    fn leave(mut self) {
        self.0.session.visit.iter_mut().for_each(Visit::end);
    }

    fn go_on_here(mut self, moving: Arc<MovingSessions>) {
        self.0.pump.release();
        tokio::spawn(async move { self.0.go_on(&moving).await });
    }
}

/// Goes on with the sessions of a batch, as far as `adopt` has a listener for them. Returns the places of the others.
/// It has to be called within the runtime of the workers.
pub fn take_over(
    batch: StreamBatch,
    adopt: &dyn Fn(&str, SocketAddr) -> Option<Adopted>,
    moving: &Arc<MovingSessions>,
) -> Vec<usize> {
    let saved: Vec<SavedSession> = batch.read(KIND.0, KIND.1).unwrap_or_default();
    let (count, mut descriptors) = (saved.len().max(batch.descriptors.len() / 2), batch.descriptors.into_iter());
    let mut taken = vec![false; count];
    for (place, saved) in saved.into_iter().enumerate() {
        let (Some(client), Some(target)) = (descriptors.next(), descriptors.next()) else { break };
        let Some(joined) = resume(saved, [client, target], adopt) else { continue };
        let moving = Arc::clone(moving);
        tokio::spawn(async move { Box::new(joined).go_on(&moving).await });
        taken[place] = true;
    }
    taken.iter().enumerate().filter(|(_, taken)| !**taken).map(|(place, _)| place).collect()
}

fn resume(
    saved: SavedSession,
    [client, target]: [OwnedFd; 2],
    adopt: &dyn Fn(&str, SocketAddr) -> Option<Adopted>,
) -> Option<JoinedSession> {
    let Adopted { listener_state, service, admitted } = adopt(&saved.listener, saved.client)?;
    let streams = service.streams();
    let place = streams.rules.iter().position(|rule| rule.name == saved.rule)?;
    let rule = streams.rules.get(place)?;
    let upstream = rule.upstream(&saved.upstream)?;
    let metrics = streams.metrics(place, &listener_state.name.load()).cloned();
    let about = SessionClient {
        address: saved.client,
        tls: None,
        proxy: None,
        requested: ClientHelloFacts { server_name: saved.server_name, alpn: saved.alpn },
        postgres: saved.postgres,
        id: saved.id.and_then(|id| HeaderValue::try_from(id).ok()),
    };
    let mut session = Session::new(listener_state, about, Some(Arc::clone(rule)), metrics);
    session.begun = Instant::now().checked_sub(saved.age).unwrap_or(session.begun);
    session.counts = Arc::new(PumpCounts::of(saved.carried));
    session.connected = saved.connected;
    // A target that is not known any more is none of the upstream's: its connection goes on, and is not counted there.
    session.visit = Visit::resume(Arc::clone(upstream), saved.target, saved.tries);
    let [client, target] =
        [TcpStream::from_std(client.into()).ok()?, TcpStream::from_std(target.into()).ok()?].map(SideStream::from);
    let pump = Pump::new(client, target, limits(rule), Arc::clone(&session.counts)).resumed(saved.pump);
    let pump = pump.counted(session.metrics.clone());
    drop(streams);
    Some(JoinedSession { session, pump, service, admitted, is_known: true, can_move: true })
}
