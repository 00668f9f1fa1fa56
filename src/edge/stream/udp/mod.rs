//! Datagrams: flows of them between clients and targets.
//!
//! A listener has one socket and one task, which holds its table of flows: nothing of a flow is locked, the datagrams
//! of a client keep their order, and a hand-over has one socket to pass on. A socket for each client would cost more,
//! and takes datagrams of others between bind(2) and connect(2). The work of a turn is bounded, for the listener as for
//! each flow, so that a flow that floods does not starve others.

mod ends;
mod flow;
mod moving;
mod requests;
mod responses;
mod sockets;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::flow::ClientFlow;
use self::moving::FlowRequest;
pub use self::moving::MovingFlows;
use self::sockets::{MAX_READY, RetiredSockets, WatchedSockets};
use crate::edge::listeners::{
    DatagramControl, DatagramPhase, DatagramSocket, Datagrams, Drain, ListenerState, MAX_DATAGRAM,
};
use crate::exchange::{Reason, clock};
use crate::rules::datagrams::{Flow, FlowId, FlowTable};
use crate::snapshot::{Current, UdpListener};
use crate::telemetry::DatagramMetrics;
use crate::telemetry::metrics::METRICS;

/// How often it is checked which flows are over.
const CHECK_INTERVAL: Duration = Duration::from_millis(67);

/// How often it is checked which flows of a listener that ends are quiet.
const QUIET_INTERVAL: Duration = Duration::from_secs(1);

/// The most flows that are looked at in one check.
const MAX_CHECKED: usize = 4_096;

/// The most datagrams of clients that are read in a turn.
const MAX_REQUESTS: usize = 64;

/// The most rounds over the sockets to targets in a turn.
const MAX_ROUNDS: usize = 4;

thread_local! {
    /// The buffer for a datagram, which no turn keeps.
    static BUFFER: std::cell::RefCell<Box<[u8]>> = std::cell::RefCell::new(vec![0; MAX_DATAGRAM].into());
}

/// The service of one listener.
struct UdpServer {
    socket: DatagramSocket,
    listener_state: Arc<ListenerState>,
    serving: Arc<Current>,
    drain: Arc<Drain>,
    settings: Arc<UdpListener>,
    table: FlowTable<Box<ClientFlow>>,
    sockets: WatchedSockets,
    retired: RetiredSockets,
    /// The flows of which a socket can be read.
    ready: Vec<FlowId>,
    /// The state of the rate of datagrams.
    arrived: u64,
    metrics: Arc<DatagramMetrics>,
    phase: DatagramPhase,
    /// The flows that another process is about to go on with.
    aside: Vec<Flow<Box<ClientFlow>>>,
}

/// Serves the datagrams of a listener to its end.
pub async fn serve(datagrams: Datagrams, moving: &MovingFlows) {
    let name = datagrams.listener_state.name.load_full();
    match WatchedSockets::new() {
        Ok(sockets) => {
            let (mut server, control) = UdpServer::new(datagrams, sockets);
            server.inherit(moving);
            server.run(control, moving.register()).await;
        }
        Err(error) => log::error!("listener {name} cannot serve: {error}"),
    }
}

impl UdpServer {
    fn new(datagrams: Datagrams, sockets: WatchedSockets) -> (Self, DatagramControl) {
        let Datagrams { socket, listener_state, serving, drain, mut control } = datagrams;
        let settings = control.settings();
        let metrics = METRICS.datagrams(&listener_state.name.load());
        let table = FlowTable::new(settings.limits.flows, clock::now());
        let server = Self {
            socket,
            listener_state,
            serving,
            drain,
            settings,
            table,
            sockets,
            retired: RetiredSockets::default(),
            ready: Vec::new(),
            arrived: 0,
            metrics,
            phase: control.phase(),
            aside: Vec::new(),
        };
        (server, control)
    }

    async fn run(mut self, mut control: DatagramControl, mut requests: UnboundedReceiver<FlowRequest>) {
        let mut check = interval(CHECK_INTERVAL);
        check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut quiet_checked = None;
        while !self.is_over(&control) {
            let changed = tokio::select! {
                biased;
                settings = control.changed() => settings,
                // Where the process goes on after all, nobody waits for them any more.
                Some(request) = requests.recv() => {
                    if control.phase() == DatagramPhase::Leave && !request.is_closed() {
                        self.hand_over(request).await;
                    }
                    false
                }
                now = check.tick() => {
                    self.check(control.is_closing().then_some(&mut quiet_checked), now);
                    false
                }
                // Its work is bounded here, and not by the runtime.
                _ = tokio::task::unconstrained(std::future::poll_fn(|context| self.turn(context))) => false,
            };
            if changed {
                self.apply_settings(control.settings());
            }
            self.phase = control.phase();
            if self.phase != DatagramPhase::Leave && !self.aside.is_empty() {
                self.take_back();
            }
        }
        self.leave_aside();
        let is_removed = self.phase == DatagramPhase::End;
        self.end_all(if is_removed { Reason::RuleRemoved } else { Reason::Cut });
    }

    /// Returns whether the listener is over: it is removed, or has ended and has no flow any more.
    fn is_over(&self, control: &DatagramControl) -> bool {
        let has_ended = control.has_ended() && (self.drain.is_over() || self.table.len() == 0);
        self.phase == DatagramPhase::End || has_ended
    }

    /// Does the work that is there, up to a bound, and waits for more.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<Infallible> {
        let now = clock::now();
        BUFFER.with_borrow_mut(|buffer| {
            let more = [self.take_responses(context, buffer, now), self.take_requests(context, buffer, now)];
            if more.contains(&true) {
                context.waker().wake_by_ref();
            }
        });
        Poll::Pending
    }

    /// Relays datagrams of targets. Returns whether there may be more.
    fn take_responses(&mut self, context: &mut Context<'_>, buffer: &mut [u8], now: u64) -> bool {
        for round in 0..MAX_ROUNDS {
            let mut ready = std::mem::take(&mut self.ready);
            ready.clear();
            let polled = self.sockets.poll_ready(context, &mut ready);
            // Most sockets have one datagram: a second look costs as much as a second read.
            let most = if round == 0 { 1 } else { MAX_READY / MAX_ROUNDS };
            ready.iter().for_each(|id| self.relay(*id, buffer, most, now));
            self.ready = ready;
            match polled {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => {
                    log::error!("the sockets to targets cannot be watched: {error}");
                    return false;
                }
            }
        }
        true
    }

    /// Forwards datagrams of clients. Returns whether there may be more.
    fn take_requests(&mut self, context: &mut Context<'_>, buffer: &mut [u8], now: u64) -> bool {
        if !matches!(self.phase, DatagramPhase::Serve | DatagramPhase::Drain) {
            return false;
        }
        for _ in 0..MAX_REQUESTS {
            loop {
                let Poll::Ready(Ok(())) = self.socket.poll_readable(context) else { return false };
                match self.socket.try_receive(buffer) {
                    Ok(received) => break self.forward(&received, buffer, now),
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    // The error of an earlier datagram to a client, which has been taken with this.
                    Err(_) => break,
                }
            }
        }
        true
    }

    /// Ends what is over, and what is quiet where the listener ends; `quiet_checked` is when that was done last.
    fn check(&mut self, quiet_checked: Option<&mut Option<Instant>>, now: Instant) {
        self.end_over(clock::now(), MAX_CHECKED);
        self.retired.close_over(clock::now());
        if let Some(last) = quiet_checked
            && last.is_none_or(|last| now - last >= QUIET_INTERVAL)
        {
            *last = Some(now);
            self.end_quiet(clock::now());
        }
    }
}
