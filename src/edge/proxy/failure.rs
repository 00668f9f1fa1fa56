//! What failed becomes a reason, a second try or an answer.

use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderValue, RETRY_AFTER};
use http::{Method, Version};
use pingora::http::ResponseHeader;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::connect::CLIENT_GONE;
use super::pick::picked_address;
use super::waiting::is_client_gone;
use super::{Context, Gateway};
use crate::edge::listeners::Pace;
use crate::exchange::{Reason, Rejection};
use crate::rules::resilience::backoff;
use crate::upstreams::{Outcome, error_text, is_exhaustion};

impl Gateway {
    /// No connection: the request was never sent, so another target may have it at once, whatever it is.
    /// The target had no work by it, so that it is no matter of the budget.
    pub(super) fn connect_failed(&self, session: &mut Session, ctx: &mut Context, mut error: Box<Error>) -> Box<Error> {
        if *error.etype() == CLIENT_GONE || is_client_gone(session, ctx) {
            return gone(ctx, error);
        }
        if is_exhaustion(&error) {
            // No target is to blame, and another would be of no help.
            return exhausted(ctx, error);
        }
        report_failure(ctx, Outcome::GatewayFailed);
        let wanted = ctx.upstream().is_some_and(|u| u.retry.connect);
        let again = wanted
            && match exclude(ctx) {
                Next::Another => {
                    ctx.upstream().iter().for_each(|u| u.metrics().retries.inc());
                    true
                }
                // To the same one once more it is a retry as any other.
                Next::Same => begin_retry(ctx),
                Next::None => false,
            };
        error.set_retry(again);
        error
    }

