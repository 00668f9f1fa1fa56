//! The settings of an accept loop, most of which a reload may change.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;
use ipnet::IpNet;
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use tokio::sync::Semaphore;

use super::arrivals::Arrivals;
use super::connection::ListenerState;
use super::drain::DrainGuard;
use super::evict::{AddressCounts, AddressPlace};
use super::service::{ListenerContext, Service};
use crate::snapshot::{ConnectionLimits, Listener, ProxySources};

/// The present settings of a listener.
pub struct Settings {
    /// The facts that connections know of it.
    pub listener_state: Arc<ListenerState>,
    /// The service for its connections.
    pub service: Service,
    /// A place for each connection; resized with the limit.
    pub places: Arc<Semaphore>,
    most: AtomicUsize,
    per_address: AtomicU32,
    arrivals: Arrivals,
    limits: ArcSwap<ConnectionLimits>,
    /// The addresses whose connections are not counted, and the counts of the others.
    trusted: ArcSwap<Vec<IpNet>>,
    addresses: Arc<AddressCounts>,
    proxies: ArcSwapOption<ProxySources>,
    /// Held from the end of the listener until the last connection of its queue is served: a drain must not end in
    /// between.
    pub stopping: Mutex<Option<DrainGuard>>,
}

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// What the client sends.
    Client,
    /// A PROXY header.
    ProxyHeader,
    /// Nothing: it is closed.
    Rejected,
}

/// The error that there are as many connections as there may be.
#[derive(Clone, Copy, Debug)]
pub enum TooMany {
    /// The address has too many that are open.
    Open,
    /// Too many are new, of the address or in all.
    New,
}

impl TooMany {
    /// Returns the word for it in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Open => "address",
            Self::New => "rate",
        }
    }
}

impl Settings {
    /// Returns the settings of a listener that is about to start on that port; `shutdown` says whether it closes.
    pub fn new(listener: &Listener, port: u16, shared: ListenerContext, shutdown: ShutdownWatch) -> Self {
        let settings = Self {
            listener_state: Arc::new(ListenerState {
                key: listener.key(),
                name: ArcSwap::from_pointee(listener.name.clone()),
                ip: listener.address.ip(),
                port,
                port_text: HeaderValue::from(port),
                last: ArcSwapOption::empty(),
                closing: AtomicBool::new(false),
            }),
            service: Service::new(&listener.kind, &listener.name, shared, shutdown),
            places: Arc::new(Semaphore::new(listener.connections.connections)),
            most: AtomicUsize::new(listener.connections.connections),
            per_address: AtomicU32::default(),
            arrivals: Arrivals::default(),
            limits: ArcSwap::from_pointee(listener.connections),
            trusted: ArcSwap::default(),
            addresses: Arc::default(),
            proxies: ArcSwapOption::empty(),
            stopping: Mutex::default(),
        };
        settings.take(listener);
        settings
    }

    /// Applies a new configuration.
    pub fn update(&self, listener: &Listener) {
        self.take(listener);
        self.service.update(&listener.kind, &listener.name);
    }

    fn take(&self, listener: &Listener) {
        self.listener_state.name.store(Arc::new(listener.name.clone()));
        self.resize(listener.connections.connections);
        self.per_address.store(listener.connections.per_address, Ordering::Relaxed);
        self.limits.store(Arc::new(listener.connections));
        self.trusted.store(Arc::new(listener.trusted_proxies.clone()));
        self.proxies.store(listener.proxy_protocol.clone().map(Arc::new));
    }

    /// Changes the limit of connections. A lower one applies as connections end: none is cut.
    fn resize(&self, most: usize) {
        let before = self.most.swap(most, Ordering::AcqRel);
        if most >= before {
            return self.places.add_permits(most - before);
        }
        let mut surplus = before - most;
        surplus -= self.places.forget_permits(surplus);
        let places = Arc::clone(&self.places);
        tokio::spawn(async move {
            for _ in 0..surplus {
                let Ok(place) = places.acquire().await else { return };
                place.forget();
            }
        });
    }

    /// Returns what a connection of that address begins with.
    pub fn beginning(&self, address: IpAddr) -> Beginning {
        let proxies = self.proxies.load();
        let Some(proxies) = proxies.as_deref() else { return Beginning::Client };
        let address = address.to_canonical();
        if proxies.from.iter().any(|net| net.contains(&address)) {
            Beginning::ProxyHeader
        } else if proxies.only {
            Beginning::Rejected
        } else {
            Beginning::Client
        }
    }

    /// Counts a connection of that address that another process has accepted, whatever the limits.
    pub fn adopt_address(&self, address: IpAddr) -> Option<AddressPlace> {
        let canonical = address.to_canonical();
        let is_trusted = self.trusted.load().iter().any(|net| net.contains(&canonical));
        if is_trusted { None } else { self.addresses.count(address, u32::MAX) }
    }

    /// Counts a connection of that address, unless proxies are trusted there: behind one are many clients.
    pub fn count_address(&self, address: IpAddr) -> Result<Option<AddressPlace>, TooMany> {
        let canonical = address.to_canonical();
        let is_trusted = self.trusted.load().iter().any(|net| net.contains(&canonical));
        if self.arrivals.is_too_many(&self.limits.load(), address, !is_trusted) {
            return Err(TooMany::New);
        }
        if is_trusted {
            return Ok(None);
        }
        self.addresses.count(address, self.per_address.load(Ordering::Relaxed)).map(Some).ok_or(TooMany::Open)
    }
}
