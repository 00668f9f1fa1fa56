//! `forward`: sends the request to an upstream.

mod config;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::translate::Translate;
use super::{ActionContext, ActionOutcome, HttpAction};
use crate::exchange::{Edit, Reason, Rejection, RequestValue, RequestView, Template, TextForm};
use crate::filters::HeaderEdits;
use crate::notation::{OneOrMany, Place, nearest};
use crate::rules::balance::{Algorithm, Balancer, Seat, hash_key};
use crate::rules::identity::RequestKey;
use crate::rules::path::hides_dot_segments;
use crate::rules::routing::{common_params, form_decode};
use crate::rules::websocket::FrameLimits;
use crate::upstreams::{Class, Upstream};

pub use config::Config;
use config::{ForwardTo, HostHeader, RequestClass, WebsocketLimits};

/// The longest request target for a target: what `http::Uri` accepts, with some room.
const MAX_TARGET: usize = 60_000;

/// The most splits by a key: each has a table of 256 KiB.
const MAX_KEYED_SPLITS: usize = 1_000;

/// Where and how a request is forwarded.
#[derive(Debug)]
pub struct Forward {
    /// The upstreams.
    pub upstreams: Vec<Arc<Upstream>>,
    /// The choice of the next one by weight; `None` where there is only one.
    pub split: Option<Split>,
    /// The edits of requests to each of the upstreams and of its responses; empty if none has any.
    pub share_edits: Vec<ShareEdits>,
    /// `Host` for the target.
    pub host: Host,
    /// The edit of the path.
    pub path: PathEdit,
    /// Parameters of the rewritten query by their names, each as `?NAME=VALUE`. One whose value is not there is left
    /// out, and those of the client of these names are not sent on.
    pub parameters: Vec<(String, Template)>,
    /// The time from arrival to the end of the response.
    pub timeout: Option<Duration>,
    /// Copies for other upstreams.
    pub mirrors: Vec<Mirror>,
    /// Which requests are admitted first.
    pub class: Class,
    /// The methods of requests that may be sent again; `None` means the idempotent ones.
    pub retry_methods: Option<Vec<http::Method>>,
    /// The field in which the client says how long it waits.
    pub deadline_header: Option<HeaderName>,
    /// The limits of WebSockets.
    pub websocket: TunnelLimits,
    /// The translations.
    pub translations: Vec<Box<dyn Translate>>,
}

/// The limits of WebSockets that are forwarded.
#[derive(Debug, Default)]
pub struct TunnelLimits {
    /// Those of the client's messages, if there are any.
    pub frames: Option<FrameLimits>,
    /// How long neither side may send anything.
    pub idle_time: Option<Duration>,
}

/// The edits of the exchanges with one upstream of a split.
#[derive(Debug)]
pub struct ShareEdits {
    /// Edits of requests.
    pub request: Arc<[Edit]>,
    /// Edits of responses.
    pub response: Arc<[Edit]>,
}

/// Several upstreams by weight.
pub struct Split {
    /// The shares.
    pub shares: Box<dyn Balancer>,
    /// The key that keeps requests on the same share.
    pub key: Option<RequestKey>,
}

impl std::fmt::Debug for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Split").field("key", &self.key).finish_non_exhaustive()
    }
}

/// `Host` for the target.
#[derive(Clone, Debug)]
pub enum Host {
    /// The client's.
    Keep,
    /// The target's own.
    Target,
    /// This one.
    Text(HeaderValue),
}

/// An edit of the path.
#[derive(Debug)]
pub enum PathEdit {
    /// The path is kept.
    Keep,
    /// This prefix is removed.
    Strip(String),
    /// The path is replaced by the filled-in template.
    Rewrite(Template),
}

/// Copies for another upstream.
#[derive(Debug)]
pub struct Mirror {
    /// The upstream.
    pub upstream: Arc<Upstream>,
    /// The share of requests, in units of 2⁻³².
    pub share: u64,
    /// The most copies at a time.
    pub concurrent: u32,
    /// The number of active copies.
    pub active: Arc<AtomicU32>,
}

