//! `listeners`.

use std::net::SocketAddr;
use std::sync::Arc;

use ahash::AHashMap;
use rustls::sign::CertifiedKey;

use crate::config::{self, Loaded, Protocol, TlsVersion};
use crate::notation::{Mistakes, Place};
use crate::snapshot::{Limits, Listener};
use crate::tls::{ServerSettings, chain_and_key};

pub fn compile(loaded: &Loaded, mistakes: &mut Mistakes) -> Vec<Listener> {
    let mut out = Vec::new();
    let (mut names, mut addresses) = (AHashMap::new(), Vec::new());
    if loaded.config.listeners.is_empty() && !loaded.is_partial("listeners") {
        mistakes.add(&Place::default(), "the key \"listeners\" is missing: a list with at least one listener");
    }
    for (index, listener) in loaded.config.listeners.iter().enumerate() {
        let place = loaded.listener_place(index);
        if let Some(first) = names.insert(listener.name.0.clone(), index) {
            mistakes.add(&place.key("name"), format!("the name \"{}\" is taken by listeners[{first}]", listener.name.0));
        }
        let address = listener.address.0;
        if let Some(first) = addresses.iter().position(|other| overlap(*other, address)) {
            mistakes.add(&place.key("address"), format!("the address is taken by listeners[{first}]"));
        }
        addresses.push(address);
        if overlap(address, loaded.config.admin.address.0) {
            mistakes.add(&Place::default().key("admin").key("address"), format!("the address is taken by listeners[{index}]"));
        }
        out.push(one(loaded, listener, &place, mistakes));
    }
    out
}

/// Whether the system would refuse the second of two sockets: one for all addresses takes the port of each.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let same_kind = one.is_ipv4() == other.is_ipv4();
    let all = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (one.ip() == other.ip() || (all && same_kind))
}

fn one(loaded: &Loaded, listener: &config::Listener, place: &Place, mistakes: &mut Mistakes) -> Listener {
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
        let settings = ServerSettings { only_13: tls.min_version == TlsVersion::V13, alpn };
        (settings, certificates(loaded, tls, &place.key("tls").key("certificates"), mistakes))
    });
    let limits = &listener.limits;
    Listener {
        name: listener.name.0.clone(),
        address: listener.address.0,
        http1,
        http2,
        tls,
        trusted_proxies: listener.trusted_proxies.iter().map(|n| n.0).collect(),
        limits: Limits {
            connections: limits.connections as usize,
            header_time: limits.header_time.0,
            headers: usize::try_from(limits.headers.0).unwrap_or(usize::MAX).min(1 << 20),
            idle_time: limits.idle_time.0,
            body_idle_time: limits.body_idle_time.0,
            body: limits.body.0,
            requests_per_connection: (limits.requests_per_connection > 0).then_some(limits.requests_per_connection),
            streams: limits.streams,
        },
    }
}

fn certificates(loaded: &Loaded, tls: &config::Tls, place: &Place, mistakes: &mut Mistakes) -> Vec<Arc<CertifiedKey>> {
    if tls.certificates.is_empty() {
        mistakes.add(place, "expected at least one certificate");
    }
    let read = |(index, certificate): (usize, &config::Certificate)| {
        let pair = chain_and_key(&loaded.base.join(&certificate.cert), &loaded.base.join(&certificate.key));
        mistakes.take(&place.index(index), pair)
    };
    tls.certificates.iter().enumerate().filter_map(read).collect()
}
