//! One session at layer 4: a client's connection, joined to one of a target.

use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::dial::{dial, prepare};
use super::pump::{Pump, PumpCounts, PumpEnd, PumpLimits, Side};
use super::record::{Session, SessionEnd};
use super::side::SideStream;
use crate::edge::listeners::{StreamConnection, TcpService, handshake, note_failure};
use crate::exchange::{ConnectionFacts, Reason, TlsFacts};
use crate::rules::routing::StreamFacts;
use crate::snapshot::{StreamRule, StreamTls};
use crate::upstreams::{Caller, Class, TargetOutcome, Upstream, Visit};

/// How long a session may be silent where its rule does not say it.
const IDLE_TIME: Duration = Duration::from_secs(600);

/// A target that closes within this time before it has sent a byte, although the client has sent some, has failed: it
/// does not serve what accepts connections for it.
const EARLY_CLOSE_TIME: Duration = Duration::from_secs(1);

/// Serves a connection to its end.
pub async fn serve(connection: StreamConnection) {
    let StreamConnection { stream, client, proxy, listener_state, service, admitted } = connection;
    prepare(&stream);
    let facts = StreamFacts { client: client.ip(), server_name: None, alpn: &[] };
    let streams = service.streams();
    let place = streams.table.find(&facts);
    let rule = place.and_then(|place| streams.rules.get(place)).map(Arc::clone);
    let metrics = place.and_then(|place| streams.metrics(place, &listener_state.name.load())).map(Arc::clone);
    drop(streams);
    let mut session = Session::new(listener_state, client, rule, metrics);
    let accepted = match terminate(stream, &session, &service).await {
        Ok(Some((side, tls))) => {
            session.facts = ConnectionFacts { tls, proxy };
            side
        }
        Ok(None) => return,
        Err(error) => return note_failure(&error, client, &session.listener_state),
    };
    let end = run(accepted, &mut session, &service).await;
    // The session is over before it is in the log: whoever reads that finds the counters without it.
    session.visit.iter_mut().for_each(Visit::end);
    drop(admitted);
    session.finish(&end, &service.shared.serving.for_worker());
}

/// Ends TLS here, if the rule and the listener say so. Returns `None` where the connection is over with that.
async fn terminate(
    stream: TcpStream,
    session: &Session,
    service: &TcpService,
) -> std::io::Result<Option<(SideStream, Option<TlsFacts>)>> {
    let tls = match session.rule.as_deref() {
        None | Some(StreamRule { tls: Some(StreamTls::Pass), .. } | StreamRule { forward: None, .. }) => None,
        Some(_) => service.tls.present(),
    };
    let Some(tls) = tls else { return Ok(Some((stream.into(), None))) };
    let work = Box::pin(handshake(stream, &tls));
    match tokio::time::timeout(service.header_time(), work).await {
        Ok(Ok(done)) => Ok(done.map(|(stream, facts)| (SideStream::from(Box::new(stream)), Some(facts)))),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            crate::telemetry::metrics::METRICS.refused.with_label_values(&["tls_timeout"]).inc();
            Ok(None)
        }
    }
}

/// Joins a client to a target, until the session ends.
async fn run(client: SideStream, session: &mut Session, service: &TcpService) -> SessionEnd {
    let Some(rule) = session.rule.clone() else { return reject(&client, Reason::NoStreamRule) };
    let Some(forward) = &rule.forward else { return reject(&client, Reason::ClosedByRule) };
    let Some(upstream) = forward.choose() else { return reject(&client, Reason::NoHealthyTarget) };
    let connecting = Box::pin(connect(session, upstream));
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
async fn connect(session: &mut Session, upstream: &Arc<Upstream>) -> Result<(SideStream, Duration), SessionEnd> {
    let caller = Caller { address: Some(session.client.ip()), ..Caller::default() };
    let visit = session.visit.insert(Visit::new(Arc::clone(upstream), Class::Normal, None));
    loop {
        if let Err(rejection) = visit.next(&caller).await {
            return Err(SessionEnd { reason: rejection.reason, detail: rejection.log });
        }
        let Some(member) = visit.member().cloned() else { return Err(Reason::Internal.into()) };
        let begun = Instant::now();
        match dial(&member, visit.upstream()).await {
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
