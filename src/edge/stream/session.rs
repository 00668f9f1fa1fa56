//! One session at layer 4: a client's connection, joined to one of a target.

use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::Interest;

use super::dial::{dial, prepare};
use super::prelude::{Prelude, SessionClient};
use super::pump::{Pump, PumpCounts, PumpEnd, PumpLimits, Side};
use super::record::{Session, SessionEnd};
use super::side::SideStream;
use crate::edge::listeners::{ClientStream, Opening, StreamConnection, TcpService, Unopened, open_stream};
use crate::exchange::Reason;
use crate::snapshot::StreamRule;
use crate::upstreams::{Caller, Class, SocketOptions, TargetOutcome, Upstream, Visit};

/// How long a session may be silent where its rule does not say it.
const IDLE_TIME: Duration = Duration::from_secs(600);

/// A target that closes within this time before it has sent a byte, although the client has sent some, has failed: it
/// does not serve what accepts connections for it.
const EARLY_CLOSE_TIME: Duration = Duration::from_secs(1);

/// Serves a connection to its end.
pub async fn serve(connection: StreamConnection) {
    let StreamConnection { stream, client, proxy, listener_state, service, admitted } = connection;
    prepare(&stream, SocketOptions::default());
    let streams = service.streams();
    let (listener, proxy_facts) = (&listener_state, proxy.as_ref());
    let opening =
        Opening { client, proxy: proxy_facts, listener_state: listener, service: &service, streams: &streams };
    // A session idles in a task that is no larger than it has to be.
    let opening = Box::pin(open_stream(stream, &opening));
    let opened = tokio::select! {
        biased;
        opened = opening => opened,
        () = service.shared.drain.over() => return,
    };
    let (stream, place, requested, postgres) = match opened {
        Ok(opened) => (Some(opened.stream), Some(opened.place), opened.requested, opened.postgres),
        Err(Unopened::NoRule(requested)) => (None, None, requested, false),
        Err(Unopened::Ended) => return,
    };
    let rule = place.and_then(|place| streams.rules.get(place)).map(Arc::clone);
    let metrics = place.and_then(|place| streams.metrics(place, &listener_state.name.load())).map(Arc::clone);
    drop(streams);
    let about = SessionClient { address: client, tls: None, proxy, requested, postgres, id: None };
    let mut session = Session::new(listener_state, about, rule, metrics);
    let end = match stream {
        Some(ClientStream::Plain(stream)) => run(stream.into(), &mut session, &service).await,
        Some(ClientStream::Tls(stream, facts)) => {
            session.about.tls = Some(facts);
            run(stream.into(), &mut session, &service).await
        }
        None => Reason::NoStreamRule.into(),
    };
    // The session is over before it is in the log: whoever reads that finds the counters without it.
    session.visit.iter_mut().for_each(Visit::end);
    drop(admitted);
    session.finish(&end, &service.shared.serving.for_worker());
}

/// Joins a client to a target, until the session ends.
async fn run(client: SideStream, session: &mut Session, service: &TcpService) -> SessionEnd {
    let Some(rule) = session.rule.clone() else { return reject(&client, Reason::NoStreamRule) };
    let Some(forward) = &rule.forward else { return reject(&client, Reason::ClosedByRule) };
    let Some(upstream) = forward.choose() else { return reject(&client, Reason::NoHealthyTarget) };
    let connecting = Box::pin(connect(&client, session, upstream));
    let connected = tokio::select! {
        biased;
        connected = connecting => connected,
        _ = client.tcp().ready(Interest::ERROR) => Err(Reason::ClientReset.into()),
        () = service.shared.drain.over() => Err(Reason::Cut.into()),
    };
    let (target, took) = match connected {
        Ok(connected) => connected,
        Err(end) => {
            let _ = SockRef::from(client.tcp()).set_linger(Some(Duration::ZERO));
            return end;
        }
    };
    session.connected = Some(took);
    let mut pump = Pump::new(client, target, limits(&rule), Arc::clone(&session.counts));
    pump = pump.counted(session.metrics.clone());
    tokio::select! {
        biased;
        end = carry(&mut pump, &mut session.visit, &session.counts, took) => return end,
        () = service.shared.drain.over() => {}
    }
    pump.cut();
    Reason::Cut.into()
}

/// Resets a client that gets no session: an orderly end would look like one without bytes.
fn reject(client: &SideStream, reason: Reason) -> SessionEnd {
    let _ = SockRef::from(client.tcp()).set_linger(Some(Duration::ZERO));
    reason.into()
}

fn limits(rule: &StreamRule) -> PumpLimits {
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

/// Carries the bytes of a session, and reports on the target as soon as it is known to serve.
async fn carry(pump: &mut Pump, visit: &mut Option<Visit>, counts: &PumpCounts, connected: Duration) -> SessionEnd {
    let early = pump.run_to_first_byte(EARLY_CLOSE_TIME).await;
    let silent = counts.sent() == 0;
    let is_early = match early {
        Some(PumpEnd::Reset(Side::Target)) => silent,
        Some(PumpEnd::Finished(Side::Target)) => silent && counts.received() > 0,
        _ => false,
    };
    if let Some(visit) = visit {
        if is_early {
            visit.report(TargetOutcome::GatewayFailed);
        } else {
            visit.note_served(connected);
        }
    }
    let end = match early {
        Some(end) => end,
        None => pump.run().await,
    };
    match end {
        PumpEnd::Finished(_) if is_early => Reason::TargetClosedEarly,
        PumpEnd::Finished(_) => Reason::SessionEnded,
        PumpEnd::Reset(Side::Client) => Reason::ClientReset,
        PumpEnd::Reset(Side::Target) => Reason::TargetReset,
        PumpEnd::Idle => Reason::IdleTimeout,
        PumpEnd::HalfClosed => Reason::HalfClosedTimeout,
        PumpEnd::TotalTime => Reason::TotalTimeout,
    }
    .into()
}
