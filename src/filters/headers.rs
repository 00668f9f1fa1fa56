//! `headers`: sets, adds and removes headers of requests and responses.

use std::sync::Arc;

use http::header::HeaderName;
use pingora::http::ResponseHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::header_edits::HeaderEdits;
use super::{CompileContext, HttpFilter, ResponseView, Stage};
use crate::exchange::{Edit, Reason};

/// The edits of headers.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Edits of what the target is sent.
    pub request: HeaderEdits,
    /// Edits of the responses of targets, and of those that the route gives itself (`respond`, `redirect`, `files`).
    pub response: HeaderEdits,
    /// Edits of all responses, rejections (401, 404, 429) among them.
    pub always: HeaderEdits,
}

impl Config {
    /// Returns whether a value names the consumer or a claim of the token.
    pub fn names_caller(&self) -> bool {
        let lists = [&self.request, &self.response, &self.always].into_iter();
        let mut values = lists.flat_map(|edits| edits.set.values().chain(edits.add.values()));
        values.any(|value| {
            let text = String::from_utf8_lossy(value.0.as_bytes());
            // With a default it is written for routes without a caller too.
            text.contains("{consumer}")
                || text
                    .split("{claim.")
                    .skip(1)
                    .any(|rest| rest.find(['}', '|']).is_some_and(|end| rest[end..].starts_with('}')))
        })
    }
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    request: Arc<[Edit]>,
    response: Arc<[Edit]>,
    always: Arc<[Edit]>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Edit;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let (place, route) = (context.place.clone(), &context.route);
        let mut compile = |key: &'static str, edits: &HeaderEdits| {
            edits.compile(&place.key(key), &|| route.params(), context.mistakes)
        };
        Some(Self {
            request: compile("request", &config.request),
            response: compile("response", &config.response),
            always: compile("always", &config.always),
        })
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        let lists = [("request", &config.request), ("response", &config.response), ("always", &config.always)];
        lists.iter().flat_map(|(list, edits)| edits.headers_read(&[list])).collect()
    }

    fn headers_written(config: &Config) -> Vec<HeaderName> {
        let HeaderEdits { remove, set, add } = &config.request;
        let edited = set.keys().chain(add.keys()).filter_map(|name| name.parse().ok());
        remove.iter().map(|name| name.0.clone()).chain(edited).collect()
    }

    fn edits(&self) -> Option<&Arc<[Edit]>> {
        Some(&self.request)
    }

    fn on_response(&self, response: &mut ResponseHeader, view: &ResponseView<'_>, (): &()) {
        // The route's own response is a response, and a rejection is none.
        let is_rejection = view.own && !matches!(view.exchange.reason, Reason::Responded | Reason::Redirected);
        if !is_rejection {
            Edit::apply_to_response(&self.response, response, &view.request_view());
        }
        Edit::apply_to_response(&self.always, response, &view.request_view());
    }
}
