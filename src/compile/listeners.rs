//! `listeners`.

use std::net::SocketAddr;
use std::sync::Arc;

use ahash::AHashMap;

use crate::config::{self, Loaded, Protocol};
use crate::live::AcmeManager;
use crate::notation::{AdminAddress, Mistakes, Place, Rate};
use crate::rules::datagrams::TableLimits;
use crate::rules::limits::Gcra;
use crate::snapshot::{
    ConnectionLimits, DatagramLimits, HttpListener, Limits, Listener, ListenerSpec, ProxySources, Streams, TcpListener,
    Transport, UdpListener,
};

/// The most listeners of a configuration.
const MAX_LISTENERS: usize = 1_000;

/// The least memory for the streams of an HTTP/2 connection.
const MIN_HTTP2_MEMORY: u64 = 256 << 10;

/// Returns the listeners, with every error in them among `mistakes`.
pub fn compile(
    loaded: &Loaded,
    acme: Option<&AcmeManager>,
    mistakes: &mut Mistakes,
    warnings: &mut Mistakes,
) -> Vec<Listener> {
    let mut out = Vec::new();
    if loaded.config.listeners.len() > MAX_LISTENERS {
        let text =
            format!("{} listeners are too many: at most {MAX_LISTENERS} are allowed", loaded.config.listeners.len());
        mistakes.add(&Place::default().key("listeners"), text);
        return out;
    }
    let (mut names, mut taken_by) = (AHashMap::new(), Vec::<(Transport, SocketAddr)>::new());
    if loaded.config.listeners.is_empty() && !loaded.is_partial("listeners") {
        mistakes.add(&Place::default(), "the key \"listeners\" is missing: a list with at least one listener");
    }
    for (index, listener) in loaded.config.listeners.iter().enumerate() {
        let place = loaded.listener_place(index);
        if let Some(first) = names.insert(listener.name.0.clone(), index) {
            mistakes.add(
                &place.key("name"),
                format!("the name \"{}\" is taken by {}", listener.name.0, loaded.listener_place(first)),
            );
        }
        let compiled = one(loaded, acme, listener, &place, mistakes);
        let (transport, address) = (compiled.transport(), compiled.address);
        let is_taken = |(t, other): &(Transport, SocketAddr)| *t == transport && overlaps(*other, address);
        if let Some(first) = taken_by.iter().position(is_taken) {
            mistakes
                .add(&place.key("address"), address_taken(&loaded.listener_place(first), taken_by[first].1 != address));
        }
        taken_by.push((transport, address));
        if let AdminAddress::Tcp(admin) = loaded.config.admin.address.0
            && transport == Transport::Tcp
            && overlaps(address, admin)
        {
            mistakes.add(&Place::default().key("admin").key("address"), address_taken(&place, address != admin));
        }
        if let (Some(compiled), Some(tls)) = (compiled.tls(), &listener.tls) {
            super::listener_tls::warn(compiled, tls, &place.key("tls"), warnings);
        }
        out.push(compiled);
    }
    out
}

/// Returns whether the system would reject the second of two sockets: one for all addresses takes the port of each,
/// and `[::]` is for those of IPv4 too.
fn overlaps(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |all: SocketAddr, one: SocketAddr| all.ip().is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    one.port() != 0
        && one.port() == other.port()
        && (one.ip() == other.ip() || covers(one, other) || covers(other, one))
}

fn address_taken(by: &Place, all: bool) -> String {
    let why = if all { "; 0.0.0.0 is every address of IPv4, and [::] every address" } else { "" };
    format!("the address is taken by {by}{why}")
}

