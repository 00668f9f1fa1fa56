//! `apis`: the versions of APIs, and the routes that are for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ahash::AHashMap;
use http::header::{ACCEPT, HeaderName, HeaderValue, LINK, VARY};

use super::work::RouteCompiler;
use crate::config::{ApiConfig, RouteConfig, VersionConfig, VersionPlace, VersionState};
use crate::exchange::Edit;
use crate::notation::{Mistakes, OneOrMany, Place, nearest};
use crate::rules::routing::{ApiVersions, PathPattern, Predicates, RouteEntry, Segment, VersionRule, VersionSource};
use crate::snapshot::{Api, ApiVersion, VersionAccess};
use crate::telemetry::metrics::METRICS;

const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const SUNSET: HeaderName = HeaderName::from_static("sunset");

/// The name of the parameter of a path that names the version.
const VERSION_PARAM: &str = "version";

/// Compiles the APIs by their names.
pub fn compile(apis: &BTreeMap<String, ApiConfig>, mistakes: &mut Mistakes) -> BTreeMap<String, Arc<Api>> {
    let root = Place::default().key("apis");
    let compile = |(name, api): (&String, &ApiConfig)| {
        let place = root.key(name.clone());
        mistakes.take(&place, crate::config::is_name(name).map_err(|wanted| format!("expected {wanted}")));
        (name.clone(), Arc::new(compile_api(name, api, &place, mistakes)))
    };
    apis.iter().map(compile).collect()
}

fn compile_api(name: &str, api: &ApiConfig, place: &Place, mistakes: &mut Mistakes) -> Api {
    if api.versions.is_empty() {
        mistakes.add(&place.key("versions"), "expected at least one version");
    }
    let mut rules = ApiVersions::default();
    let mut versions = Vec::new();
    for (number, (version, config)) in api.versions.iter().enumerate() {
        let place = place.key("versions").key(version.clone());
        mistakes.take(&place, crate::config::is_name(version).map_err(|wanted| format!("expected {wanted}")));
        let aliases = config.aliases.iter().map(|alias| alias.0.as_str());
        for text in std::iter::once(version.as_str()).chain(aliases) {
            if rules.names.insert(text.into(), number).is_some() {
                mistakes.add(&place, format!("\"{text}\" is the name or an alias of another version too"));
            }
        }
        if config.state == VersionState::Retired {
            rules.retired.push(number);
        }
        check(config, &place, api, mistakes);
        versions.push(compile_version(name, version, config, vary(&api.version_by)));
    }
    let sources = api.version_by.iter().enumerate();
    let at = place.key("version_by");
    rules.sources = sources.filter_map(|(index, one)| source(one, &at.index(index), mistakes)).collect();
    if let Some(default) = &api.default {
        rules.default = rules.names.get(default.0.as_str()).copied();
        let state = rules.default.and_then(|number| api.versions.values().nth(number)).map(|version| version.state);
        let near = || nearest(&default.0, api.versions.keys().map(String::as_str));
        match state {
            None => mistakes.add(&place.key("default"), format!("there is no version \"{}\"{}", default.0, near())),
            Some(VersionState::Draft | VersionState::Retired) => {
                mistakes.add(&place.key("default"), "expected a version that all may use");
            }
            Some(_) => {}
        }
    }
    Api { name: name.to_owned(), rules: Arc::new(rules), versions }
}

fn source(place_of: &VersionPlace, place: &Place, mistakes: &mut Mistakes) -> Option<VersionSource> {
    match place_of {
        VersionPlace::Header(name) => Some(VersionSource::Header(name.0.clone())),
        VersionPlace::Query(name) => Some(VersionSource::Query(name.clone())),
        VersionPlace::MediaTypeParameter(name) => Some(VersionSource::MediaTypeParameter(name.clone())),
        VersionPlace::MediaType(text) => {
            let lower = text.to_ascii_lowercase();
            let parts = lower.split_once("{version}").filter(|(before, _)| before.contains('/'));
            if parts.is_none() {
                let text =
                    format!("expected a media type such as application/vnd.a.{{version}}+json, found \"{text}\"");
                mistakes.add(&place.key("media_type"), text);
            }
            parts.map(|(before, after)| VersionSource::MediaType(before.to_owned(), after.to_owned()))
        }
    }
}

