//! `streams`: the rules of layer 4, and the table of each listener.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;

use crate::config::{Loaded, StreamActionConfig, StreamConfig, StreamForwardConfig, StreamMatch, StreamTlsMode};
use crate::notation::{Mistakes, OneOrMany, Place};
use crate::rules::balance::{Algorithm, Seat, hash_key};
use crate::rules::identity::RequestKey;
use crate::rules::protocols::ProxyVersion;
use crate::rules::routing::{HostPattern, StreamEntry, StreamPredicates, StreamTable};
use crate::snapshot::{
    DatagramRules, Listener, ListenerSpec, StreamForward, StreamRule, StreamTimes, StreamTls, Streams, Transport,
};
use crate::upstreams::{Sticky, Upstream};

/// The most rules of a configuration.
const MAX_STREAMS: usize = 10_000;

/// The most server names of all rules on all listeners.
const MAX_ENTRIES: usize = 200_000;

/// Compiles the rules into the listeners.
pub fn compile(
    loaded: &Loaded,
    upstreams: &BTreeMap<String, Arc<Upstream>>,
    listeners: &mut [Listener],
    mistakes: &mut Mistakes,
    warnings: &mut Mistakes,
) {
    let configs = &loaded.config.streams;
    if configs.len() > MAX_STREAMS {
        let text = format!("{} rules are too many: at most {MAX_STREAMS} are allowed", configs.len());
        return mistakes.add(&Place::default().key("streams"), text);
    }
    let mut compiler = StreamCompiler { loaded, upstreams, listeners, mistakes, count: 0 };
    let (mut names, mut rules) = (AHashMap::new(), Vec::new());
    for (index, config) in configs.iter().enumerate() {
        let place = loaded.stream_place(index);
        if let Some(first) = names.insert(config.name.0.as_str(), index) {
            let text = format!("the name \"{}\" is taken by {}", config.name.0, loaded.stream_place(first));
            compiler.mistakes.add(&place.key("name"), text);
        }
        rules.push((Arc::new(compiler.rule(config, &place)), compiler.bound(config, &place)));
    }
    compiler.fill(&rules, warnings);
}

/// Returns the application protocols of a rule.
fn alpn(matches: &StreamMatch) -> Vec<Vec<u8>> {
    matches.alpn.iter().flat_map(OneOrMany::as_slice).map(|protocol| protocol.as_bytes().to_vec()).collect()
}

struct StreamCompiler<'s> {
    loaded: &'s Loaded,
    upstreams: &'s BTreeMap<String, Arc<Upstream>>,
    listeners: &'s mut [Listener],
    mistakes: &'s mut Mistakes,
    /// The entries of all tables.
    count: usize,
}