fn one(
    loaded: &Loaded,
    acme: Option<&AcmeManager>,
    listener: &config::ListenerConfig,
    place: &Place,
    mistakes: &mut Mistakes,
) -> Listener {
    let limits = &listener.limits;
    check_limits(listener, &place.key("limits"), mistakes);
    if listener.client_address.is_some() && listener.trusted_proxies.is_empty() {
        mistakes.add(&place.key("client_address"), "has no effect without trusted_proxies");
    }
    if listener.proxy_protocol.as_ref().is_some_and(|proxy| proxy.from.is_empty()) {
        mistakes.add(&place.key("proxy_protocol").key("from"), "expected at least one network or address");
    }
    check_hello_time(listener, place, mistakes);
    Listener {
        name: listener.name.0.clone(),
        address: listener.address.0,
        kind: match listener.kind {
            config::ListenerKind::Http => ListenerSpec::Http(http(loaded, acme, listener, place, mistakes)),
            config::ListenerKind::Tcp => {
                check_keys(listener, "tcp", place, mistakes);
                let tls = listener.tls.as_ref();
                ListenerSpec::Tcp(TcpListener {
                    tls: tls.map(|tls| {
                        super::listener_tls::compile(loaded, acme, tls, Vec::new(), &place.key("tls"), mistakes)
                    }),
                    header_time: limits.header_time.0,
                    hello_time: limits.hello_time.0.min(limits.header_time.0),
                    streams: Arc::new(Streams::default()),
                })
            }
            config::ListenerKind::Udp => {
                check_keys(listener, "udp", place, mistakes);
                ListenerSpec::Udp(UdpListener {
                    proxy_protocol: proxy_sources(listener),
                    limits: datagram_limits(limits),
                    streams: Arc::new(Streams::default()),
                })
            }
        },
        forwarded: listener.client_address == Some(config::ClientAddress::Forwarded),
        proxy_protocol: proxy_sources(listener),
        trusted_proxies: listener.trusted_proxies.iter().map(|n| n.0).collect(),
        errors: super::errors::compile(&listener.errors, &place.key("errors"), &Vec::new, mistakes),
        connections: ConnectionLimits {
            connections: limits.connections as usize,
            per_address: per_address(limits),
            new: limits.new_connections.as_ref().map(|rate| per_second(rate.0)),
            new_per_address: limits.new_connections_per_address.as_ref().map(|rate| per_second(rate.0)),
        },
    }
}

/// Notes limits that contradict each other, or have no effect on a listener of its kind.
fn check_limits(listener: &config::ListenerConfig, place: &Place, mistakes: &mut Mistakes) {
    let limits = &listener.limits;
    if limits.connections_per_address.is_some_and(|most| most > limits.connections) {
        let place = place.key("connections_per_address");
        mistakes.add(&place, format!("is over the {} connections that there may be in all", limits.connections));
    }
    let is_udp = listener.kind == config::ListenerKind::Udp;
    if limits.datagrams.is_some() && !is_udp {
        mistakes.add(&place.key("datagrams"), "has an effect only on a listener of kind udp");
    }
    if limits.new_connections_per_address.is_some() && is_udp {
        let text = "has no effect on a listener of kind udp: an address may be forged";
        mistakes.add(&place.key("new_connections_per_address"), text);
    }
    if limits.http2_memory.0 < MIN_HTTP2_MEMORY {
        mistakes.add(&place.key("http2_memory"), "expected at least 256KiB, which one stream may need");
    }
}

fn per_address(limits: &config::ListenerLimits) -> u32 {
    limits.connections_per_address.unwrap_or((limits.connections / 2).max(64))
}

fn proxy_sources(listener: &config::ListenerConfig) -> Option<ProxySources> {
    listener.proxy_protocol.as_ref().map(|proxy| ProxySources {
        from: proxy.from.iter().map(|n| n.0).collect(),
        only: proxy.others == config::OtherClients::Reject,
    })
}

fn datagram_limits(limits: &config::ListenerLimits) -> DatagramLimits {
    let gcra = |rate: Rate| Gcra::new(rate.count, rate.period, None);
    DatagramLimits {
        flows: TableLimits {
            flows: limits.connections,
            flows_per_client: per_address(limits),
            new_flows: limits.new_connections.as_ref().map(|rate| gcra(rate.0)),
        },
        datagrams: limits.datagrams.as_ref().map(|rate| gcra(rate.0)),
    }
}

/// Returns how many a rate is in a second; one with a longer period is at least 1.
fn per_second(rate: Rate) -> f64 {
    (f64::from(rate.count) / rate.period.as_secs_f64()).max(1.0)
}

