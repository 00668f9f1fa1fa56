//! The table against a naive model: a list that is searched from its end.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::wheel::TICK;
use super::*;
use crate::rules::limits::Gcra;

const SECOND: u64 = 1_000_000_000;

/// A flow of the model.
struct Naive {
    number: u32,
    key: FlowKey,
    terms: FlowTerms,
    begun: u64,
    last: u64,
    requests: u64,
    responses: u64,
    bytes: [u64; 2],
}

impl Naive {
    fn end(&self) -> u64 {
        let total = if self.terms.total == 0 { u64::MAX } else { self.begun + self.terms.total };
        total.min(self.last + self.terms.idle)
    }

    fn takes_requests(&self) -> bool {
        self.terms.requests == 0 || self.requests < u64::from(self.terms.requests)
    }
}

struct World {
    random: fastrand::Rng,
    now: u64,
    limits: TableLimits,
    table: FlowTable<u32>,
    model: Vec<Naive>,
    /// The times at which flows were admitted.
    begun: Vec<u64>,
    ended: Vec<u32>,
    count: u32,
}

fn network(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets()[..8].to_vec(),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let limits = TableLimits {
            flows: random.u32(1..40),
            flows_per_client: random.u32(1..12),
            new_flows: random.bool().then(|| Gcra::new(5, Duration::from_secs(1), Some(8))),
        };
        let now = 86_400 * SECOND;
        let table = FlowTable::new(limits, now);
        Self { random, now, limits, table, model: Vec::new(), begun: Vec::new(), ended: Vec::new(), count: 0 }
    }

    fn key(&mut self) -> FlowKey {
        let number = self.random.u16(0..6);
        let ip: IpAddr = match self.random.u8(0..3) {
            0 => [10, 0, 0, number as u8].into(),
            // Two networks of 64 bits.
            _ => [0x2001, 0xdb8, 0, number % 2, 0, 0, 0, number].into(),
        };
        let local = [127, 0, 0, self.random.u8(1..3)].into();
        FlowKey { client: SocketAddr::new(ip, self.random.u16(1..4)), local, named_by: None }
    }

    fn terms(&mut self) -> FlowTerms {
        let random = &mut self.random;
        FlowTerms {
            idle: random.u64(1..120) * SECOND / 2,
            total: if random.bool() { random.u64(1..100) * SECOND } else { 0 },
            requests: random.u32(0..4),
            responses: random.u32(0..3),
            amplification: random.u32(0..4),
        }
    }

    fn end(&mut self, id: FlowId) {
        let flow = self.table.end(id).expect("a flow");
        assert!(self.table.end(id).is_none() && self.table.get(id).is_none());
        let place = self.model.iter().position(|naive| naive.number == flow.owned).expect("in the model");
        let naive = self.model.swap_remove(place);
        assert_eq!((flow.counts.datagrams_in, flow.counts.last), (naive.requests, naive.last));
        assert_eq!([flow.counts.bytes_in, flow.counts.bytes_out], naive.bytes);
        self.ended.push(flow.owned);
    }

    fn request(&mut self) {
        let (key, bytes) = (self.key(), self.random.usize(0..2_000));
        let now = self.now;
        let known = self.model.iter_mut().rev().find(|naive| naive.key == key && naive.takes_requests());
        match self.table.take_request(&key, bytes, now) {
            Incoming::Flow(id) => {
                let naive = known.expect("a flow");
                assert_eq!(self.table.get(id).expect("a flow").owned, naive.number);
                assert!(now < naive.end());
                naive.requests += 1;
                naive.bytes[0] += bytes as u64;
                naive.last = now;
                return;
            }
            Incoming::Over(id) => {
                assert!(now >= known.map(|naive| naive.end()).expect("a flow"));
                self.end(id);
                assert_eq!(self.table.take_request(&key, bytes, now), Incoming::New);
            }
            Incoming::New => assert!(known.is_none()),
        }
        self.begin(key, bytes);
    }

    fn begin(&mut self, key: FlowKey, bytes: usize) {
        let now = self.now;
        let of_client =
            self.model.iter().filter(|naive| network(naive.key.client.ip()) == network(key.client.ip())).count();
        // 5 in a second and 8 at once: no stretch has more than both.
        let too_fast = self.limits.new_flows.is_some()
            && self.begun.iter().enumerate().any(|(index, from)| {
                let count = (self.begun.len() - index) as u64;
                count * SECOND / 5 + SECOND / 5 > now - from + 8 * SECOND / 5
            });
        let expected = if self.model.len() >= self.limits.flows as usize {
            Err(NoFlow::Full)
        } else if of_client >= self.limits.flows_per_client as usize {
            Err(NoFlow::Client)
        } else if too_fast {
            Err(NoFlow::Rate)
        } else {
            Ok(())
        };
        assert_eq!(self.table.admit(key.client.ip(), now), expected);
        if expected.is_err() {
            return;
        }
        self.begun.push(now);
        self.count += 1;
        let (number, terms) = (self.count, self.terms());
        self.table.begin(key, terms, number, bytes, now);
        self.model.push(Naive {
            number,
            key,
            terms,
            begun: now,
            last: now,
            requests: 1,
            responses: 0,
            bytes: [bytes as u64, 0],
        });
    }

    /// Several datagrams at a time are counted as they are one by one, or not at all.
    fn requests(&mut self) {
        let (key, bytes, count, now) = (self.key(), self.random.usize(1..2_000), self.random.usize(1..9), self.now);
        let known = self.model.iter_mut().rev().find(|naive| naive.key == key && naive.takes_requests());
        let known = known.filter(|naive| naive.terms.requests == 0 && now < naive.end());
        let taken = self.table.take_requests(&key, count, bytes, now);
        assert_eq!(taken.is_some(), known.is_some());
        if let Some(naive) = known {
            naive.requests += count as u64;
            naive.bytes[0] += bytes as u64;
            naive.last = now;
        }
    }

    fn responses(&mut self) {
        let ids: Vec<FlowId> = self.table.ids().collect();
        let Some(id) = self.random.choice(ids) else { return };
        let (bytes, count, now) = (self.random.usize(1..3_000), self.random.usize(1..9), self.now);
        let number = self.table.get(id).expect("a flow").owned;
        let naive = self.model.iter_mut().find(|naive| naive.number == number).expect("in the model");
        let is_free = naive.terms.responses == 0 && naive.terms.amplification == 0;
        assert_eq!(self.table.take_responses(id, count, bytes, now), is_free);
        if is_free {
            naive.responses += count as u64;
            naive.bytes[1] += bytes as u64;
            naive.last = now;
        }
    }

    fn response(&mut self) {
        let ids: Vec<FlowId> = self.table.ids().collect();
        let Some(id) = self.random.choice(ids) else { return };
        let (bytes, now) = (self.random.usize(0..3_000), self.now);
        let number = self.table.get(id).expect("a flow").owned;
        let naive = self.model.iter_mut().find(|naive| naive.number == number).expect("in the model");
        let most = naive.bytes[0] * u64::from(naive.terms.amplification);
        let is_sent = naive.terms.amplification == 0 || naive.bytes[1] + bytes as u64 <= most;
        let withheld = self.table.get(id).expect("a flow").counts.withheld + u64::from(!is_sent);
        if is_sent {
            naive.last = now;
            naive.responses += 1;
            naive.bytes[1] += bytes as u64;
        }
        let wanted = naive.requests * u64::from(naive.terms.responses);
        let is_last = wanted > 0 && naive.responses + withheld >= wanted;
        let expected = match (is_sent, is_last) {
            (true, false) => Outgoing::Send,
            (true, true) => Outgoing::SendLast,
            (false, false) => Outgoing::Withhold,
            (false, true) => Outgoing::WithholdLast,
        };
        assert_eq!(self.table.take_response(id, bytes, now), Some(expected));
        if is_last {
            self.end(id);
            assert_eq!(self.table.take_response(id, bytes, now), None);
        }
    }

    fn pass(&mut self) {
        self.now += match self.random.u8(0..10) {
            0 => self.random.u64(0..200) * SECOND,
            1..3 => self.random.u64(0..10) * SECOND,
            _ => self.random.u64(0..SECOND / 10),
        };
        if self.random.bool() {
            return;
        }
        let mut most = usize::MAX;
        while let Some(id) = self.table.next_over(self.now, &mut most) {
            let flow = self.table.get(id).expect("a flow");
            assert!(flow.end() <= self.now, "it ends too early");
            self.end(id);
        }
        let late = self.model.iter().find(|naive| naive.end() + 2 * TICK <= self.now);
        assert!(late.is_none(), "a flow is forgotten");
    }
}

