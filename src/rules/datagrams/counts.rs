//! What has passed on a flow.

use super::terms::FlowTerms;

/// What has passed on a flow, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// The time of its first datagram.
    pub begun: u64,
    /// The time of its last datagram, in either direction.
    pub last: u64,
    /// The number of datagrams of the client.
    pub datagrams_in: u64,
    /// The bytes in them.
    pub bytes_in: u64,
    /// The number of datagrams that were sent to the client.
    pub datagrams_out: u64,
    /// The bytes in them.
    pub bytes_out: u64,
    /// The number of datagrams for the client that were dropped, because its address may be forged.
    pub withheld: u64,
}

impl FlowCounts {
    /// Returns the counts of a flow that begins.
    pub fn new(now: u64) -> Self {
        Self { begun: now, last: now, ..Self::default() }
    }

    /// Counts a datagram of the client.
    pub fn add_request(&mut self, bytes: usize, now: u64) {
        self.add_requests(1, bytes, now);
    }

    /// Counts datagrams of the client.
    pub fn add_requests(&mut self, count: usize, bytes: usize, now: u64) {
        self.last = now;
        self.datagrams_in += count as u64;
        self.bytes_in += bytes as u64;
    }

    /// Counts datagrams that are sent to the client.
    pub fn add_responses(&mut self, count: usize, bytes: usize, now: u64) {
        self.last = now;
        self.datagrams_out += count as u64;
        self.bytes_out += bytes as u64;
    }

    /// Counts a datagram for the client, unless it may not be sent to it. Returns whether it may.
    pub fn add_response(&mut self, bytes: usize, terms: &FlowTerms, now: u64) -> bool {
        let sum = self.bytes_out.saturating_add(bytes as u64);
        let most = self.bytes_in.saturating_mul(u64::from(terms.amplification));
        if terms.amplification > 0 && sum > most {
            self.withheld += 1;
            return false;
        }
        // What is withheld does not keep the flow.
        self.last = now;
        self.datagrams_out += 1;
        self.bytes_out = sum;
        true
    }

    /// Returns whether the client may send no further datagram on it.
    pub fn has_all_requests(&self, terms: &FlowTerms) -> bool {
        terms.requests > 0 && self.datagrams_in >= u64::from(terms.requests)
    }

    /// Returns whether every response has come. One that was dropped has come too.
    pub fn has_all_responses(&self, terms: &FlowTerms) -> bool {
        let wanted = self.datagrams_in.saturating_mul(u64::from(terms.responses));
        terms.responses > 0 && self.datagrams_out + self.withheld >= wanted
    }
}