/// Notes settings of a version that contradict each other.
fn check(version: &VersionConfig, place: &Place, api: &ApiConfig, mistakes: &mut Mistakes) {
    let is_draft = version.state == VersionState::Draft;
    if version.state == VersionState::Deprecated && version.deprecated.is_none() {
        mistakes.add(place, "a deprecated version needs the time at which it was: set deprecated");
    }
    if is_draft && (version.deprecated.is_some() || version.sunset.is_some()) {
        mistakes.add(place, "a draft is neither deprecated nor has an end");
    }
    if !is_draft && !version.preview_groups.is_empty() {
        mistakes.add(&place.key("preview_groups"), "is for drafts alone: set state: draft");
    }
    if let (Some(deprecated), Some(sunset)) = (&version.deprecated, &version.sunset)
        && sunset.0 < deprecated.0
    {
        mistakes.add(&place.key("sunset"), "expected a time at or after deprecated (RFC 9745, section 4)");
    }
    if version.reject_after_sunset && version.sunset.is_none() {
        mistakes.add(&place.key("reject_after_sunset"), "needs sunset");
    }
    for (key, text) in [("documentation", &version.documentation), ("successor", &version.successor)] {
        let Some(text) = text else { continue };
        let is_version = key == "successor" && api.versions.contains_key(text);
        if !is_version && link(text, "x").is_none() {
            let near = nearest(text, api.versions.keys().map(String::as_str));
            let versions = if key == "successor" { "a version, " } else { "" };
            mistakes.add(&place.key(key), format!("expected {versions}a path or a URL, found \"{text}\"{near}"));
        }
    }
}

/// Returns a link to a path or a URL (RFC 8288).
fn link(to: &str, relation: &str) -> Option<HeaderValue> {
    let is_url = to.starts_with('/') || to.starts_with("https://") || to.starts_with("http://");
    let is_plain = to.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"'));
    (is_url && is_plain).then(|| HeaderValue::try_from(format!("<{to}>; rel=\"{relation}\"")).ok())?
}

