//! Flows that another process goes on with: those that this process hands over, or has taken over.
//!
//! The flows of a listener move together, while no process reads its socket. Here they are set aside: what comes from
//! their targets waits in their sockets, for the successor, or for this process should that fail.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use tokio::sync::mpsc;

use super::UdpServer;
use super::flow::{ClientFlow, Leg, Origin, terms_of};
use super::sockets::TargetSocket;
use crate::edge::stream::batch::{MAX_BATCH_DESCRIPTORS, StreamBatch};
use crate::exchange::clock;
use crate::rules::datagrams::{Flow, FlowCounts, FlowId, FlowKey};
use crate::rules::routing::StreamFacts;
use crate::upstreams::Visit;

/// The kind of these streams in a hand-over, and the version of their form.
const KIND: (&str, u32) = ("flows", 1);

/// The flows of a listener in a batch.
#[derive(Debug, Serialize, Deserialize)]
struct SavedFlows {
    /// The name of the listener.
    listener: String,
    flows: Vec<SavedFlow>,
}

/// A flow as another process needs it.
#[derive(Debug, Serialize, Deserialize)]
struct SavedFlow {
    client: SocketAddr,
    local: IpAddr,
    /// The load balancer that has named the client.
    named_by: Option<IpAddr>,
    /// Where responses are sent, and the address that they leave from.
    peer: SocketAddr,
    from: IpAddr,
    /// The client and its destination, as a PROXY header says, and the header for the target.
    origin: [SocketAddr; 2],
    header: Vec<u8>,
    rule: String,
    upstream: String,
    target: SocketAddr,
    tries: u32,
    has_responded: bool,
    /// How long ago it has begun, and how long ago its last datagram came, in nanoseconds.
    age: u64,
    silent: u64,
    /// The datagrams of the client and to it, and the bytes in them, and the datagrams that were dropped.
    datagrams: [u64; 2],
    bytes: [u64; 2],
    withheld: u64,
}

/// A request for the flows of a listener.
pub type FlowRequest = mpsc::Sender<StreamBatch>;

/// The flows that move: from the listeners of this process, and to them.
#[derive(Debug, Default)]
pub struct MovingFlows {
    /// The running listeners.
    servers: Mutex<Vec<mpsc::UnboundedSender<FlowRequest>>>,
    /// The flows of a predecessor, by the name of the listener, until that runs.
    waiting: Mutex<AHashMap<String, Vec<(SavedFlow, OwnedFd)>>>,
}

impl MovingFlows {
    /// Adds a listener. Returns the requests for its flows.
    pub fn register(&self) -> mpsc::UnboundedReceiver<FlowRequest> {
        let (sender, requests) = mpsc::unbounded_channel();
        let mut servers = self.servers.lock();
        servers.retain(|server| !server.is_closed());
        servers.push(sender);
        requests
    }

    /// Requests the flows of all listeners, none of which reads its socket now. They come in batches, one at a time. A
    /// listener whose flows are not taken goes on with them.
    pub fn request(&self) -> mpsc::Receiver<StreamBatch> {
        let (sender, batches) = mpsc::channel(1);
        self.servers.lock().iter().for_each(|server| _ = server.send(sender.clone()));
        batches
    }

    /// Takes over the flows of a batch, for a listener that is about to start.
    pub fn take_over(&self, batch: StreamBatch) {
        let Some(saved) = batch.read::<SavedFlows>(KIND.0, KIND.1) else { return };
        let flows = saved.flows.into_iter().zip(batch.descriptors);
        self.waiting.lock().entry(saved.listener).or_default().extend(flows);
    }

    /// Drops the flows of listeners that do not run here.
    pub fn drop_unused(&self) {
        self.waiting.lock().clear();
    }

    fn of_listener(&self, name: &str) -> Vec<(SavedFlow, OwnedFd)> {
        self.waiting.lock().remove(name).unwrap_or_default()
    }
}

impl SavedFlow {
    /// Returns a flow and a copy of its socket, if it has one socket: more are opened anew for each datagram.
    fn new(flow: &Flow<Box<ClientFlow>>, now: u64) -> Option<(Self, OwnedFd)> {
        let (owned, counts) = (&flow.owned, &flow.counts);
        let [leg] = owned.legs.as_slice() else { return None };
        if owned.rule.datagrams.per_datagram {
            return None;
        }
        let saved = Self {
            client: flow.key.client,
            local: flow.key.local,
            named_by: flow.key.named_by,
            peer: owned.peer,
            from: owned.local,
            origin: [owned.origin.client, owned.origin.destination],
            header: leg.header.to_vec(),
            rule: owned.rule.name.clone(),
            upstream: leg.visit.upstream().name.clone(),
            target: leg.target,
            tries: owned.tries,
            has_responded: leg.has_responded,
            age: now.saturating_sub(counts.begun),
            silent: now.saturating_sub(counts.last),
            datagrams: [counts.datagrams_in, counts.datagrams_out],
            bytes: [counts.bytes_in, counts.bytes_out],
            withheld: counts.withheld,
        };
        Some((saved, leg.socket.share().ok()?))
    }