impl HttpAction for Forward {
    type Config = Config;

    fn compile(config: &Config, context: &mut ActionContext<'_>) -> Self {
        let forward = config.settings();
        let (upstreams, weights) = upstreams(&forward, context);
        if forward.timeout.as_ref().is_some_and(|t| t.0.is_zero()) {
            let text = "expected a time longer than nothing; without the key there is none";
            context.mistakes.add(&context.place.key("timeout"), text);
        }
        Self {
            split: split(&forward, &upstreams, &weights, context),
            translations: translations(&forward, &upstreams, context),
            share_edits: share_edits(&forward, context),
            mirrors: mirrors(&forward, context),
            class: match forward.class {
                RequestClass::High => Class::High,
                RequestClass::Normal => Class::Normal,
                RequestClass::Low => Class::Low,
            },
            retry_methods: forward.retry_methods.as_ref().map(|list| list.iter().map(|m| m.0.clone()).collect()),
            deadline_header: forward.deadline_header.as_ref().map(|h| h.0.clone()),
            upstreams,
            host: match &forward.host {
                HostHeader::Keep => Host::Keep,
                HostHeader::Target => Host::Target,
                HostHeader::Text(text) => Host::Text(text.clone()),
            },
            path: path_edit(&forward, context),
            parameters: Vec::new(),
            timeout: forward.timeout.as_ref().map(|t| t.0),
            websocket: forward.websocket.as_ref().map(tunnel_limits).unwrap_or_default(),
        }
    }

    fn headers_read(config: &Config) -> Vec<(HeaderName, Vec<String>)> {
        let forward = config.settings();
        let key = forward.split_by.as_ref().and_then(|by| by.header());
        let split = key.map(|name| (name.clone(), vec!["split_by".to_owned(), "header".to_owned()]));
        let deadline =
            forward.deadline_header.as_ref().map(|name| (name.0.clone(), vec!["deadline_header".to_owned()]));
        let named = forward.rewrite.as_deref().map(Template::headers_in).unwrap_or_default().into_iter();
        let rewrite = named.map(|name| (name, vec!["rewrite".to_owned()]));
        let shares = forward.split.iter().enumerate().flat_map(|(index, share)| {
            let index = index.to_string();
            let request = share.request.headers_read(&["split", &index, "request"]);
            request.into_iter().chain(share.response.headers_read(&["split", &index, "response"]))
        });
        split.into_iter().chain(deadline).chain(rewrite).chain(shares.collect::<Vec<_>>()).collect()
    }

    fn on_request(&self, view: &RequestView<'_>) -> ActionOutcome<'_> {
        if let PathEdit::Rewrite(to) = &self.path
            && let Err(rejection) = check_rewritten(to, view)
        {
            return ActionOutcome::Reject(rejection);
        }
        if !self.parameters.is_empty() {
            let target = self.changed_target(view.request.uri.path(), view.request.uri.query(), view);
            if target.is_some_and(|target| target.len() > MAX_TARGET) {
                return ActionOutcome::Reject(Rejection::new(Reason::UriTooLong, "the rewritten path is too long"));
            }
        }
        ActionOutcome::Forward(self)
    }

    fn describe(&self) -> Vec<String> {
        let line = |upstream: &Arc<Upstream>| {
            let shape = upstream.pool.shape();
            format!("forward: {} ({}, {} targets)", upstream.name, shape.algorithm, shape.targets.len())
        };
        let translated = self.translations.iter().flat_map(|translation| translation.describe());
        self.upstreams.iter().map(line).chain(translated).collect()
    }
}

impl Forward {
    /// Returns the forwarding to an upstream, without any settings.
    pub fn to(upstream: Option<Arc<Upstream>>) -> Self {
        Self {
            upstreams: upstream.into_iter().collect(),
            split: None,
            share_edits: Vec::new(),
            host: Host::Keep,
            path: PathEdit::Keep,
            parameters: Vec::new(),
            timeout: None,
            mirrors: Vec::new(),
            class: Class::Normal,
            retry_methods: None,
            deadline_header: None,
            websocket: TunnelLimits::default(),
            translations: Vec::new(),
        }
    }

