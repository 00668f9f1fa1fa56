//! Datagrams of clients, on their way to targets.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use super::UdpServer;
use super::flow::{ClientFlow, Leg, Origin, key_of, pick, terms_of};
use crate::edge::listeners::{DatagramPhase, ReceivedDatagram, has_proxy_header, proxy_facts};
use crate::exchange::Reason;
use crate::rules::datagrams::{FlowId, FlowKey, Incoming, NoFlow};
use crate::rules::protocols::{ProxyHeader, parse_proxy_datagram};
use crate::rules::routing::StreamFacts;
use crate::telemetry::DatagramDrop;
use crate::upstreams::{Class, Visit};

/// How often a datagram may begin another flow, because its target has refused it.
const MAX_BEGINNINGS: usize = 2;

/// The result of sending a datagram to a target.
pub(super) enum Sent {
    /// It was sent.
    Done,
    /// It was dropped.
    Dropped(DatagramDrop),
    /// The target has refused an earlier one, and this was not sent.
    Refused,
}

/// Sends a datagram to a target.
pub(super) fn send(leg: &Leg, bytes: &[u8]) -> Sent {
    match leg.socket.send(&leg.header, bytes) {
        Ok(()) => Sent::Done,
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock => Sent::Dropped(DatagramDrop::TargetFull),
            _ => match error.raw_os_error() {
                Some(nix::libc::EMSGSIZE) => Sent::Dropped(DatagramDrop::TooLarge),
                Some(nix::libc::ENOBUFS | nix::libc::ENOMEM | nix::libc::EPERM) => {
                    Sent::Dropped(DatagramDrop::TargetFull)
                }
                _ => Sent::Refused,
            },
        },
    }
}

impl UdpServer {
    /// Forwards a datagram of a client.
    pub(super) fn forward(&mut self, received: &ReceivedDatagram, buffer: &[u8], now: u64) {
        if received.dropped > 0 {
            self.metrics.count_dropped(DatagramDrop::ReceiveBuffer, u64::from(received.dropped));
        }
        let bytes = &buffer[..received.length];
        let (first, rest) = bytes.split_at(received.segment.min(bytes.len()));
        self.forward_one(received, first, now);
        if !rest.is_empty() && !self.forward_rest(received, rest, now) {
            rest.chunks(received.segment.max(1)).for_each(|bytes| self.forward_one(received, bytes, now));
        }
    }

    fn forward_one(&mut self, received: &ReceivedDatagram, bytes: &[u8], now: u64) {
        self.metrics.count_in(1);
        if let Err(reason) = self.try_forward(received, bytes, now) {
            self.metrics.count_dropped(reason, 1);
        }
    }

    /// Forwards the datagrams that have come with the first one of a flow. Returns false where each of them has to be
    /// looked at.
    fn forward_rest(&mut self, received: &ReceivedDatagram, bytes: &[u8], now: u64) -> bool {
        let Ok(segment) = u16::try_from(received.segment) else { return false };
        if self.settings.proxy_protocol.is_some() || self.settings.limits.datagrams.is_some() {
            return false;
        }
        let (key, count) = (key_of(received.peer, received.local, None), bytes.len().div_ceil(received.segment));
        let Some(id) = self.table.take_requests(&key, count, bytes.len(), now) else { return false };
        let Some(flow) = self.table.get(id) else { return false };
        self.metrics.count_in(count as u64);
        let leg = flow.owned.legs.first().filter(|leg| leg.header.is_empty() && flow.owned.legs.len() == 1);
        let is_per_datagram = flow.owned.rule.datagrams.per_datagram;
        if leg.is_some_and(|leg| !is_per_datagram && leg.socket.send_segments(bytes, segment).is_ok()) {
            flow.owned.metrics.count_bytes(bytes.len() as u64, 0);
            return true;
        }
        // Not each of the system's devices can divide them.
        for bytes in bytes.chunks(received.segment) {
            if let Err(reason) = self.pass_on(id, bytes) {
                self.metrics.count_dropped(reason, 1);
            }
        }
        true
    }

    fn try_forward(&mut self, received: &ReceivedDatagram, bytes: &[u8], now: u64) -> Result<(), DatagramDrop> {
        if let Some(rate) = &self.settings.limits.datagrams {
            self.arrived = rate.decide(self.arrived, now, 1).0.ok_or(DatagramDrop::Rate)?;
        }
        let (header, bytes) = self.split(received, bytes)?;
        let (client, named_by) = match header.addresses {
            Some((client, _)) => (client, Some(received.peer.ip())),
            None => (received.peer, None),
        };
        let key = key_of(client, received.local, named_by);
        for _ in 0..MAX_BEGINNINGS {
            match self.find(&key, received, bytes.len(), now) {
                Some(id) => {
                    if self.pass_on(id, bytes)? {
                        return Ok(());
                    }
                }
                None => return self.begin(key, received, header, bytes, now),
            }
        }
        Err(DatagramDrop::NoTarget)
    }