    fn counts(&self, now: u64) -> FlowCounts {
        FlowCounts {
            begun: now.saturating_sub(self.age),
            last: now.saturating_sub(self.silent),
            datagrams_in: self.datagrams[0],
            bytes_in: self.bytes[0],
            datagrams_out: self.datagrams[1],
            bytes_out: self.bytes[1],
            withheld: self.withheld,
        }
    }
}

impl UdpServer {
    /// Hands over its flows, and sets them aside. If they are not taken, it goes on with them.
    pub(super) async fn hand_over(&mut self, request: FlowRequest) {
        let ids: Vec<FlowId> = self.table.ids().collect();
        for part in ids.chunks(MAX_BATCH_DESCRIPTORS) {
            let Some(batch) = self.set_aside(part) else { continue };
            if request.send(batch).await.is_err() {
                return self.take_back();
            }
        }
    }

    fn set_aside(&mut self, ids: &[FlowId]) -> Option<StreamBatch> {
        let (now, mut flows, mut descriptors) = (clock::now(), Vec::new(), Vec::new());
        for id in ids {
            let Some((saved, socket)) = self.table.get(*id).and_then(|flow| SavedFlow::new(flow, now)) else {
                continue;
            };
            let Some(flow) = self.table.end(*id) else { continue };
            flow.owned.legs.iter().for_each(|leg| self.sockets.remove(&leg.socket));
            self.aside.push(flow);
            flows.push(saved);
            descriptors.push(socket);
        }
        let saved = SavedFlows { listener: self.listener_state.name.load().to_string(), flows };
        StreamBatch::new(KIND, &saved, descriptors).ok().filter(|batch| !batch.descriptors.is_empty())
    }

    /// Goes on with the flows that were set aside.
    pub(super) fn take_back(&mut self) {
        for flow in std::mem::take(&mut self.aside) {
            self.adopt(flow);
        }
    }

    /// Ends the flows that were set aside: another process goes on with them, and counts and logs them.
    pub(super) fn leave_aside(&mut self) {
        for mut flow in std::mem::take(&mut self.aside) {
            flow.owned.legs.iter_mut().for_each(|leg| leg.visit.end());
            flow.owned.metrics.open.dec();
        }
    }

    /// Takes over the flows of a predecessor.
    pub(super) fn inherit(&mut self, moving: &MovingFlows) {
        for (saved, socket) in moving.of_listener(&self.listener_state.name.load()) {
            if let Some(flow) = self.restore(saved, socket) {
                self.adopt(flow);
            }
        }
    }

    fn adopt(&mut self, flow: Flow<Box<ClientFlow>>) {
        let id = self.table.insert(flow);
        let legs = self.table.get(id).map(|flow| flow.owned.legs.iter());
        // Without being watched, it would never see a response.
        if legs.into_iter().flatten().any(|leg| self.sockets.add(&leg.socket, id).is_err()) {
            self.end_flow(id, crate::exchange::Reason::Exhausted);
        }
    }

    /// Returns a flow of a predecessor, if its client has the same rule still and its target is known.
    fn restore(&self, saved: SavedFlow, socket: OwnedFd) -> Option<Flow<Box<ClientFlow>>> {
        let key = FlowKey { client: saved.client, local: saved.local, named_by: saved.named_by };
        let streams = Arc::clone(&self.settings.streams);
        let place = streams.table.find(&StreamFacts { client: key.client.ip(), server_name: None, alpn: &[] })?;
        let rule = streams.rules.get(place).filter(|rule| rule.name == saved.rule && !rule.datagrams.per_datagram)?;
        let metrics = streams.metrics(place, &self.listener_state.name.load())?;
        let upstream = rule.upstream(&saved.upstream)?;
        let visit = Visit::resume(Arc::clone(upstream), saved.target, saved.tries)?;
        let counts = saved.counts(clock::now());
        let leg = Leg {
            visit,
            target: saved.target,
            socket: TargetSocket::adopt(socket),
            header: saved.header.into(),
            has_responded: saved.has_responded,
            // It is checked anew.
            version: u64::MAX,
        };
        metrics.open.inc();
        let [client, destination] = saved.origin;
        let owned = ClientFlow {
            origin: Origin { client, destination, proxy: None },
            peer: saved.peer,
            local: saved.from,
            rule: Arc::clone(rule),
            metrics: Arc::clone(metrics),
            last: (Arc::clone(upstream), saved.target),
            tries: saved.tries,
            pool: Arc::clone(&upstream.pool),
            legs: SmallVec::from_iter([leg]),
            first: None,
            _active: self.drain.begin(),
        };
        Some(Flow { key, terms: terms_of(rule), counts, owned: Box::new(owned) })
    }
}