/// Returns the keys of a rule that only connections have, and those that only datagrams have.
fn particular_keys(config: &StreamConfig) -> [Vec<&'static str>; 2] {
    let tcp = [
        ("match", config.matches.server_name.is_some() || config.matches.alpn.is_some()),
        ("tls", config.tls.is_some()),
        ("half_closed_time", config.half_closed_time.is_some()),
        ("rate", config.rate.is_some()),
    ];
    let keys = |of: &[(&'static str, bool)]| of.iter().filter(|(_, is_set)| *is_set).map(|(key, _)| *key).collect();
    [keys(&tcp), keys(&[("datagrams", config.datagrams.is_some())])]
}

impl StreamCompiler<'_> {
    /// Returns the places of the listeners that a rule is for.
    fn bound(&mut self, config: &StreamConfig, place: &Place) -> Vec<usize> {
        let [tcp_keys, udp_keys] = particular_keys(config);
        if let (Some(tcp), Some(udp)) = (tcp_keys.first(), udp_keys.first()) {
            let text = format!("is for datagrams alone, and {tcp} for connections: write two rules");
            self.mistakes.add(&place.key(*udp), text);
        }
        let is_for = |listener: &Listener| match &listener.kind {
            ListenerSpec::Http(_) => false,
            ListenerSpec::Tcp(_) => udp_keys.is_empty(),
            ListenerSpec::Udp(_) => tcp_keys.is_empty(),
        };
        if config.listeners.is_empty() {
            return (0..self.listeners.len()).filter(|place| is_for(&self.listeners[*place])).collect();
        }
        let mut bound = Vec::new();
        for (index, name) in config.listeners.iter().enumerate() {
            let at = place.key("listeners").index(index);
            let Some(found) = self.listeners.iter().position(|listener| listener.name == *name) else {
                if !self.loaded.is_partial("listeners") {
                    let known = self.listeners.iter().map(|listener| listener.name.as_str());
                    self.mistakes.add(&at, super::unknown_name::there_is_no("listener", name, known));
                }
                continue;
            };
            let listener = &self.listeners[found];
            match &listener.kind {
                ListenerSpec::Http(_) => {
                    self.mistakes.add(&at, "is a listener of kind http, whose requests have `routes`: set kind: tcp");
                }
                _ if is_for(listener) => bound.push(found),
                _ => {
                    let is_udp = listener.transport() == Transport::Udp;
                    let keys = if is_udp { &tcp_keys } else { &udp_keys };
                    let kind = if is_udp { "udp" } else { "tcp" };
                    let text = format!("is of kind {kind}, on which {} has no effect", keys.join(", "));
                    self.mistakes.add(&at, text);
                }
            }
        }
        bound
    }

    fn rule(&mut self, config: &StreamConfig, place: &Place) -> StreamRule {
        for (key, time) in [
            ("idle_time", &config.idle_time),
            ("half_closed_time", &config.half_closed_time),
            ("total_time", &config.total_time),
        ] {
            if time.as_ref().is_some_and(|time| time.0.is_zero()) {
                self.mistakes.add(&place.key(key), "expected a time longer than nothing");
            }
        }
        let rate = config.rate.clone().unwrap_or_default();
        for (key, rate) in [("received", &rate.received), ("sent", &rate.sent)] {
            if rate.as_ref().is_some_and(|rate| rate.0 == 0) {
                self.mistakes.add(&place.key("rate").key(key), "expected at least one byte in a second");
            }
        }
        let datagrams = config.datagrams.clone().unwrap_or_default();
        let forward = self.forward(&config.action, &place.key("action"));
        for upstream in forward.iter().flat_map(|forward| &forward.upstreams) {
            self.check_upstream(upstream, config, place);
        }
        StreamRule {
            name: config.name.0.clone(),
            tls: config.tls.map(|mode| match mode {
                StreamTlsMode::Pass => StreamTls::Pass,
                StreamTlsMode::Terminate => StreamTls::Terminate,
            }),
            protocols: alpn(&config.matches),
            forward,
            times: StreamTimes {
                idle: config.idle_time.as_ref().map(|time| time.0),
                half_closed: config.half_closed_time.as_ref().map(|time| time.0),
                total: config.total_time.as_ref().map(|time| time.0),
            },
            rate: [rate.received.map(|rate| rate.0), rate.sent.map(|rate| rate.0)],
            datagrams: DatagramRules {
                requests: datagrams.requests,
                responses: datagrams.responses,
                per_datagram: datagrams.per_datagram,
                amplification: datagrams.amplification,
                keep_unhealthy: datagrams.keep_unhealthy,
            },
        }
    }

    /// Notes what an upstream cannot do at layer 4.
    fn check_upstream(&mut self, upstream: &Upstream, config: &StreamConfig, place: &Place) {
        let (name, is_address) = (&upstream.name, |key: &RequestKey| *key == RequestKey::Address);
        if upstream.key.as_ref().is_some_and(|key| !is_address(key)) {
            let text = format!("the upstream \"{name}\" hashes a part of a request: here that is by: address");
            self.mistakes.add(&place.key("action"), text);
        }
        let has_session = match &upstream.sticky {
            None => true,
            Some(Sticky::Cookie { .. }) => false,
            Some(Sticky::Table { key, .. }) => is_address(key),
        };
        if !has_session {
            let text = format!("the upstream \"{name}\" keeps sessions by a part of a request: here that is address");
            self.mistakes.add(&place.key("action"), text);
        }
        if config.tls == Some(StreamTlsMode::Pass) && upstream.pool.stream_tls().is_some() {
            let text = format!("the upstream \"{name}\" has tls, which would be around that of the client");
            self.mistakes.add(&place.key("tls"), text);
        }
    }

    fn forward(&mut self, action: &StreamActionConfig, place: &Place) -> Option<StreamForward> {
        let StreamActionConfig::Forward(forward) = action else { return None };
        let place = place.key("forward");
        let shares: Vec<(&str, u32, Place)> = match forward {
            StreamForwardConfig::Name(name) => vec![(name, 1, place.clone())],
            StreamForwardConfig::To(to) => {
                let at = |index| place.key("split").index(index).key("upstream");
                to.split.iter().enumerate().map(|(i, s)| (s.upstream.as_str(), s.weight, at(i))).collect()
            }
        };
        if shares.iter().all(|(_, weight, _)| *weight == 0) {
            self.mistakes.add(&place.key("split"), "expected at least one share with a weight");
        }
        let (mut found, mut seats) = (Vec::new(), Vec::new());
        for (name, weight, place) in shares {
            match self.upstreams.get(name) {
                Some(upstream) if weight > 0 => {
                    found.push(Arc::clone(upstream));
                    seats.push(Seat::new(hash_key(name.as_bytes()), weight));
                }
                Some(_) => {}
                None if self.loaded.is_left_out("upstreams", name)
                    || self.loaded.config.upstreams.contains_key(name) => {}
                None => {
                    let known = self.upstreams.keys().map(String::as_str);
                    self.mistakes.add(&place, super::unknown_name::there_is_no("upstream", name, known));
                }
            }
        }
        let shares = (seats.len() > 1).then(|| Algorithm::RoundRobin.build(&seats));
        Some(StreamForward { upstreams: found, shares })
    }

    /// Sets the table of each listener, by the rules and the places of their listeners.
    fn fill(&mut self, rules: &[(Arc<StreamRule>, Vec<usize>)], warnings: &mut Mistakes) {
        for listener in 0..self.listeners.len() {
            let tls = match &self.listeners[listener].kind {
                ListenerSpec::Http(_) => continue,
                ListenerSpec::Tcp(tcp) => Some(tcp.tls.is_some()),
                ListenerSpec::Udp(_) => None,
            };
            let own: Vec<usize> = (0..rules.len()).filter(|rule| rules[*rule].1.contains(&listener)).collect();
            let place = self.loaded.listener_place(listener);
            if own.is_empty() && !self.loaded.is_partial("streams") {
                let text = "no rule of `streams` is for this listener: all that comes would be closed";
                self.mistakes.add(&place, format!("{text}{}", self.excluded(tls.is_none())));
            }
            let mut entries: Vec<StreamEntry> = Vec::new();
            for (number, rule) in own.iter().enumerate() {
                if tls == Some(false) && rules[*rule].0.tls == Some(StreamTls::Terminate) {
                    let text = format!("needs certificates: {place} has no tls");
                    self.mistakes.add(&self.loaded.stream_place(*rule).key("tls"), text);
                }
                if tls.is_none() {
                    self.check_datagrams(&rules[*rule].0, &self.loaded.stream_place(*rule).key("action"));
                }
                self.add_entries(*rule, number, &own, &mut entries);
            }
            let passes = |rule: &usize| rules[*rule].0.tls == Some(StreamTls::Pass);
            if tls == Some(true) && !own.is_empty() && own.iter().all(passes) {
                warnings.add(&place.key("tls"), "every rule for this listener passes TLS on: it is never used");
            }
            let rules = own.iter().map(|rule| Arc::clone(&rules[*rule].0)).collect();
            let streams = Arc::new(Streams::new(StreamTable::new(entries), rules));
            match &mut self.listeners[listener].kind {
                ListenerSpec::Http(_) => {}
                ListenerSpec::Tcp(tcp) => tcp.streams = streams,
                ListenerSpec::Udp(udp) => udp.streams = streams,
            }
        }
    }

    /// Returns which keys keep rules that name no listener from those of a transport.
    fn excluded(&self, is_udp: bool) -> String {
        let all = self.loaded.config.streams.iter().filter(|config| config.listeners.is_empty());
        let keys = |config| particular_keys(config).into_iter().nth(usize::from(!is_udp)).unwrap_or_default();
        let first = all.map(|config| (&config.name.0, keys(config))).find(|(_, keys)| !keys.is_empty());
        let Some((name, keys)) = first else { return String::new() };
        let other = if is_udp { "tcp" } else { "udp" };
        format!("; \"{name}\" is for kind {other} alone, since it has {}", keys.join(", "))
    }

    /// Notes upstreams of a rule for datagrams that datagrams cannot reach.
    fn check_datagrams(&mut self, rule: &StreamRule, place: &Place) {
        for upstream in rule.forward.iter().flat_map(|forward| &forward.upstreams) {
            let (name, transport) = (&upstream.name, &upstream.pool.shape().transport);
            if transport.tls.is_some() {
                let text = format!("the upstream \"{name}\" has tls, which is not spoken in datagrams");
                self.mistakes.add(place, text);
            }
            if transport.proxy.as_ref().is_some_and(|proxy| proxy.version == ProxyVersion::V1) {
                let text =
                    format!("the upstream \"{name}\" has proxy_protocol: v1, which is not for datagrams: use v2");
                self.mistakes.add(place, text);
            }
        }
    }

    /// Adds the entries of a rule to those of a listener, where it has that number among its rules.
    fn add_entries(&mut self, rule: usize, number: usize, own: &[usize], entries: &mut Vec<StreamEntry>) {
        let matches = &self.loaded.config.streams[rule].matches;
        let place = self.loaded.stream_place(rule);
        let names = match &matches.server_name {
            None => vec![HostPattern::Any],
            Some(names) => names.as_slice().iter().map(|name| name.0.clone()).collect(),
        };
        let predicates = StreamPredicates {
            clients: matches.client.iter().flat_map(OneOrMany::as_slice).map(|network| network.0).collect(),
            alpn: alpn(matches),
        };
        self.count += names.len();
        if self.count > MAX_ENTRIES {
            let text = format!("with this rule there are more than {MAX_ENTRIES} server names on all listeners");
            return self.mistakes.add(&place.key("match"), text);
        }
        for name in names {
            let same = |other: &&StreamEntry| other.name == name && other.predicates == predicates;
            if let Some(first) = entries.iter().find(same) {
                let text = format!("is never reached: {} matches the same", self.loaded.stream_place(own[first.rule]));
                self.mistakes.add(&place.key("match"), text);
                return;
            }
            entries.push(StreamEntry { name, predicates: predicates.clone(), rule: number });
        }
    }
}
