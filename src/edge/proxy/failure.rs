//! Turns a failure into a reason, and then into a retry or a response.

use std::time::Instant;

use http::header::CONTENT_LENGTH;
use http::{Method, Version};
use pingora::http::ResponseHeader;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType, Result};

use super::{Context, Gateway};
use crate::edge::listeners::Pace;
use crate::exchange::{Reason, Rejection};
use crate::upstreams::{
    CLIENT_GONE, Failure, ResendConditions, Visit, error_text, exhausted, is_exhaustion, reason_of,
};

impl Gateway {
    /// Handles a connection that could not be made.
    pub(super) fn connect_failed(&self, ctx: &mut Context, mut error: Box<Error>) -> Box<Error> {
        if *error.etype() == CLIENT_GONE || ctx.downstream.is_gone() {
            return fail_client_gone(ctx, error);
        }
        if is_exhaustion(&error) {
            // No target is at fault, and another one would not help.
            ctx.rejection = Some(exhausted());
            error.set_retry(false);
            return error;
        }
        let again = ctx.visit.as_mut().is_some_and(|visit| visit.note_no_connection(Instant::now()));
        error.set_retry(again);
        error
    }

    /// Handles an exchange with the target that failed. It is retried only if no part of a response has been sent,
    /// the whole body can be sent again, and the method permits it (RFC 9110, section 9.2.2).
    pub(super) fn exchange_failed(&self, session: &Session, ctx: &mut Context, mut error: Box<Error>) -> Box<Error> {
        let replay = resend_conditions(session, ctx);
        let late = ctx.pace().is_some_and(Pace::is_late);
        let Some(visit) = &mut ctx.visit else { return error };
        if visit.take_discarded() {
            // A response that causes a retry: its conditions were checked when it came.
            error.set_retry(true);
            return error;
        }
        let again = visit.note_failure(Failure::of(&error, late), replay).filter(|_| ctx.rejection.is_none());
        if again.is_some() && ctx.downstream.is_gone() {
            return fail_client_gone(ctx, error);
        }
        error.set_retry(again.is_some_and(|how| visit.prepare_resend(how, Instant::now())));
        error
    }

    /// Returns whether the request is to be retried because of this response, and may be.
    pub(super) fn retry_response(&self, session: &Session, response: &ResponseHeader, ctx: &mut Context) -> bool {
        // Checked first, since few responses are.
        let wanted = ctx.visit.as_ref().is_some_and(|visit| visit.is_retried(response));
        let replay = if wanted { resend_conditions(session, ctx) } else { return false };
        ctx.visit.as_mut().is_some_and(|visit| visit.retry_response(replay, Instant::now()))
    }

    /// Sends the rest of a response whose target has sent all of it.
    async fn end_response(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        let mut rest = None;
        self.edit_body(&mut rest, true, ctx)?;
        session.write_response_body(rest, true).await
    }

    /// Responds to the client after a failure.
    pub(super) async fn respond_to_failure(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        // The request is no longer active at the target, however long the client takes for the rejection.
        ctx.leave_upstream();
        let rejection = match ctx.rejection.take() {
            Some(rejection) => rejection,
            None => {
                let late = *error.esource() == ErrorSource::Upstream && ctx.pace().is_some_and(Pace::is_late);
                let mut reason = if late { Reason::TargetTimeout } else { reason(error) };
                let from_client = *error.esource() == ErrorSource::Downstream;
                let fault = ctx
                    .downstream
                    .connection
                    .as_ref()
                    .filter(|_| from_client)
                    .and_then(|connection| connection.fault());
                if let Some(fault) = fault {
                    reason = fault.reason();
                }
                let over = ctx.deadline().is_some_and(|deadline| Instant::now() >= deadline);
                if over && matches!(reason, Reason::TargetTimeout | Reason::ConnectTimeout) {
                    reason = Reason::RouteTimeout;
                }
                let rejection = Rejection::new(reason, fault.map_or("", |fault| fault.text()));
                let who = match error.esource() {
                    ErrorSource::Downstream => "client: ".to_owned(),
                    _ => ctx.visit.as_ref().and_then(Visit::address).map(|a| format!("{a}: ")).unwrap_or_default(),
                };
                rejection.log(format!("{who}{}", error_text(error)))
            }
        };
        ctx.exchange.reason = rejection.reason;
        ctx.exchange.detail.clone_from(&rejection.log);
        let begun = session.response_written().is_some_and(|r| !r.status.is_informational());
        if begun && is_end(session, error) && self.end_response(session, ctx).await.is_ok() {
            ctx.exchange.reason = Reason::Forwarded;
            ctx.ending.ended_by_reset = true;
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        if begun || rejection.reason == Reason::ClientGone {
            // A response that has begun can only be broken off, so that the client knows it is not complete.
            if rejection.reason == Reason::ClientGone && !begun {
                ctx.status = Reason::ClientGone.status();
            }
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        let status = rejection.http_status();
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

/// Returns whether an error is the end of the response. An HTTP/2 target that has sent all of it may reset the stream
/// with NO_ERROR (RFC 9113, section 8.1); reading after that is an error to the `h2` crate, and to Pingora.
fn is_end(session: &Session, error: &Error) -> bool {
    let reset = error.root_cause().downcast_ref::<h2::Error>();
    let no_error = reset.is_some_and(|e| e.is_reset() && e.is_remote() && e.reason() == Some(h2::Reason::NO_ERROR));
    let length = session
        .response_written()
        .and_then(|head| head.headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse::<usize>().ok());
    no_error && length.is_none_or(|length| length == session.body_bytes_sent())
}

/// Ends a request whose client is gone.
fn fail_client_gone(ctx: &mut Context, mut error: Box<Error>) -> Box<Error> {
    ctx.rejection = Some(Rejection::new(Reason::ClientGone, ""));
    error.set_retry(false);
    error
}

/// Returns whether requests of this method may be sent again, although the first may have had an effect.
pub(super) fn is_method_repeatable(method: &Method, ctx: &Context) -> bool {
    let methods = ctx.forward().and_then(|f| f.retry_methods.as_ref());
    let is_repeatable = |method: &Method| match methods {
        Some(methods) => methods.contains(method) || (*method == Method::HEAD && methods.contains(&Method::GET)),
        None => method.is_idempotent(),
    };
    // A filter may have changed it for the target.
    is_repeatable(method) && ctx.exchange.edits.method().is_none_or(is_repeatable)
}

fn resend_conditions(session: &Session, ctx: &Context) -> ResendConditions {
    ResendConditions {
        // An interim response does not count (RFC 9110, section 15.2).
        unsent: session.response_written().is_none_or(|head| head.status.is_informational()),
        safe: is_method_repeatable(&session.req_header().method, ctx),
        possible: !session.retry_buffer_truncated(),
    }
}

/// Returns the reason behind an error.
fn reason(error: &Error) -> Reason {
    use ErrorType as E;
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, E::ReadTimedout) => Reason::ClientTimeout,
        (ErrorSource::Downstream, E::InvalidHTTPHeader | E::Custom("InvalidChunk")) => Reason::BadRequest,
        (ErrorSource::Downstream, _) => Reason::ClientGone,
        _ => reason_of(error),
    }
}
