//! The table of flows.

use std::net::{IpAddr, SocketAddr};

use ahash::AHashMap;

use super::counts::FlowCounts;
use super::slab::{FlowId, Slab};
use super::terms::{ClientNetwork, FlowTerms, NoFlow, TableLimits};
use super::wheel::Wheel;

/// The identity of a flow: the client, the local address that it sends to, and who says that it is the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The client.
    pub client: SocketAddr,
    /// The local address.
    pub local: IpAddr,
    /// The load balancer that has named the client: what comes from the client itself is none of that flow.
    pub named_by: Option<IpAddr>,
}

/// A flow with what its owner stores in it.
#[derive(Debug)]
pub struct Flow<F> {
    /// Its identity.
    pub key: FlowKey,
    /// Its limits.
    pub terms: FlowTerms,
    /// What has passed on it.
    pub counts: FlowCounts,
    /// What its owner stores in it.
    pub owned: F,
}

impl<F> Flow<F> {
    /// Returns when it ends, if no further datagram comes.
    pub fn end(&self) -> u64 {
        let idle = self.counts.last.saturating_add(self.terms.idle);
        if self.terms.total == 0 { idle } else { idle.min(self.counts.begun.saturating_add(self.terms.total)) }
    }

    /// Returns whether it has been idle, or has lived, for as long as it may.
    pub fn is_over(&self, now: u64) -> bool {
        now >= self.end()
    }
}

/// What a datagram of a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// One of a flow, which it was counted on.
    Flow(FlowId),
    /// One for a flow whose time is over: it is to be ended, and the datagram to be counted anew.
    Over(FlowId),
    /// One of no flow.
    New,
}

/// What is done with a datagram of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outgoing {
    /// It is sent to the client.
    Send,
    /// It is sent to the client, and the flow is to be ended.
    SendLast,
    /// It is dropped: the client may be one that never asked for it.
    Withhold,
    /// It is dropped, and the flow is to be ended.
    WithholdLast,
}

/// The flows of one listener, with one look-up for a datagram of a client and none for one of a target.
#[derive(Debug)]
pub struct FlowTable<F> {
    limits: TableLimits,
    flows: Slab<Flow<F>>,
    /// The flow of a key that takes datagrams of the client. There may be others, which wait for responses.
    by_key: AHashMap<FlowKey, FlowId>,
    by_client: AHashMap<ClientNetwork, u32>,
    wheel: Wheel,
    /// The state of the rate of new flows.
    begun: u64,
}

impl<F> FlowTable<F> {
    /// Returns an empty table.
    pub fn new(limits: TableLimits, now: u64) -> Self {
        Self {
            limits,
            flows: Slab::default(),
            by_key: AHashMap::default(),
            by_client: AHashMap::default(),
            wheel: Wheel::new(now),
            begun: 0,
        }
    }

    /// Sets other limits. Present flows go on, however many there are.
    pub fn set_limits(&mut self, limits: TableLimits) {
        self.limits = limits;
    }

    /// Returns the number of flows.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Returns a flow, unless it has ended.
    pub fn get(&self, id: FlowId) -> Option<&Flow<F>> {
        self.flows.get(id)
    }

    /// Returns a flow, unless it has ended.
    pub fn get_mut(&mut self, id: FlowId) -> Option<&mut Flow<F>> {
        self.flows.get_mut(id)
    }

    /// Returns all flows.
    pub fn ids(&self) -> impl Iterator<Item = FlowId> {
        self.flows.ids()
    }

    /// Returns the flow of a datagram of a client, on which it is counted.
    pub fn take_request(&mut self, key: &FlowKey, bytes: usize, now: u64) -> Incoming {
        let Some(id) = self.by_key.get(key).copied() else { return Incoming::New };
        let Some(flow) = self.flows.get_mut(id) else { return Incoming::New };
        if flow.is_over(now) {
            return Incoming::Over(id);
        }
        flow.counts.add_request(bytes, now);
        if flow.counts.has_all_requests(&flow.terms) {
            self.by_key.remove(key);
        }
        Incoming::Flow(id)
    }

    /// Returns the flow of several datagrams of a client, on which they are counted; `None` where each of them has to
    /// be looked at.
    pub fn take_requests(&mut self, key: &FlowKey, count: usize, bytes: usize, now: u64) -> Option<FlowId> {
        let id = *self.by_key.get(key)?;
        let flow = self.flows.get_mut(id).filter(|flow| flow.terms.requests == 0 && !flow.is_over(now))?;
        flow.counts.add_requests(count, bytes, now);
        Some(id)
    }