#[test]
fn the_table_does_what_a_list_does() {
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..400 {
            match world.random.u8(0..10) {
                0..4 => world.request(),
                4 => world.requests(),
                5..7 => world.response(),
                7 => world.responses(),
                8 => world.pass(),
                _ => {
                    let ids: Vec<FlowId> = world.table.ids().collect();
                    if let Some(id) = world.random.choice(ids).filter(|_| world.random.u8(0..4) == 0) {
                        world.end(id);
                    }
                }
            }
            assert_eq!(world.table.len(), world.model.len());
        }
        assert_eq!(world.ended.len() + world.model.len(), world.count as usize);
        // Nothing is left of flows that have ended.
        world.now += 1_000 * SECOND;
        while let Some(id) = world.table.next_over(world.now, &mut 1_000_000) {
            world.end(id);
        }
        assert!(world.table.is_drained(), "seed {seed}");
    }
}

#[test]
fn work_for_flows_that_are_over_is_bounded() {
    let limits = TableLimits { flows: 1_000, flows_per_client: 1_000, new_flows: None };
    let mut table = FlowTable::new(limits, 0);
    let terms = FlowTerms { idle: SECOND, total: 0, requests: 0, responses: 0, amplification: 0 };
    for port in 1..=500 {
        let client = SocketAddr::new([10, 0, 0, 1].into(), port);
        let key = FlowKey { client, local: [127, 0, 0, 1].into(), named_by: None };
        table.begin(key, terms, (), 1, 0);
    }
    let mut ended = 0;
    for _ in 0..20 {
        let mut most = 25;
        while let Some(id) = table.next_over(3 * SECOND, &mut most) {
            ended += usize::from(table.end(id).is_some());
        }
        assert_eq!((most, ended % 25), (0, 0));
    }
    assert_eq!((ended, table.len()), (500, 0));
}