/// Returns the names of the headers in which requests name a version, as responses vary with them (RFC 9110, section
/// 12.5.5).
fn vary(places: &[VersionPlace]) -> Option<HeaderValue> {
    let mut names: Vec<HeaderName> = Vec::new();
    for place in places {
        let name = match place {
            VersionPlace::Header(name) => name.0.clone(),
            VersionPlace::MediaType(_) | VersionPlace::MediaTypeParameter(_) => ACCEPT,
            VersionPlace::Query(_) => continue,
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let joined = names.iter().map(HeaderName::as_str).collect::<Vec<_>>().join(", ");
    HeaderValue::try_from(joined).ok().filter(|value| !value.is_empty())
}

fn compile_version(api: &str, name: &str, version: &VersionConfig, vary: Option<HeaderValue>) -> ApiVersion {
    let mut fields = Vec::new();
    let mut push = |name: HeaderName, value: Option<HeaderValue>| fields.extend(value.map(|value| (name, value)));
    let deprecated = version.deprecated.as_ref();
    push(DEPRECATION, deprecated.and_then(|time| HeaderValue::try_from(format!("@{}", time.0)).ok()));
    let date = |time: u64| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(time));
    push(SUNSET, version.sunset.as_ref().and_then(|time| HeaderValue::try_from(date(time.0)).ok()));
    push(LINK, version.documentation.as_ref().and_then(|to| link(to, "deprecation")));
    push(LINK, version.successor.as_ref().and_then(|to| link(to, "successor-version")));
    push(VARY, vary);
    let edit = |(name, value): &(HeaderName, HeaderValue)| match *name {
        LINK | VARY => Edit::Add(name.clone(), value.clone()),
        _ => Edit::Set(name.clone(), value.clone()),
    };
    ApiVersion {
        name: name.to_owned(),
        access: match version.state {
            VersionState::Draft => VersionAccess::Groups(version.preview_groups.clone()),
            VersionState::Published | VersionState::Deprecated => VersionAccess::All,
            VersionState::Retired => VersionAccess::None,
        },
        ends: version.sunset.as_ref().map(|time| time.0).filter(|_| version.reject_after_sunset),
        edits: fields.iter().map(edit).collect(),
        fields,
        successor: version.successor.clone(),
        usage: METRICS.version(api, name),
    }
}

/// Returns the place of the segment of a path that names the version.
fn segment(path: &PathPattern) -> Option<usize> {
    let PathPattern::Segments { segments, .. } = path else { return None };
    segments.iter().position(|segment| matches!(segment, Segment::Param(name) if name == VERSION_PARAM))
}

impl RouteCompiler<'_> {
    /// Restricts the entries of a route to the versions that it is for; returns the API, and notes errors.
    pub fn restrict_to_versions(
        &mut self,
        route: &RouteConfig,
        entries: &mut [RouteEntry],
        place: &Place,
    ) -> Option<Arc<Api>> {
        let named: Vec<&str> = route.version.iter().flat_map(OneOrMany::as_slice).map(|one| one.0.as_str()).collect();
        let Some(name) = &route.api else {
            if !named.is_empty() {
                self.mistakes.add(&place.key("version"), "needs api, which says of which API");
            }
            return None;
        };
        let Some(api) = self.apis.get(name).cloned() else {
            if !self.loaded.is_left_out("apis", name) {
                let near = nearest(name, self.apis.keys().map(String::as_str));
                self.mistakes.add(&place.key("api"), format!("there is no API \"{name}\"{near}"));
            }
            return None;
        };
        let known = || api.versions.iter().map(|version| version.name.as_str());
        let mut accepted = Vec::new();
        for version in &named {
            match known().position(|known| known == *version) {
                Some(number) => accepted.push(number),
                None => {
                    let near = nearest(version, known());
                    let text = format!("the API \"{name}\" has no version \"{version}\"{near}");
                    self.mistakes.add(&place.key("version"), text);
                }
            }
        }
        if named.is_empty() {
            accepted = (0..api.versions.len()).collect();
        }
        let is_named = !api.rules.sources.is_empty() || api.rules.default.is_some();
        if !is_named && entries.iter().any(|entry| segment(&entry.path).is_none()) {
            let text = format!(
                "no request would name a version: write {{version}} in the path, or set version_by or default of the \
                 API \"{name}\""
            );
            self.mistakes.add(&place.key("match"), text);
        }
        self.api_uses.extend(accepted.iter().map(|version| (name.clone(), *version)));
        // Entries that shared their conditions still do, where the version is at the same place.
        let mut shared: AHashMap<(Option<usize>, *const Predicates), [Arc<Predicates>; 2]> = AHashMap::new();
        for entry in entries {
            let segment = segment(&entry.path);
            let [_, restricted] = shared.entry((segment, Arc::as_ptr(&entry.predicates))).or_insert_with(|| {
                let rule = VersionRule { api: Arc::clone(&api.rules), segment, accepted: accepted.clone() };
                let restricted = Predicates { version: Some(rule), ..(*entry.predicates).clone() };
                // Both are kept, so that no address is used twice.
                [Arc::clone(&entry.predicates), Arc::new(restricted)]
            });
            entry.predicates = Arc::clone(restricted);
        }
        Some(api)
    }

    /// Warns of APIs, and of versions that all may use, that no route is for.
    pub fn warn_of_versions(&mut self) {
        for (name, api) in self.apis {
            let place = Place::default().key("apis").key(name.clone());
            if !self.api_uses.iter().any(|(used, _)| used == name) {
                self.warnings.add(&place, "no route is for this API");
                continue;
            }
            for (number, version) in api.versions.iter().enumerate() {
                if version.access != VersionAccess::None && !self.api_uses.contains(&(name.clone(), number)) {
                    self.warnings.add(&place.key("versions").key(version.name.clone()), "no route is for this version");
                }
            }
        }
    }
}
