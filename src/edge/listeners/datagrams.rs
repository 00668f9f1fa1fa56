//! A listener for datagrams as its service sees it: the socket, the settings, and what is to be done with both.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pingora::server::ShutdownWatch;
use tokio::sync::watch;

use super::accept_state::AcceptState;
use super::connection::{Connections, ListenerState};
use super::datagram_socket::DatagramSocket;
use super::drain::Drain;
use crate::snapshot::{Current, UdpListener};

/// The service for the datagrams of a listener of kind `udp`.
pub struct UdpService {
    /// There are none.
    pub connections: Connections,
    settings: watch::Sender<Arc<UdpListener>>,
}

impl UdpService {
    /// Returns the service of a listener.
    pub fn new(listener: &UdpListener) -> Self {
        Self { connections: Connections::default(), settings: watch::Sender::new(Arc::new(listener.clone())) }
    }

    /// Applies a new configuration.
    pub fn update(&self, listener: &UdpListener) {
        self.settings.send_replace(Arc::new(listener.clone()));
    }

    /// Returns the settings, and their changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<UdpListener>> {
        self.settings.subscribe()
    }
}

/// What is done with the datagrams of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramPhase {
    /// All are served.
    Serve,
    /// Those of present flows are served; others are dropped.
    Drain,
    /// None is read: they are for another process that has the socket too. Responses go on.
    Leave,
    /// All flows end: no configuration has the listener any more.
    End,
}

/// The socket of a listener for datagrams, with its settings.
pub struct Datagrams {
    /// The socket.
    pub socket: DatagramSocket,
    /// Its listener.
    pub listener_state: Arc<ListenerState>,
    /// The current configuration.
    pub serving: Arc<Current>,
    /// The count of what is active.
    pub drain: Arc<Drain>,
    /// What is to be done.
    pub control: DatagramControl,
}

/// What is to be done with the datagrams of a listener, and by which settings.
pub struct DatagramControl {
    settings: watch::Receiver<Arc<UdpListener>>,
    listener_state: Arc<ListenerState>,
    state: watch::Receiver<AcceptState>,
    closing: ShutdownWatch,
    is_shared: Arc<AtomicBool>,
}

impl Datagrams {
    /// Returns the socket of a listener: `state` says whether it accepts, `closing` whether it ends, and `is_shared`
    /// whether another process has the socket too.
    pub fn new(
        socket: DatagramSocket,
        listener_state: Arc<ListenerState>,
        service: &UdpService,
        (serving, drain): (Arc<Current>, Arc<Drain>),
        (state, closing, is_shared): (watch::Receiver<AcceptState>, ShutdownWatch, Arc<AtomicBool>),
    ) -> Self {
        let (settings, known) = (service.subscribe(), Arc::clone(&listener_state));
        let control = DatagramControl { settings, listener_state: known, state, closing, is_shared };
        Self { socket, listener_state, serving, drain, control }
    }
}

impl DatagramControl {
    /// Returns the present settings.
    pub fn settings(&mut self) -> Arc<UdpListener> {
        Arc::clone(&self.settings.borrow_and_update())
    }

    /// Returns what is to be done now.
    pub fn phase(&self) -> DatagramPhase {
        let is_closing = *self.closing.borrow();
        match *self.state.borrow() {
            AcceptState::Accept => DatagramPhase::Serve,
            AcceptState::Pause if is_closing && !self.is_shared.load(Ordering::Acquire) => DatagramPhase::Drain,
            AcceptState::Stop if self.listener_state.last.load().is_some() => DatagramPhase::End,
            AcceptState::Stop => DatagramPhase::Drain,
            AcceptState::Pause | AcceptState::Leave => DatagramPhase::Leave,
        }
    }

    /// Returns whether the listener closes: it is over with its last flow, if that is not taken back.
    pub fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Returns whether the listener has ended, so that it is over with its last flow.
    pub fn has_ended(&self) -> bool {
        matches!(*self.state.borrow(), AcceptState::Stop | AcceptState::Leave)
    }

    /// Waits for a change of the phase, or of the settings; returns whether it was of the settings.
    pub async fn changed(&mut self) -> bool {
        // Where the senders are gone the last state counts for ever.
        tokio::select! {
            Ok(()) = self.settings.changed() => true,
            Ok(()) = self.state.changed() => false,
            Ok(()) = self.closing.changed() => false,
            else => std::future::pending().await,
        }
    }
}

/// Returns whether each datagram of that address begins with a PROXY header; `None` if none is accepted from it.
pub fn has_proxy_header(listener: &UdpListener, peer: IpAddr) -> Option<bool> {
    let Some(proxies) = &listener.proxy_protocol else { return Some(false) };
    let peer = peer.to_canonical();
    if proxies.from.iter().any(|net| net.contains(&peer)) { Some(true) } else { (!proxies.only).then_some(false) }
}
