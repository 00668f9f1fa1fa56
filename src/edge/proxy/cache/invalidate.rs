//! Invalidation by requests with unsafe methods (RFC 9111, section 4.4).

use pingora::http::{RequestHeader, ResponseHeader};

use super::key::{authority_of, url_of};
use crate::edge::proxy::Context;
use crate::rules::caching::{KeyRules, invalidated_targets, is_effective, purge_url};

/// Removes what is stored for the URL of a request with an unsafe method, and for those that its response names, if it
/// was successful. It is done before the client gets the response, so that its next request sees the change.
pub async fn invalidate(ctx: &Context, request: &RequestHeader, response: &ResponseHeader) {
    let Some(cache) = ctx.cache.as_ref().filter(|cache| cache.invalidates) else { return };
    if !is_effective(response.status.as_u16()) {
        return;
    }
    let scheme = ctx.exchange.scheme();
    let Some(authority) = authority_of(request, scheme) else { return };
    // The store knows the rules by which parameters are left out.
    let own = url_of((scheme, &authority), &request.uri, &KeyRules::default(), ctx);
    let others = invalidated_targets(scheme, &authority, request.uri.path(), &response.headers);
    let others = others.into_iter().map(|target| {
        let (path, query) = target.split_once('?').map_or((&*target, None), |(path, query)| (path, Some(query)));
        purge_url(scheme, &authority, path, query)
    });
    for url in std::iter::once(own).chain(others) {
        if let Err(why) = cache.policy.store.invalidate_url(&url).await {
            log::warn!("cache {}: {why}", cache.policy.store.name());
        }
    }
}
