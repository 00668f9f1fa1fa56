//! One session at layer 4: a client's connection, joined to one of a target.

use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::Interest;

use super::dial::dial;
use super::moving::MovingSessions;
use super::prelude::{Prelude, SessionClient};
use super::pump::{Pump, PumpEnd, PumpLimits, Side};
use super::record::{Session, SessionEnd};
use super::side::SideStream;
use crate::edge::listeners::{Admitted, ClientStream, Opening, StreamConnection, TcpService, Unopened, open_stream};
use crate::exchange::Reason;
use crate::snapshot::StreamRule;
use crate::upstreams::{Caller, Class, TargetOutcome, Upstream, Visit};

/// How long a session may be silent where its rule does not say it.
const IDLE_TIME: Duration = Duration::from_secs(600);

/// A target that resets the connection within this time before it has sent a byte, or ends it before the client has
/// sent one, has failed: it does not serve what accepts connections for it. One that reads what the client sends and
/// ends the connection in order says nothing about itself: a client could have others believe that it has failed.
const EARLY_CLOSE_TIME: Duration = Duration::from_secs(1);

/// How long a session that is to move may hold bytes that one of its sides does not take: it stays then.
const HOLD_TIMEOUT: Duration = Duration::from_secs(1);

/// A session that has its target.
pub struct JoinedSession {
    /// What is counted and logged of it.
    pub session: Session,
    /// Its streams.
    pub pump: Pump,
    /// The settings of its listener.
    pub service: Arc<TcpService>,
    /// The count of its connection.
    pub admitted: Admitted,
    /// Whether it is known if the target serves.
    pub is_known: bool,
    /// Whether it may move to another process; else it waits until sessions are no longer to move.
    pub can_move: bool,
}

/// Serves a connection to its end, or until another process goes on with it.
pub fn serve(connection: StreamConnection, moving: Arc<MovingSessions>) -> impl Future<Output = ()> + Send + 'static {
    // A session idles in a task that is no larger than it has to be: what comes first needs far more.
    let opening = Box::pin(open(connection));
    async move {
        let Some(joined) = opening.await else { return };
        joined.go_on(&moving).await;
    }
}

/// Finds the rule of a connection and joins it to a target. Returns `None` where it has ended with that.
async fn open(connection: StreamConnection) -> Option<Box<JoinedSession>> {
    let StreamConnection { stream, client, proxy, listener_state, service, admitted } = connection;
    let streams = service.streams();
    let (listener, proxy_facts) = (&listener_state, proxy.as_ref());
    let opening =
        Opening { client, proxy: proxy_facts, listener_state: listener, service: &service, streams: &streams };
    let opened = tokio::select! {
        biased;
        opened = open_stream(stream, &opening) => opened,
        () = service.shared.drain.over() => return None,
    };
    let (stream, place, requested, postgres) = match opened {
        Ok(opened) => (Some(opened.stream), Some(opened.place), opened.requested, opened.postgres),
        Err(Unopened::NoRule(requested)) => (None, None, requested, false),
        Err(Unopened::Ended) => return None,
    };
    let rule = place.and_then(|place| streams.rules.get(place)).map(Arc::clone);
    let metrics = place.and_then(|place| streams.metrics(place, &listener_state.name.load())).map(Arc::clone);
    drop(streams);
    let about = SessionClient { address: client, tls: None, proxy, requested, postgres, id: None };
    let mut session = Session::new(listener_state, about, rule, metrics);
    let joined = match stream {
        Some(ClientStream::Plain(stream)) => join(stream.into(), &mut session, &service).await,
        Some(ClientStream::Tls(stream, facts)) => {
            session.about.tls = Some(facts);
            join(stream.into(), &mut session, &service).await
        }
        None => Err(Reason::NoStreamRule.into()),
    };
    match joined {
        Ok(pump) => {
            let (is_known, can_move) = (false, true);
            Some(Box::new(JoinedSession { session, pump, service, admitted, is_known, can_move }))
        }
        Err(end) => {
            finish(session, &end, &service, admitted);
            None
        }
    }
}

/// Counts and logs a session. It is over before it is in the log: whoever reads that finds the counters without it.
fn finish(mut session: Session, end: &SessionEnd, service: &TcpService, admitted: Admitted) {
    session.visit.iter_mut().for_each(Visit::end);
    drop(admitted);
    session.finish(end, &service.shared.serving.for_worker());
}

/// Joins a client to a target.
async fn join(client: SideStream, session: &mut Session, service: &TcpService) -> Result<Pump, SessionEnd> {
    let Some(rule) = session.rule.clone() else { return Err(reject(&client, Reason::NoStreamRule)) };
    let Some(forward) = &rule.forward else { return Err(reject(&client, Reason::ClosedByRule)) };
    let Some(upstream) = forward.choose() else { return Err(reject(&client, Reason::NoHealthyTarget)) };
    let connected = tokio::select! {
        biased;
        connected = connect(&client, session, upstream) => connected,
        _ = client.tcp().ready(Interest::ERROR) => Err(Reason::ClientReset.into()),
        () = service.shared.drain.over() => Err(Reason::Cut.into()),
    };
    match connected {
        Ok((target, took)) => {
            session.connected = Some(took);
            let pump = Pump::new(client, target, limits(&rule), Arc::clone(&session.counts));
            Ok(pump.counted(session.metrics.clone()))
        }
        Err(end) => {
            let _ = SockRef::from(client.tcp()).set_linger(Some(Duration::ZERO));
            Err(end)
        }
    }
}

/// Resets a client that gets no session: an orderly end would look like one without bytes.
fn reject(client: &SideStream, reason: Reason) -> SessionEnd {
    let _ = SockRef::from(client.tcp()).set_linger(Some(Duration::ZERO));
    reason.into()
}