/// Notes a time for the hello that has no effect.
fn check_hello_time(listener: &config::ListenerConfig, place: &Place, mistakes: &mut Mistakes) {
    let limits = &listener.limits;
    let text = match listener.kind {
        config::ListenerKind::Http => "has an effect only on a listener of kind tcp",
        config::ListenerKind::Tcp if limits.hello_time.0 >= limits.header_time.0 => "is not shorter than header_time",
        config::ListenerKind::Tcp | config::ListenerKind::Udp => return,
    };
    if limits.hello_time != config::ListenerLimits::default().hello_time {
        mistakes.add(&place.key("limits").key("hello_time"), text);
    }
}

/// Notes the keys that have no effect on a listener of that kind.
fn check_keys(listener: &config::ListenerConfig, kind: &str, place: &Place, mistakes: &mut Mistakes) {
    let is_udp = listener.kind == config::ListenerKind::Udp;
    let usual = config::ListenerLimits::default();
    let limits = config::ListenerLimits {
        connections: listener.limits.connections,
        connections_per_address: listener.limits.connections_per_address,
        new_connections: listener.limits.new_connections.clone(),
        new_connections_per_address: listener.limits.new_connections_per_address.clone(),
        datagrams: listener.limits.datagrams.clone(),
        header_time: if is_udp { usual.header_time.clone() } else { listener.limits.header_time.clone() },
        hello_time: if is_udp { usual.hello_time.clone() } else { listener.limits.hello_time.clone() },
        ..usual
    };
    let present = [
        ("protocols", listener.protocols.is_some()),
        ("trusted_proxies", !listener.trusted_proxies.is_empty()),
        ("client_address", listener.client_address.is_some()),
        ("filters", !listener.filters.is_empty()),
        ("errors", !listener.errors.is_empty()),
        ("tls", is_udp && listener.tls.is_some()),
    ];
    for (key, _) in present.into_iter().filter(|(_, is_present)| *is_present) {
        mistakes.add(&place.key(key), format!("has no effect on a listener of kind {kind}"));
    }
    if listener.limits != limits {
        let tcp = "those of connections, header_time and hello_time";
        let known = if is_udp { "those of connections, and datagrams," } else { tcp };
        mistakes.add(&place.key("limits"), format!("on a listener of kind {kind} only {known} have an effect"));
    }
}

fn http(
    loaded: &Loaded,
    acme: Option<&AcmeManager>,
    listener: &config::ListenerConfig,
    place: &Place,
    mistakes: &mut Mistakes,
) -> HttpListener {
    let (http1, http2) = match &listener.protocols {
        None => (true, listener.tls.is_some()),
        Some(list) => (list.contains(&Protocol::Http1), list.contains(&Protocol::Http2)),
    };
    if !http1 && !http2 {
        mistakes.add(&place.key("protocols"), "expected at least one of http1, http2");
    }
    let tls = listener.tls.as_ref().map(|tls| {
        let mut alpn = Vec::new();
        if http2 {
            alpn.push(b"h2".to_vec());
        }
        if http1 {
            alpn.push(b"http/1.1".to_vec());
        }
        super::listener_tls::compile(loaded, acme, tls, alpn, &place.key("tls"), mistakes)
    });
    let limits = &listener.limits;
    let limits = Limits {
        header_time: limits.header_time.0,
        headers: usize::try_from(limits.headers.0).unwrap_or(usize::MAX).min(1 << 20),
        header_count: limits.header_count as usize,
        query_parameters: limits.query_parameters as usize,
        body_rate: limits.body_rate.as_ref().map_or(0, |rate| rate.0),
        idle_time: limits.idle_time.0,
        body_idle_time: limits.body_idle_time.0,
        body: limits.body.0,
        requests_per_connection: (limits.requests_per_connection > 0).then_some(limits.requests_per_connection),
        streams: limits.streams,
        http2_memory: usize::try_from(limits.http2_memory.0).unwrap_or(usize::MAX),
    };
    HttpListener { http1, http2, tls, limits }
}
