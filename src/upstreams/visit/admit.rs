//! The admission of a visit: the request's place at the upstream, and its first target.

use std::sync::Arc;

use http::header::{HeaderValue, RETRY_AFTER};
use tokio::time::timeout_at;

use super::{Caller, StickySession, Try, Upstream, Visit};
use crate::exchange::{Reason, Rejection};
use crate::upstreams::gate::AdmittedRequest;
use crate::upstreams::members::{NoPick, PickRequest};

impl Visit {
    /// Admits the request and picks its target, that of its session if it has one; the target of the backup where the
    /// upstream has none. Returns `None` where it has to wait for a place.
    pub fn try_admit(&mut self, caller: &Caller<'_>) -> Option<Result<(), Box<Rejection>>> {
        loop {
            if self.entered.is_none() {
                let entered = self.upstream.pool.gate().try_admit(self.class);
                if entered.is_none() && self.upstream.pool.gate().has_queue(self.class) {
                    return None;
                }
                if let Err(rejection) = self.start(entered, caller) {
                    return Some(Err(rejection));
                }
            }
            // The guards of an earlier try are dropped before the next is counted.
            self.current = None;
            let key = self.upstream.key.as_ref().and_then(|key| caller.hash(key));
            let why =
                match self.upstream.pool.pick(&PickRequest { key, session: self.session.tag(), tried: &self.tried }) {
                    Ok(picked) => {
                        if let (Some(sticky), false) = (&self.upstream.sticky, picked.away) {
                            self.session.bind(sticky, picked.member.tag);
                        }
                        self.current = Some(Try::new(picked, None));
                        return Some(Ok(()));
                    }
                    Err(why) => why,
                };
            match self.backup() {
                Some(backup) if why != NoPick::Full => {
                    self.upstream = Arc::clone(backup);
                    // The place at the one is free before there is one at the other.
                    self.entered = None;
                }
                _ => return Some(Err(no_target(&self.upstream, why, self.tried.len()))),
            }
        }
    }

    /// Does what [`Self::try_admit`] does, and waits for a place until the deadline at most.
    ///
    /// # Errors
    /// Returns the rejection of a request that gets no target.
    pub async fn admit(&mut self, caller: &Caller<'_>) -> Result<(), Box<Rejection>> {
        loop {
            if let Some(admitted) = self.try_admit(caller) {
                return admitted;
            }
            let gate = Arc::clone(self.upstream.pool.gate());
            let turn = gate.admit(self.class);
            let entered = match self.deadline {
                Some(deadline) => {
                    timeout_at(deadline.into(), turn).await.map_err(|_| Rejection::new(Reason::RouteTimeout, ""))?
                }
                None => turn.await,
            };
            self.start(entered, caller)?;
        }
    }

    fn start(&mut self, entered: Option<AdmittedRequest>, caller: &Caller<'_>) -> Result<(), Box<Rejection>> {
        self.entered = entered;
        if self.entered.is_none() {
            return Err(overloaded("too many requests are under way"));
        }
        self.session = self
            .upstream
            .sticky
            .as_ref()
            .map_or_else(StickySession::default, |sticky| StickySession::of(sticky, caller));
        self.upstream.pool.count_request();
        Ok(())
    }

    /// Returns the cookie of a new session for the client, if it has one.
    pub fn session_cookie(&self, secure_connection: bool) -> Option<HeaderValue> {
        self.session.set_cookie(self.upstream.sticky.as_ref()?, secure_connection)
    }

    /// Frees the request's places at the upstream and at the target, as it is no longer active at either.
    pub fn leave(&mut self) {
        self.entered = None;
        self.current.iter_mut().for_each(|current| current.picked.release());
    }

    /// Ends the visit: nothing more is reported of it.
    pub fn end(&mut self) {
        self.entered = None;
        self.current.iter_mut().for_each(|current| current.picked.abandon());
    }
}

fn overloaded(why: &str) -> Box<Rejection> {
    Rejection::new(Reason::Overloaded, "").log(why).header(RETRY_AFTER, HeaderValue::from(1))
}

/// Returns the rejection of a request that gets no target: none is healthy, none exists, all were tried, or none may
/// be used.
fn no_target(upstream: &Upstream, why: NoPick, tried: usize) -> Box<Rejection> {
    let name = &upstream.name;
    let total = upstream.pool.choice().total;
    match why {
        NoPick::Full => overloaded("every target has as many requests as it may have"),
        NoPick::Open(nanos) => {
            let seconds = nanos.div_ceil(1_000_000_000).max(1);
            Rejection::new(Reason::BreakerOpen, "")
                .log(format!("upstream {name}"))
                .header(RETRY_AFTER, HeaderValue::from(seconds))
        }
        NoPick::NoTarget if total == 0 && upstream.pool.has_names() => Rejection::new(Reason::DnsError, "")
            .log(format!("upstream {name} has no targets: no name could be resolved")),
        NoPick::NoTarget if total == 0 => {
            Rejection::new(Reason::NoHealthyTarget, "").log(format!("upstream {name} has no targets"))
        }
        NoPick::NoTarget => Rejection::new(Reason::NoHealthyTarget, "")
            .log(format!("upstream {name}: none of {total} targets may be picked, {tried} were tried")),
    }
}