/// Returns the limits of a session of a rule.
pub fn limits(rule: &StreamRule) -> PumpLimits {
    let idle = rule.times.idle.unwrap_or(IDLE_TIME);
    PumpLimits { idle: Some(idle), half_closed: rule.times.half_closed, total: rule.times.total, rates: rule.rate }
}

/// Connects to a target of the upstream: to another one where that fails, as far as the upstream's rules for retries
/// permit it. Returns how long the last connection took.
async fn connect(
    client: &SideStream,
    session: &mut Session,
    upstream: &Arc<Upstream>,
) -> Result<(SideStream, Duration), SessionEnd> {
    let caller = Caller { address: Some(session.about.address.ip()), ..Caller::default() };
    let visit = session.visit.insert(Visit::new(Arc::clone(upstream), Class::Normal, None));
    loop {
        if let Err(rejection) = visit.next(&caller).await {
            return Err(SessionEnd { reason: rejection.reason, detail: rejection.log });
        }
        let Some(member) = visit.member().cloned() else { return Err(Reason::Internal.into()) };
        session.about.identify(&member);
        let prelude = Prelude::new(&member, client, &session.about);
        let begun = Instant::now();
        match dial(&member, visit.upstream(), &prelude).await {
            Ok(stream) => {
                visit.note_connection(false);
                return Ok((stream, begun.elapsed()));
            }
            Err(error) => {
                session.metrics.iter().for_each(|metrics| metrics.count_connect_failure(error.reason));
                // What the gateway lacks, it lacks for every target.
                if error.is_own || !visit.note_no_connection(Instant::now()) {
                    let detail = format!("{}: {}", member.target.label, error.detail);
                    return Err(SessionEnd { reason: error.reason, detail: Some(detail) });
                }
            }
        }
    }
}

impl JoinedSession {
    /// Goes on to the end of the session, or until another process goes on with it.
    pub async fn go_on(mut self: Box<Self>, moving: &Arc<MovingSessions>) {
        match self.carry(moving).await {
            Some(end) => self.finish(&end),
            None => moving.offer(self),
        }
    }

    /// Carries the bytes of the session to its end, which is that of the drain at the latest; `None` where it is held
    /// to move.
    async fn carry(&mut self, moving: &MovingSessions) -> Option<SessionEnd> {
        let drain = Arc::clone(&self.service.shared.drain);
        if !self.is_known {
            let early = tokio::select! {
                biased;
                early = Box::pin(self.pump.run_to_first_byte(EARLY_CLOSE_TIME)) => early,
                () = drain.over() => return Some(self.cut()),
            };
            let is_early = self.report(early);
            self.is_known = true;
            if let Some(end) = early {
                return Some(self.ended(end, is_early));
            }
        }
        loop {
            tokio::select! {
                biased;
                end = self.pump.run() => return Some(self.ended(end, false)),
                () = drain.over() => return Some(self.cut()),
                () = moving.reach(self.can_move), if self.pump.is_plain() => {}
            }
            // What has stayed in one hand-over may move in another.
            self.can_move = !self.can_move;
            if !self.can_move && Box::pin(self.pump.hold(HOLD_TIMEOUT)).await {
                return None;
            }
            self.pump.release();
        }
    }

    /// Reports on the target, as soon as it is known whether it serves. Returns whether it has closed without that.
    fn report(&mut self, early: Option<PumpEnd>) -> bool {
        let counts = &self.session.counts;
        let is_early = counts.sent() == 0
            && match early {
                Some(PumpEnd::Reset(Side::Target)) => true,
                Some(PumpEnd::Finished(Side::Target)) => counts.received() == 0,
                _ => false,
            };
        let connected = self.session.connected.unwrap_or_default();
        match &mut self.session.visit {
            Some(visit) if is_early => visit.report(TargetOutcome::GatewayFailed),
            Some(visit) => visit.note_served(connected),
            None => {}
        }
        is_early
    }

    /// Returns how the session has ended. Where a direction was not over, an orderly end would look like that of all
    /// bytes.
    fn ended(&self, end: PumpEnd, is_early: bool) -> SessionEnd {
        if matches!(end, PumpEnd::HalfClosed | PumpEnd::TotalTime) {
            self.pump.cut();
        }
        reason_of(end, is_early).into()
    }

    fn cut(&self) -> SessionEnd {
        self.pump.cut();
        Reason::Cut.into()
    }

    fn finish(self: Box<Self>, end: &SessionEnd) {
        let Self { session, pump, service, admitted, .. } = *self;
        // The connections are closed first.
        drop(pump);
        finish(session, end, &service, admitted);
    }
}

fn reason_of(end: PumpEnd, is_early: bool) -> Reason {
    match end {
        PumpEnd::Finished(_) if is_early => Reason::TargetClosedEarly,
        PumpEnd::Finished(_) => Reason::SessionEnded,
        PumpEnd::Reset(Side::Client) => Reason::ClientReset,
        PumpEnd::Reset(Side::Target) => Reason::TargetReset,
        PumpEnd::Idle => Reason::IdleTimeout,
        PumpEnd::HalfClosed => Reason::HalfClosedTimeout,
        PumpEnd::TotalTime => Reason::TotalTimeout,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_is_small() {
        fn size<F>(_: impl Fn(StreamConnection) -> F) -> usize {
            size_of::<F>()
        }
        let moving = Arc::default();
        let (task, joined) = (size(|connection| serve(connection, Arc::clone(&moving))), size_of::<JoinedSession>());
        assert!(task + joined <= 2_048, "{task} bytes of a task, {joined} of a session");
    }
}
