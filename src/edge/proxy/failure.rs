//! What failed becomes a reason, a second try or an answer.

use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType};

use super::context::MAX_TRIES;
use super::forward::picked_address;
use super::{Context, Gateway};
use crate::exchange::{Reason, Rejection};

impl Gateway {
    /// No connection: the request was never sent, so another target may have it.
    pub(super) fn connect_failed(&self, ctx: &mut Context, mut error: Box<Error>) -> Box<Error> {
        let again = exclude(ctx);
        error.set_retry(again);
        error
    }

    /// The exchange with the target failed. It is tried again only if nothing of an answer has been
    /// sent, the whole body can be sent again, and the method allows for it (RFC 9110, section 9.2.2).
    pub(super) fn exchange_failed(&self, session: &mut Session, ctx: &mut Context, mut error: Box<Error>, reused: bool) -> Box<Error> {
        let from_target = *error.esource() == ErrorSource::Upstream;
        let timed_out = matches!(error.etype(), ErrorType::ReadTimedout | ErrorType::WriteTimedout);
        let repeatable = session.req_header().method.is_idempotent() && !session.retry_buffer_truncated();
        let unanswered = session.response_written().is_none() && ctx.answered.is_none();
        if !(from_target && repeatable && unanswered && !timed_out && ctx.rejection.is_none()) {
            error.set_retry(false);
            return error;
        }
        let another = exclude(ctx);
        if reused {
            // The target closed an idle connection as the request was sent, which says nothing about
            // it: with no other target left all may be asked again, until no kept connection is.
            if !another {
                ctx.tried.clear();
            }
            error.set_retry(ctx.tries < MAX_STALE);
        } else {
            error.set_retry(another);
        }
        error
    }

    /// Gives the answer for a failure.
    pub(super) async fn answer_failure(&self, session: &mut Session, error: &Error, ctx: &mut Context) -> FailToProxy {
        let rejection = match ctx.rejection.take() {
            Some(rejection) => rejection,
            None => {
                let mut reason = reason(error);
                let over = ctx.deadline.is_some_and(|deadline| std::time::Instant::now() >= deadline);
                if over && matches!(reason, Reason::TargetTimeout | Reason::ConnectTimeout) {
                    reason = Reason::RouteTimeout;
                }
                let rejection = Rejection::new(reason, "");
                let target = picked_address(ctx).map(|a| format!("{a}: ")).unwrap_or_default();
                rejection.log(format!("{target}{}", error.root_cause()))
            }
        };
        ctx.exchange.reason = rejection.reason;
        ctx.exchange.detail.clone_from(&rejection.log);
        let begun = session.response_written().is_some_and(|r| !r.status.is_informational());
        if begun || rejection.reason == Reason::ClientGone {
            // What has begun can only be broken off, so that the client knows it is not whole.
            if rejection.reason == Reason::ClientGone && !begun {
                ctx.status = Reason::ClientGone.status();
            }
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        let status = rejection.reason.status();
        let written = Box::pin(self.reject(session, &rejection, ctx)).await;
        FailToProxy { error_code: status, can_reuse_downstream: written.is_ok() && session.is_body_done() }
    }
}

/// Notes that the target failed. Whether there is another attempt and another target.
fn exclude(ctx: &mut Context) -> bool {
    if let Some(address) = picked_address(ctx) {
        ctx.tried.push(address);
    }
    // Asked of the members themselves: the one that failed may have been taken out meanwhile.
    let fresh = |m: &std::sync::Arc<crate::upstreams::Member>| !ctx.tried.contains(&m.target.address);
    let another = ctx.upstream.as_ref().is_some_and(|u| u.pool.choice().members.iter().any(fresh));
    another && ctx.tries < MAX_TRIES
}

/// Attempts when kept connections turn out to be closed, one after another.
const MAX_STALE: u32 = 12;

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
        (ErrorSource::Upstream, E::ConnectionClosed | E::ReadError | E::WriteError) => Reason::TargetReset,
        (ErrorSource::Upstream, _) => Reason::TargetProtocol,
        _ => Reason::Internal,
    }
}