    /// The exchange with the target failed. It is tried again only if nothing of an answer has been
    /// sent, the whole body can be sent again, and the method allows for it (RFC 9110, section 9.2.2).
    pub(super) fn exchange_failed(&self, session: &mut Session, ctx: &mut Context, mut error: Box<Error>, reused: bool) -> Box<Error> {
        if std::mem::take(&mut ctx.again) {
            // An answer that is tried again; all that allows for it was looked at when it came.
            error.set_retry(true);
            return error;
        }
        let from_target = *error.esource() == ErrorSource::Upstream;
        // An interim response is none (RFC 9110, section 15.2).
        let unanswered = session.response_written().is_none_or(|head| head.status.is_informational()) && ctx.answered.is_none();
        let late = ctx.pace().is_some_and(Pace::is_late);
        let timed_out = late || matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout);
        let unprocessed = is_unprocessed(&error);
        // A kept connection that is closed as a request is sent says nothing about its target: once, the
        // request is sent again over a new one.
        let repeatable = is_repeatable(session, ctx) || (unprocessed && !session.retry_buffer_truncated());
        let wanted = ctx.upstream().is_some_and(|u| match (unprocessed, timed_out) {
            (true, _) => u.retry.connect || u.retry.reset,
            (false, true) => u.retry.timeout,
            (false, false) => u.retry.reset,
        });
        let again = from_target && unanswered && wanted && repeatable && ctx.rejection.is_none();
        let left = ctx.upstream().is_some_and(|u| ctx.tries < u.retry.attempts);
        let stale = again && left && (unprocessed || (reused && !timed_out && !ctx.fresh && !is_stream_reset(&error)));
        if from_target && unanswered && !stale {
            report_failure(ctx, if timed_out { Outcome::TimedOut } else { Outcome::GatewayFailed });
        }
        if !again {
            error.set_retry(false);
            return error;
        }
        if is_client_gone(session, ctx) {
            return gone(ctx, error);
        }
        if stale {
            ctx.fresh = true;
            error.set_retry(true);
        } else {
            error.set_retry(exclude(ctx) != Next::None && begin_retry(ctx));
        }
        error
    }

    /// Whether this answer is one that another target may do better, and may be asked to.
    pub(super) fn retry_answer(&self, session: &Session, response: &ResponseHeader, ctx: &mut Context) -> bool {
        let wanted = is_retried_answer(response, ctx);
        // Not for the backup's sake: what the target has answered is an answer.
        ctx.again = wanted && is_repeatable(session, ctx) && exclude(ctx) != Next::None && begin_retry(ctx);
        ctx.again
    }

    /// Sends what is left of a response whose target has sent all.
    async fn end_response(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        let mut rest = None;
        self.edit_body(&mut rest, true, ctx)?;
        session.write_response_body(rest, true).await
    }

    /// Gives the answer for a failure.
    pub(super) async fn answer_failure(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        // The target has nothing to do with it any more, however long the client takes for the rejection.
        ctx.leave_upstream();
        let rejection = match ctx.rejection.take() {
            Some(rejection) => rejection,
            None => {
                let late = *error.esource() == ErrorSource::Upstream && ctx.pace().is_some_and(Pace::is_late);
                let mut reason = if late { Reason::TargetTimeout } else { reason(error) };
                let from_client = *error.esource() == ErrorSource::Downstream;
                let fault = ctx.connection.as_ref().filter(|_| from_client).and_then(|connection| connection.fault());
                if let Some(fault) = fault {
                    reason = fault.reason();
                }
                let over = ctx.deadline.is_some_and(|deadline| std::time::Instant::now() >= deadline);
                if over && matches!(reason, Reason::TargetTimeout | Reason::ConnectTimeout) {
                    reason = Reason::RouteTimeout;
                }
                let rejection = Rejection::new(reason, fault.map_or("", |fault| fault.text()));
                let who = match error.esource() {
                    ErrorSource::Downstream => "client: ".to_owned(),
                    _ => picked_address(ctx).map(|a| format!("{a}: ")).unwrap_or_default(),
                };
                rejection.log(format!("{who}{}", error_text(error)))
            }
        };
        ctx.exchange.reason = rejection.reason;
        ctx.exchange.detail.clone_from(&rejection.log);
        let begun = session.response_written().is_some_and(|r| !r.status.is_informational());
        if begun && is_end(session, error) && self.end_response(session, ctx).await.is_ok() {
            ctx.exchange.reason = Reason::Forwarded;
            ctx.ended_by_reset = true;
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        if begun || rejection.reason == Reason::ClientGone {
            // What has begun can only be broken off, so that the client knows it is not whole.
            if rejection.reason == Reason::ClientGone && !begun {
                ctx.status = Reason::ClientGone.status();
            }
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        let status = rejection.reason.status();
        let written = Box::pin(self.reject(session, &rejection, ctx)).await;
        let is_http2 = session.req_header().version == Version::HTTP_2;
        if is_http2 && written.is_ok() {
            // What the client still sends is read for a while: Pingora drops the stream as it is.
            let _ = Box::pin(session.as_mut().drain_request_body()).await;
        }
        let is_over = is_http2 || session.is_body_done();
        FailToProxy { error_code: status, can_reuse_downstream: written.is_ok() && is_over }
    }
}

/// Whether an error is the end of the response. HTTP/2 targets that have sent all of it may reset the stream with NO_ERROR
/// (RFC 9113, section 8.1); what is read after that is an error to the `h2` crate, and to Pingora.
fn is_end(session: &Session, error: &Error) -> bool {
    let reset = error.root_cause().downcast_ref::<h2::Error>();
    let no_error = reset.is_some_and(|e| e.is_reset() && e.is_remote() && e.reason() == Some(h2::Reason::NO_ERROR));
    let length = session.response_written().and_then(|head| head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse::<usize>().ok());
    no_error && length.is_none_or(|length| length == session.body_bytes_sent())
}

/// Whether the target has said that it has not processed the request, so that it may be sent again whatever it is: the
/// stream is beyond the last of a GOAWAY, or was refused (RFC 9113, sections 6.8 and 8.7).
fn is_unprocessed(error: &Error) -> bool {
    let by_target = error.root_cause().downcast_ref::<h2::Error>().filter(|cause| cause.is_remote());
    by_target.is_some_and(|cause| match cause.reason() {
        Some(h2::Reason::NO_ERROR) => cause.is_go_away(),
        Some(h2::Reason::REFUSED_STREAM) => cause.is_reset(),
        _ => false,
    })
}

/// Whether the target has ended this stream of HTTP/2 alone.
fn is_stream_reset(error: &Error) -> bool {
    error.root_cause().downcast_ref::<h2::Error>().is_some_and(|cause| cause.is_remote() && cause.is_reset())
}

/// There is nobody left to try anything for.
fn gone(ctx: &mut Context, mut error: Box<Error>) -> Box<Error> {
    ctx.rejection = Some(Rejection::new(Reason::ClientGone, ""));
    error.set_retry(false);
    error
}

/// The gateway has nothing left to connect with.
pub(super) fn exhausted(ctx: &mut Context, mut error: Box<Error>) -> Box<Error> {
    let detail = "no file descriptor or port is left for a connection to a target";
    ctx.rejection = Some(Rejection::new(Reason::Exhausted, "").header(RETRY_AFTER, HeaderValue::from(1)).log(detail));
    error.set_retry(false);
    error
}

/// Notes that the target failed.
pub(super) fn report_failure(ctx: &mut Context, outcome: Outcome) {
    if let (Some(upstream), Some(picked)) = (ctx.serving.upstream(ctx.upstream), &mut ctx.picked) {
        upstream.pool.report(picked, outcome, None);
    }
}

/// Whether this answer is one that the upstream's retries are for.
pub(super) fn is_retried_answer(response: &ResponseHeader, ctx: &Context) -> bool {
    let Some(upstream) = ctx.upstream() else { return false };
    let status = upstream.retry.statuses.as_ref().is_some_and(|s| s.contains(response.status.as_u16()));
    let grpc = || {
        let code = response.headers.get("grpc-status").and_then(|v| v.to_str().ok()?.parse::<u32>().ok());
        code.is_some_and(|code| upstream.retry.grpc_statuses.contains(&code))
    };
    status || (!upstream.retry.grpc_statuses.is_empty() && grpc())
}

/// Whether requests of this method may be sent a second time, although the first may have had an effect.
pub(super) fn is_method_repeatable(method: &Method, ctx: &Context) -> bool {
    match ctx.forward().and_then(|f| f.retry_methods.as_ref()) {
        Some(methods) => methods.contains(method) || (*method == Method::HEAD && methods.contains(&Method::GET)),
        None => method.is_idempotent(),
    }
}

fn is_repeatable(session: &Session, ctx: &Context) -> bool {
    is_method_repeatable(&session.req_header().method, ctx) && !session.retry_buffer_truncated()
}

/// Who is left to be asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A target that was not tried.
    Another,
    /// Only those that were tried.
    Same,
    /// Nobody, or no attempt is left.
    None,
}