    /// Returns the PROXY header of a datagram, which names nobody where none is expected, and the payload.
    fn split<'d>(&self, received: &ReceivedDatagram, bytes: &'d [u8]) -> Result<(ProxyHeader, &'d [u8]), DatagramDrop> {
        match has_proxy_header(&self.settings, received.peer.ip()) {
            Some(false) => Ok((ProxyHeader::default(), bytes)),
            Some(true) => parse_proxy_datagram(bytes).map_err(|_| DatagramDrop::ProxyHeader),
            None => Err(DatagramDrop::ProxyHeader),
        }
    }

    /// Returns the present flow of a datagram, on which it is counted.
    fn find(&mut self, key: &FlowKey, received: &ReceivedDatagram, bytes: usize, now: u64) -> Option<FlowId> {
        match self.table.take_request(key, bytes, now) {
            Incoming::New => None,
            Incoming::Over(id) => {
                self.end_by_time(id, now);
                None
            }
            Incoming::Flow(id) => {
                let flow = &mut self.table.get_mut(id)?.owned;
                if !flow.keeps_target() {
                    self.end_flow(id, Reason::TargetUnhealthy);
                    return None;
                }
                // A load balancer may have begun to use another port.
                (flow.peer, flow.local) = (received.peer, received.local);
                flow.first = None;
                Some(id)
            }
        }
    }

    /// Sends a datagram to the target of its flow. Returns false if the flow has ended, since the target refused it.
    fn pass_on(&mut self, id: FlowId, bytes: &[u8]) -> Result<bool, DatagramDrop> {
        let Some(flow) = self.table.get_mut(id) else { return Ok(false) };
        let is_per_datagram = flow.owned.rule.datagrams.per_datagram;
        let place = if is_per_datagram { self.leg_of_datagram(id)? } else { 0 };
        let Some(flow) = self.table.get_mut(id) else { return Ok(false) };
        let Some(leg) = flow.owned.legs.get(place) else { return Ok(false) };
        match send(leg, bytes) {
            Sent::Done => {
                flow.owned.metrics.count_bytes(bytes.len() as u64, 0);
                Ok(true)
            }
            Sent::Dropped(reason) => Err(reason),
            // The datagram goes to another target, where there is one.
            Sent::Refused => Ok(self.refused(id, place, Some(bytes))),
        }
    }

    /// Returns the place of the leg for the next datagram of a flow whose datagrams are balanced one by one.
    pub(super) fn leg_of_datagram(&mut self, id: FlowId) -> Result<usize, DatagramDrop> {
        let Some(flow) = self.table.get_mut(id) else { return Err(DatagramDrop::NoTarget) };
        let client = flow.owned.origin.client.ip();
        let forward = flow.owned.rule.forward.as_ref().ok_or(DatagramDrop::Closed)?;
        let upstream = forward.choose().ok_or(DatagramDrop::NoTarget)?;
        let mut visit = Visit::new(Arc::clone(upstream), Class::Normal, None);
        let target = pick(&mut visit, client)?;
        let legs = &flow.owned.legs;
        if let Some(place) = legs.iter().position(|leg| leg.target == target) {
            return Ok(place);
        }
        if !flow.owned.has_room() {
            return Ok(fastrand::usize(..legs.len()));
        }
        let leg = Leg::open(visit, target, &flow.owned.origin)?;
        self.sockets.add(&leg.socket, id).map_err(|_| DatagramDrop::Exhausted)?;
        Ok(flow.owned.add(leg))
    }

    /// Begins a flow with a datagram of no present one.
    fn begin(
        &mut self,
        key: FlowKey,
        received: &ReceivedDatagram,
        header: ProxyHeader,
        bytes: &[u8],
        now: u64,
    ) -> Result<(), DatagramDrop> {
        if self.phase == DatagramPhase::Drain {
            return Err(DatagramDrop::Draining);
        }
        let streams = Arc::clone(&self.settings.streams);
        let facts = StreamFacts { client: key.client.ip(), server_name: None, alpn: &[] };
        let place = streams.table.find(&facts).ok_or(DatagramDrop::Closed)?;
        let rule = streams.rules.get(place).ok_or(DatagramDrop::Closed)?;
        let name = self.listener_state.name.load();
        let metrics = streams.metrics(place, &name).ok_or(DatagramDrop::Closed)?;
        let upstream = rule.forward.as_ref().ok_or(DatagramDrop::Closed)?.choose().ok_or(DatagramDrop::Closed)?;
        self.table.admit(key.client.ip(), now).map_err(|limit| match limit {
            NoFlow::Full => DatagramDrop::Flows,
            NoFlow::Client => DatagramDrop::ClientFlows,
            NoFlow::Rate => DatagramDrop::NewFlows,
        })?;
        let local = SocketAddr::new(received.local, self.listener_state.port);
        let proxy = proxy_facts(header);
        let destination = proxy.as_ref().and_then(|proxy| proxy.destination).unwrap_or(local);
        let origin = Origin { client: key.client, destination, proxy };
        let leg = Leg::begin(upstream, &origin)?;
        let addresses = (received.peer, received.local);
        let flow = ClientFlow::new(origin, addresses, (rule, metrics), leg, bytes, self.drain.begin());
        let id = self.table.begin(key, terms_of(rule), flow, bytes.len(), now);
        let added = self.table.get(id).map(|flow| flow.owned.legs.iter().map(|leg| self.sockets.add(&leg.socket, id)));
        if added.into_iter().flatten().any(|added| added.is_err()) {
            self.end_flow(id, Reason::Exhausted);
            return Err(DatagramDrop::Exhausted);
        }
        if self.pass_on(id, bytes)? { Ok(()) } else { Err(DatagramDrop::NoTarget) }
    }
}