    /// Returns the translation of a request, if it is in one of the protocols that are translated.
    pub fn translation(&self, view: &RequestView<'_>) -> Option<&dyn Translate> {
        if self.translations.is_empty() {
            return None;
        }
        let edited = self.edited_path(view);
        let path = edited.as_deref().unwrap_or(view.request.uri.path());
        let all = || self.translations.iter().map(|translation| &**translation);
        all().find(|it| it.is_named_by(view)).or_else(|| all().find(|it| it.takes(view, path)))
    }

    /// Returns the path with the edits of the route, where it differs from that of the request.
    fn edited_path(&self, view: &RequestView<'_>) -> Option<String> {
        let edited = view.exchange.edits.touch_target().then(|| {
            let mut head = view.request.clone();
            // A path that cannot be written fails the request later.
            let _ = view.exchange.edits.apply_to_target(&mut head, view);
            head
        });
        let own = edited.as_ref().unwrap_or(view.request).uri.path();
        let changed = self.changed_target(own, None, view);
        match changed {
            Some(mut target) => {
                target.truncate(target.find('?').unwrap_or(target.len()));
                Some(target)
            }
            None => edited.as_ref().map(|head| head.uri.path().to_owned()),
        }
    }

    /// Returns the path and the query for the target, where they differ from those of the request.
    pub fn changed_target(&self, path: &str, query: Option<&str>, view: &RequestView<'_>) -> Option<String> {
        let mut changed = match &self.path {
            PathEdit::Keep => return None,
            PathEdit::Strip(prefix) => match path.strip_prefix(prefix.as_str()) {
                Some("") => "/".to_owned(),
                Some(rest) if rest.starts_with('/') => rest.to_owned(),
                _ => return None,
            },
            PathEdit::Rewrite(template) => template.fill_text(view),
        };
        let texts = self.parameters.iter().filter_map(|(_, parameter)| parameter.fill_present(view));
        texts.for_each(|text| add_query(&mut changed, text.trim_start_matches('?')));
        // The rewritten target may have a query of its own, which the client's follows.
        match query {
            Some(query) if self.parameters.is_empty() => add_query(&mut changed, query),
            Some(query) => {
                let pairs = query.split('&').filter(|pair| !pair.is_empty() && !self.has_parameter(pair));
                pairs.for_each(|pair| add_query(&mut changed, pair));
            }
            None => {}
        }
        Some(changed)
    }

    /// Returns whether a pair of the client's query has the name of a parameter of the rewritten one.
    fn has_parameter(&self, pair: &str) -> bool {
        let name = form_decode(pair.split('=').next().unwrap_or_default().as_bytes());
        self.parameters.iter().any(|(own, _)| *own.as_bytes() == *name)
    }
}

/// Adds a part of a query to a path that may have a query.
fn add_query(target: &mut String, part: &str) {
    target.push(if target.contains('?') { '&' } else { '?' });
    target.push_str(part);
}

/// Checks the target that a request is rewritten to, as far as its values could make it another one than is written.
fn check_rewritten(to: &Template, view: &RequestView<'_>) -> Result<(), Box<Rejection>> {
    let path = view.request.uri.path();
    // Only a dot, or what is encoded, can become a dot segment.
    if !to.has_foreign_values() && memchr::memchr2(b'.', b'%', path.as_bytes()).is_none() {
        return Ok(());
    }
    let filled = to.fill_text(view);
    if hides_dot_segments(filled.split('?').next().unwrap_or_default()) {
        return Err(Rejection::new(Reason::BadPath, "a value would lead to another path"));
    }
    let query = view.request.uri.query().map_or(0, str::len);
    if filled.len() + query > MAX_TARGET {
        return Err(Rejection::new(Reason::UriTooLong, "the rewritten path is too long"));
    }
    Ok(())
}

impl Config {
    fn settings(&self) -> Cow<'_, ForwardTo> {
        match self {
            Self::Name(name) => Cow::Owned(ForwardTo { upstream: Some(name.clone()), ..ForwardTo::default() }),
            Self::To(settings) => Cow::Borrowed(settings),
        }
    }
}