    /// Counts several datagrams of a target for a flow, which are sent. Returns false where each of them has to be
    /// looked at.
    pub fn take_responses(&mut self, id: FlowId, count: usize, bytes: usize, now: u64) -> bool {
        let Some(flow) = self.flows.get_mut(id) else { return false };
        let FlowTerms { responses, amplification, .. } = flow.terms;
        let is_free = responses == 0 && amplification == 0;
        if is_free {
            flow.counts.add_responses(count, bytes, now);
        }
        is_free
    }

    /// Decides whether a flow may begin, and counts it for the rate of new ones.
    ///
    /// # Errors
    /// Returns the limit that is reached.
    pub fn admit(&mut self, client: IpAddr, now: u64) -> Result<(), NoFlow> {
        if self.flows.len() >= self.limits.flows as usize {
            return Err(NoFlow::Full);
        }
        let of_client = self.by_client.get(&ClientNetwork::of(client));
        if of_client.is_some_and(|count| *count >= self.limits.flows_per_client) {
            return Err(NoFlow::Client);
        }
        if let Some(rate) = &self.limits.new_flows {
            self.begun = rate.decide(self.begun, now, 1).0.ok_or(NoFlow::Rate)?;
        }
        Ok(())
    }

    /// Begins a flow with a datagram of a client, whether admitted or not. It takes the place of one with that key.
    pub fn begin(&mut self, key: FlowKey, terms: FlowTerms, owned: F, bytes: usize, now: u64) -> FlowId {
        let mut counts = FlowCounts::new(now);
        counts.add_request(bytes, now);
        self.insert(Flow { key, terms, counts, owned })
    }

    /// Inserts a flow, as one of a predecessor.
    pub fn insert(&mut self, flow: Flow<F>) -> FlowId {
        let (key, due) = (flow.key, flow.end());
        let takes_more = !flow.counts.has_all_requests(&flow.terms);
        let id = self.flows.insert(flow);
        *self.by_client.entry(ClientNetwork::of(key.client.ip())).or_default() += 1;
        if takes_more {
            self.by_key.insert(key, id);
        }
        self.wheel.add(id.index() as u32, due);
        id
    }

    /// Decides on a datagram of a target for a flow, and counts it there; `None` if the flow has ended.
    pub fn take_response(&mut self, id: FlowId, bytes: usize, now: u64) -> Option<Outgoing> {
        let flow = self.flows.get_mut(id)?;
        let is_sent = flow.counts.add_response(bytes, &flow.terms, now);
        Some(match (is_sent, flow.counts.has_all_responses(&flow.terms)) {
            (true, false) => Outgoing::Send,
            (true, true) => Outgoing::SendLast,
            (false, false) => Outgoing::Withhold,
            (false, true) => Outgoing::WithholdLast,
        })
    }

    /// Ends a flow, and returns it; `None` if it has ended before.
    pub fn end(&mut self, id: FlowId) -> Option<Flow<F>> {
        let flow = self.flows.remove(id)?;
        self.wheel.remove(id.index() as u32);
        if self.by_key.get(&flow.key) == Some(&id) {
            self.by_key.remove(&flow.key);
        }
        let client = ClientNetwork::of(flow.key.client.ip());
        if let Some(count) = self.by_client.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                self.by_client.remove(&client);
            }
        }
        Some(flow)
    }

    /// Returns a flow whose time is over. It is to be ended; `most` bounds how many flows are looked at, and is what is
    /// left of it afterwards.
    pub fn next_over(&mut self, now: u64, most: &mut usize) -> Option<FlowId> {
        while *most > 0 {
            *most -= 1;
            let place = self.wheel.pop(now)?;
            let Some((id, flow)) = self.flows.id(place).and_then(|id| Some((id, self.flows.get(id)?))) else {
                continue;
            };
            if flow.is_over(now) {
                self.wheel.add(place, now.saturating_add(flow.terms.idle));
                return Some(id);
            }
            self.wheel.add(place, flow.end());
        }
        None
    }

    /// Returns whether nothing is left of any flow.
    #[cfg(test)]
    pub(super) fn is_drained(&self) -> bool {
        self.by_key.is_empty() && self.by_client.is_empty() && self.len() == 0
    }
}
