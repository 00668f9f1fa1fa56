//! Responses that an action of the gateway makes itself, such as aggregated ones: they are looked up like those of
//! targets, and made once for many requests.
//!
//! An action whose response may be cached calls [`Gateway::serve_cached`] first. Where that returns false it makes the
//! response, and hands it to [`keep_own`] before it is sent. A request that ends without that lets the others go on.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::Method;
use pingora::http::{RequestHeader, ResponseHeader};

use super::fetch::{UNSHARED_TIME, new_head, variant_for};
use super::flights::{FlightGuard, FlightKey, FlightState};
use super::key::{check_stored, stored_url, variance};
use super::{CachedRequest, millis};
use crate::edge::proxy::{Context, Gateway};
use crate::live::Generation;
use crate::rules::caching::{CacheOutcome, NotStored, decide_storing};

/// The duty to hand over a response that others wait for.
#[derive(Debug)]
pub struct OwnFill {
    /// What publishes the result.
    pub guard: FlightGuard,
    /// The key of the flight.
    pub flight: FlightKey,
    /// What is requested.
    pub request: CachedRequest,
    /// The time of the request, for purges.
    pub started: Generation,
}

impl Gateway {
    /// Stores a response of the gateway's own before it is sent, if the request has looked for one and it may be
    /// stored. Others that wait for it are served from there.
    pub async fn keep_own(&self, ctx: &mut Context, request: &RequestHeader, head: &ResponseHeader, body: &Bytes) {
        let Some(cache) = &mut ctx.cache else { return };
        let Some(fill) = cache.own.take().filter(|_| request.method == Method::GET) else { return };
        let (policy, now) = (Arc::clone(&cache.policy), millis(SystemTime::now()));
        let status = head.status.as_u16();
        let decided = decide_storing(&fill.request.store, status, &head.headers, &policy.rules, (now, now));
        let decided = decided.and_then(|freshness| match body.len() as u64 > policy.max_object() {
            true => Err(NotStored::TooLarge),
            false => check_stored(&policy, head, ctx).map(|names| (freshness, names)),
        });
        let (freshness, names) = match decided {
            Ok(decided) => decided,
            Err(why) => {
                ctx.cache.iter_mut().for_each(|cache| cache.handling.detail = Some(why.word()));
                self.flights.remember_unshared(&fill.flight, UNSHARED_TIME);
                fill.guard.publish(FlightState::NotShared);
                return;
            }
        };
        let variance = (!names.is_empty()).then(|| variance(&names, request, ctx));
        let url = stored_url(&fill.request, &request.uri, &policy, ctx);
        let stored = new_head(&policy, url, head, (&freshness, variance), now);
        let variant = variant_for(&policy, &fill.request.key, &stored).await;
        let mut filling = policy.store.begin(fill.request.key, variant, stored, fill.started);
        filling.write(body);
        let is_stored = filling.finish().is_some();
        ctx.cache.iter_mut().for_each(|cache| cache.handling.stored = is_stored);
        ctx.exchange.cache = Some(CacheOutcome::Miss);
        if freshness.fresh_until(now) > now {
            fill.guard.publish(FlightState::Stored);
        } else {
            self.flights.remember_unshared(&fill.flight, UNSHARED_TIME);
            fill.guard.publish(FlightState::NotShared);
        }
    }
}