/// Returns the upstreams that have a share, with their weights.
fn upstreams(forward: &ForwardTo, context: &mut ActionContext<'_>) -> (Vec<Arc<Upstream>>, Vec<u32>) {
    let place = &context.place;
    let named: Vec<(&str, u32, Place)> = match (&forward.upstream, forward.split.as_slice()) {
        (Some(name), []) => vec![(name, 1, place.clone())],
        (None, split) if !split.is_empty() => {
            let at = |i: usize| place.key("split").index(i).key("upstream");
            split.iter().enumerate().map(|(i, s)| (s.upstream.as_str(), s.weight, at(i))).collect()
        }
        _ => {
            context.mistakes.add(place, "expected exactly one of upstream and split");
            Vec::new()
        }
    };
    if !named.is_empty() && named.iter().all(|(_, weight, _)| *weight == 0) {
        context.mistakes.add(place, "all weights are 0: nothing would be forwarded");
    }
    let (mut upstreams, mut weights) = (Vec::new(), Vec::new());
    for (name, weight, place) in &named {
        match find(name, place, context) {
            Some(upstream) if *weight > 0 => {
                upstreams.push(upstream);
                weights.push(*weight);
            }
            _ => {}
        }
    }
    (upstreams, weights)
}

/// Returns the upstream of that name, and notes an error if there is none.
pub(super) fn find(name: &str, place: &Place, context: &mut ActionContext<'_>) -> Option<Arc<Upstream>> {
    let found = context.upstreams.get(name).cloned();
    if found.is_none() && !(context.is_unread)(name) {
        let near = nearest(name, context.upstreams.keys().map(String::as_str));
        context.mistakes.add(place, format!("there is no upstream \"{name}\"{near}"));
    }
    found
}

/// Returns the shares of a split, in turn or by a key.
fn split(
    forward: &ForwardTo,
    upstreams: &[Arc<Upstream>],
    weights: &[u32],
    context: &mut ActionContext<'_>,
) -> Option<Split> {
    let place = context.place.key("split_by");
    if upstreams.len() < 2 {
        if forward.split_by.is_some() && forward.split.is_empty() {
            context.mistakes.add(&place, "is only for a split");
        }
        return None;
    }
    let seat = |(upstream, weight): (&Arc<Upstream>, &u32)| Seat::new(hash_key(upstream.name.as_bytes()), *weight);
    let seats: Vec<Seat> = upstreams.iter().zip(weights).map(seat).collect();
    let key = forward.split_by.as_ref().map(crate::notation::KeyBy::request_key);
    *context.keyed_splits += usize::from(key.is_some());
    if *context.keyed_splits > MAX_KEYED_SPLITS {
        context.mistakes.add(&place, format!("more than {MAX_KEYED_SPLITS} splits by a key are too many"));
        return None;
    }
    let algorithm = if key.is_some() { Algorithm::Maglev { load_factor: 0 } } else { Algorithm::RoundRobin };
    Some(Split { shares: algorithm.build(&seats), key })
}

/// Returns the edits of the upstreams that have a share.
fn share_edits(forward: &ForwardTo, context: &mut ActionContext<'_>) -> Vec<ShareEdits> {
    if forward.split.iter().all(|share| share.request.is_empty() && share.response.is_empty()) {
        return Vec::new();
    }
    let place = context.place.key("split");
    let entries = context.entries;
    let mut compile = |index: usize, key: &'static str, edits: &HeaderEdits| {
        edits.compile(&place.index(index).key(key), &|| common_params(entries), context.mistakes)
    };
    let shares = forward.split.iter().enumerate().filter(|(_, share)| share.weight > 0);
    shares
        .map(|(index, share)| ShareEdits {
            request: compile(index, "request", &share.request),
            response: compile(index, "response", &share.response),
        })
        .collect()
}