/// Leaves the target out of further tries, for as long as another is left.
fn exclude(ctx: &mut Context) -> Next {
    ctx.tried.extend(picked_address(ctx));
    let Some(upstream) = ctx.serving.upstream(ctx.upstream) else { return Next::None };
    if ctx.tries >= upstream.retry.attempts {
        return Next::None;
    }
    // Asked of the members themselves: the one that failed may have been taken out meanwhile.
    let choice = upstream.pool.choice();
    if choice.members().any(|m| !ctx.tried.contains(&m.target.address)) || (upstream.backup.is_some() && ctx.answered.is_none()) {
        return Next::Another;
    }
    ctx.tried.clear();
    if choice.eligible > 0 { Next::Same } else { Next::None }
}

/// Begins a retry, if the budget has room for it, after a pause.
fn begin_retry(ctx: &mut Context) -> bool {
    let Some(upstream) = ctx.serving.upstream(ctx.upstream) else { return false };
    let allowed = upstream.pool.begin_retry();
    if allowed {
        upstream.metrics().retries.inc();
        let pause = backoff(ctx.tries, upstream.retry.backoff, upstream.retry.backoff_max, fastrand::u64(..));
        ctx.backoff = Some(Duration::from_nanos(pause));
    } else {
        upstream.metrics().retries_denied.inc();
    }
    allowed
}

/// The reason behind an error of Pingora's.
fn reason(error: &Error) -> Reason {
    use ErrorType as E;
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, E::ReadTimedout) => Reason::ClientTimeout,
        (ErrorSource::Downstream, E::InvalidHTTPHeader) => Reason::BadRequest,
        (ErrorSource::Downstream, E::Custom("InvalidChunk")) => Reason::BadRequest,
        (ErrorSource::Downstream, _) => Reason::ClientGone,
        (_, E::ConnectTimedout | E::TLSHandshakeTimedout) => Reason::ConnectTimeout,
        (_, E::ConnectRefused | E::ConnectNoRoute | E::ConnectError | E::BindError | E::SocketError) => Reason::ConnectRefused,
        (_, E::TLSHandshakeFailure | E::InvalidCert | E::HandshakeError | E::TLSWantX509Lookup) => Reason::TargetTls,
        (ErrorSource::Upstream, E::ReadTimedout | E::WriteTimedout) => Reason::TargetTimeout,
        (ErrorSource::Upstream, _) if is_stream_reset(error) || is_unprocessed(error) => Reason::TargetReset,
        (ErrorSource::Upstream, E::ConnectionClosed | E::ReadError | E::WriteError) => Reason::TargetReset,
        (ErrorSource::Upstream, _) => Reason::TargetProtocol,
        _ => Reason::Internal,
    }
}