/// The most upstreams that one request is copied to.
const MAX_MIRRORS: usize = 8;

fn mirrors(forward: &ForwardTo, context: &mut ActionContext<'_>) -> Vec<Mirror> {
    let place = context.place.key("mirror");
    let (list, is_list) = match &forward.mirror {
        None => return Vec::new(),
        Some(OneOrMany::One(one)) => (std::slice::from_ref(one), false),
        Some(OneOrMany::Many(many)) => (many.as_slice(), true),
    };
    if list.len() > MAX_MIRRORS {
        context.mistakes.add(&place, format!("expected at most {MAX_MIRRORS} mirrors, found {}", list.len()));
    }
    let compiled = list.iter().enumerate().filter_map(|(index, mirror)| {
        let place = if is_list { place.index(index) } else { place.clone() };
        let upstream = find(&mirror.upstream, &place.key("upstream"), context)?;
        let share = (mirror.percent / 100.0 * f64::from(u32::MAX)).round() as u64 + 1;
        Some(Mirror { upstream, share, concurrent: mirror.concurrent, active: Arc::default() })
    });
    compiled.collect()
}

fn path_edit(forward: &ForwardTo, context: &mut ActionContext<'_>) -> PathEdit {
    match (&forward.strip_prefix, &forward.rewrite) {
        (None, None) => PathEdit::Keep,
        (Some(prefix), None) => {
            context.check_strip_prefix(prefix);
            PathEdit::Strip(prefix.clone())
        }
        (None, Some(text)) => {
            if !text.starts_with('/') {
                let place = context.place.key("rewrite");
                context.mistakes.add(&place, format!("expected a path that starts with /, found \"{text}\""));
            }
            let place = context.place.key("rewrite");
            let template = context.template(text, TextForm::Target, &place);
            if template.values().any(|value| *value == RequestValue::Query) {
                context.mistakes.add(&place, "leave {query} out: the client's query follows the rewritten path anyway");
            }
            PathEdit::Rewrite(template)
        }
        (Some(_), Some(_)) => {
            context.mistakes.add(&context.place.clone(), "expected at most one of strip_prefix and rewrite");
            PathEdit::Keep
        }
    }
}

fn tunnel_limits(limits: &WebsocketLimits) -> TunnelLimits {
    let frames = limits.messages.as_ref().map(|rate| {
        let (count, seconds) = (f64::from(rate.0.count), rate.0.period.as_secs_f64());
        (count / seconds, count)
    });
    let message = limits.max_message.as_ref().map(|size| size.0);
    let has_frames = frames.is_some() || message.is_some();
    TunnelLimits {
        frames: has_frames.then_some(FrameLimits { message, frames }),
        idle_time: limits.idle_time.as_ref().map(|time| time.0),
    }
}

/// Compiles the translations, and notes upstreams that do not speak what they need.
fn translations(
    forward: &ForwardTo,
    upstreams: &[Arc<Upstream>],
    context: &mut ActionContext<'_>,
) -> Vec<Box<dyn Translate>> {
    let place = context.place.clone();
    let mut compiled = Vec::with_capacity(forward.translate.len());
    for (index, translation) in forward.translate.iter().enumerate() {
        context.place = place.key("translate").index(index);
        context.upstream = upstreams.first().cloned();
        let translation = translation.compile(context);
        let old = upstreams.iter().find(|upstream| upstream.pool.shape().transport.versions.1 < 2);
        if let (true, Some(old)) = (translation.needs_http2(), old) {
            let text = format!("the targets have to speak HTTP/2: add `protocol: http2` to upstream {}", old.name);
            context.mistakes.add(&context.place, text);
        }
        compiled.push(translation);
    }
    context.place = place;
    compiled
}
