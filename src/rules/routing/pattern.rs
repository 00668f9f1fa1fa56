//! Patterns for hosts and paths.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use crate::rules::path;

/// A pattern for hosts, which are compared in lower case and without a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Any host, and requests without one.
    Any,
    /// `*.example.com`: any name below the suffix, at any depth. The value is `example.com`.
    Below(String),
    /// This name alone.
    Exact(String),
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        if lower == "*" {
            return Ok(Self::Any);
        }
        let name = lower.strip_prefix("*.").unwrap_or(&lower);
        let v6 = name.starts_with('[') && name.ends_with(']');
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if name.contains('*') {
            return Err("a host with its wildcard as the first label: *.example.com".to_owned());
        }
        if !v6 && name.contains(':') {
            return Err("a host without a port".to_owned());
        }
        if matches!(name.chars().next(), Some('.')) || name == "_" || name.ends_with('.') {
            return Err("a host name such as api.example.com, *.example.com or *".to_owned());
        }
        if name.is_empty() || !(v6 || name.chars().all(fine)) {
            return Err("a host name such as api.example.com, *.example.com or *".to_owned());
        }
        Ok(if name.len() == lower.len() { Self::Exact(lower) } else { Self::Below(name.to_owned()) })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(suffix) => write!(f, "*.{suffix}"),
            Self::Exact(name) => f.write_str(name),
        }
    }
}

impl HostPattern {
    fn rank(&self) -> (u8, usize) {
        match self {
            Self::Any => (0, 0),
            Self::Below(suffix) => (1, suffix.len()),
            Self::Exact(_) => (2, 0),
        }
    }
}

impl Ord for HostPattern {
    fn cmp(&self, other: &Self) -> Ordering {
        let text = |p: &Self| match p {
            Self::Any => String::new(),
            Self::Below(t) | Self::Exact(t) => t.clone(),
        };
        self.rank().cmp(&other.rank()).then_with(|| text(other).cmp(&text(self)))
    }
}

impl PartialOrd for HostPattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// One segment of a path pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This text, in the normal form of [`path::normalise`].
    Literal(String),
    /// `{name}` or `*`: any one segment that is not empty.
    Param(String),
}

/// A pattern for paths.
#[derive(Clone, Debug)]
pub enum PathPattern {
    /// `/a/{id}` (the whole path), or `/a/{id}/*` (a prefix by segments: `/a/1`, `/a/1/` and all below).
    Segments {
        /// The segments from the root.
        segments: Vec<Segment>,
        /// Whether more segments may follow.
        rest: bool,
    },
    /// `~^/a/[0-9]+$`: a regular expression over the whole path, unanchored as it is written.
    Regex(regex::Regex),
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(expression) = text.strip_prefix('~') {
            let built = regex::RegexBuilder::new(expression.trim_start()).size_limit(1 << 20).build();
            return built.map(Self::Regex).map_err(|e| {
                format!("a regular expression behind the ~: {}", e.to_string().lines().last().unwrap_or_default())
            });
        }
        if !text.starts_with('/') {
            return Err("a path that starts with / (or a regular expression behind a ~)".to_owned());
        }
        if text.contains(['?', '#']) {
            return Err("a path without a query; queries are matched under `query`".to_owned());
        }
        let (body, rest) = match text.strip_suffix("/*") {
            Some(body) => (body, true),
            None => (text, false),
        };
        let mut segments = Vec::new();
        for step in body.split('/').skip(1) {
            segments.push(Self::segment(step, body)?);
        }
        let mut names: Vec<&str> = Vec::new();
        for segment in &segments {
            if let Segment::Param(name) = segment {
                if !name.is_empty() && names.contains(&name.as_str()) {
                    return Err(format!("each parameter once; {{{name}}} is there twice"));
                }
                names.push(name);
            }
        }
        Ok(Self::Segments { segments, rest })
    }
}

impl PathPattern {
    /// Returns whether a matching path may begin with that prefix, by segments. For a regular expression it is always
    /// true.
    pub fn may_begin_with(&self, prefix: &str) -> bool {
        let Self::Segments { segments, rest } = self else { return true };
        let mut steps = prefix.split('/').skip(1);
        let agree = segments.iter().zip(&mut steps).all(|(segment, step)| match segment {
            Segment::Literal(text) => text == step,
            Segment::Param(_) => !step.is_empty(),
        });
        agree && (*rest || steps.next().is_none())
    }

    fn segment(step: &str, whole: &str) -> Result<Segment, String> {
        if step == "*" {
            return Ok(Segment::Param(String::new()));
        }
        if let Some(name) = step.strip_prefix('{').and_then(|s| s.strip_suffix('}')) {
            let fine = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return if fine {
                Ok(Segment::Param(name.to_owned()))
            } else {
                Err("a parameter name of letters, digits and _ within {}".to_owned())
            };
        }
        if step.strip_prefix(':').is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic())) {
            return Err("a parameter as {name}, or a regular expression behind a ~".to_owned());
        }
        if step.contains(['{', '}', '*']) {
            return Err("a segment that is a text, {name} or *, not a mixture (or use ~ and an expression)".to_owned());
        }
        // A literal that no normalised path can have would silently make the route unreachable.
        let dotted = matches!(step.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
        let inner_empty = step.is_empty() && !(whole.ends_with('/') && whole.matches("//").count() == 0);
        if dotted || inner_empty {
            return Err(
                "a path that can arrive: empty and dotted segments are removed before routes are matched".to_owned()
            );
        }
        let rooted = format!("/{step}");
        let normal = path::normalise(rooted.as_bytes()).map_err(|e| format!("a path that can arrive: {}", e.text()))?;
        if &normal[1..] != step {
            return Err(format!("a path in the form in which it arrives; write {:?} for {step:?}", &normal[1..]));
        }
        Ok(Segment::Literal(step.to_owned()))
    }

    /// Returns a path that the pattern matches, with a segment for each parameter that is no literal of any pattern;
    /// none for a regular expression.
    pub fn sample(&self) -> Option<String> {
        let Self::Segments { segments, .. } = self else { return None };
        let step = |segment: &Segment| match segment {
            Segment::Literal(text) => format!("/{text}"),
            Segment::Param(_) => "/{}".to_owned(),
        };
        let path: String = segments.iter().map(step).collect();
        Some(if path.is_empty() { "/".to_owned() } else { path })
    }

    /// Returns the names of the pattern's parameters; for an expression those of its groups, which also have numbers
    /// from 1.
    pub fn param_names(&self) -> Vec<Cow<'_, str>> {
        match self {
            Self::Segments { segments, .. } => {
                let named = segments.iter().filter_map(|segment| match segment {
                    Segment::Param(name) if !name.is_empty() => Some(Cow::Borrowed(name.as_str())),
                    _ => None,
                });
                named.collect()
            }
            Self::Regex(expression) => {
                let names = expression.capture_names().flatten().map(Cow::Borrowed);
                names.chain((1..expression.captures_len()).map(|n| Cow::Owned(n.to_string()))).collect()
            }
        }
    }

    /// Returns whether the pattern matches a path.
    pub fn matches(&self, path: &str) -> bool {
        let (segments, rest) = match self {
            Self::Regex(expression) => return expression.is_match(path),
            Self::Segments { segments, rest } => (segments, *rest),
        };
        let mut steps = path.split('/').skip(1);
        let agree = segments.iter().all(|segment| match (segment, steps.next()) {
            (Segment::Literal(text), Some(step)) => text == step,
            (Segment::Param(_), Some(step)) => !step.is_empty(),
            (_, None) => false,
        });
        agree && (rest || steps.next().is_none())
    }

    /// Returns the value of the parameter, or of the expression's group, of that name in `path`.
    pub fn value<'p>(&self, path: &'p str, name: &str) -> Option<&'p str> {
        match self {
            Self::Segments { .. } => self.params(path).find(|(known, _)| *known == name).map(|(_, value)| value),
            Self::Regex(expression) => {
                let groups = expression.captures(path)?;
                let group = match name.parse() {
                    Ok(number) => groups.get(number),
                    Err(_) => groups.name(name),
                };
                group.map(|found| found.as_str())
            }
        }
    }

    /// Returns the part of a path that the pattern's final `/*` matches, without the slash before it.
    pub fn rest<'p>(&self, path: &'p str) -> &'p str {
        let Self::Segments { segments, rest: true } = self else { return "" };
        let mut rest = path.get(1..).unwrap_or_default();
        for _ in segments {
            rest = rest.split_once('/').map_or("", |(_, rest)| rest);
        }
        rest
    }

    /// Returns the values of all names in `path`, and the rest as `*` where there is one.
    pub fn all_values(&self, path: &str) -> Vec<(Box<str>, Box<str>)> {
        let pair = |name: &str, value: &str| (Box::from(name), Box::from(value));
        let names = self.param_names();
        let named = names.iter().filter_map(|name| Some(pair(name, self.value(path, name)?)));
        let rest = matches!(self, Self::Segments { rest: true, .. }).then(|| pair("*", self.rest(path)));
        named.chain(rest).collect()
    }

    /// Returns the values of the named parameters in `path`, in the order of the pattern.
    pub fn params<'p, 's>(&'s self, path: &'p str) -> impl Iterator<Item = (&'s str, &'p str)> {
        let segments: &[Segment] = match self {
            Self::Segments { segments, .. } => segments,
            Self::Regex(_) => &[],
        };
        segments.iter().zip(path.split('/').skip(1)).filter_map(|(segment, value)| match segment {
            Segment::Param(name) if !name.is_empty() => Some((name.as_str(), value)),
            _ => None,
        })
    }

    fn tier(&self) -> u8 {
        match self {
            Self::Segments { rest: true, .. } => 0,
            Self::Regex(_) => 1,
            Self::Segments { rest: false, .. } => 2,
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Regex(expression) => write!(f, "~{expression}"),
            Self::Segments { segments, rest } => {
                for segment in segments {
                    match segment {
                        Segment::Literal(text) => write!(f, "/{text}")?,
                        Segment::Param(name) if name.is_empty() => write!(f, "/*")?,
                        Segment::Param(name) => write!(f, "/{{{name}}}")?,
                    }
                }
                if *rest { write!(f, "/*") } else { Ok(()) }
            }
        }
    }
}

impl Ord for PathPattern {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_tier = self.tier().cmp(&other.tier());
        by_tier.then_with(|| match (self, other) {
            (Self::Segments { segments: a, .. }, Self::Segments { segments: b, .. }) => by_segments(a, b),
            (Self::Regex(a), Self::Regex(b)) => {
                a.as_str().len().cmp(&b.as_str().len()).then_with(|| b.as_str().cmp(a.as_str()))
            }
            _ => Ordering::Equal,
        })
    }
}

/// Compares two patterns by the first segment that differs: a literal precedes a parameter, which precedes the end.
fn by_segments(a: &[Segment], b: &[Segment]) -> Ordering {
    for (left, right) in a.iter().zip(b) {
        let order = match (left, right) {
            (Segment::Literal(x), Segment::Literal(y)) => y.cmp(x),
            (Segment::Literal(_), Segment::Param(_)) => Ordering::Greater,
            (Segment::Param(_), Segment::Literal(_)) => Ordering::Less,
            (Segment::Param(_), Segment::Param(_)) => Ordering::Equal,
        };
        if order.is_ne() {
            return order;
        }
    }
    a.len().cmp(&b.len())
}

impl PartialOrd for PathPattern {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for PathPattern {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        assert_eq!("API.example.com".parse(), Ok(HostPattern::Exact("api.example.com".into())));
        assert_eq!("*.example.com".parse(), Ok(HostPattern::Below("example.com".into())));
        assert_eq!("*".parse(), Ok(HostPattern::Any));
        assert_eq!("[::1]".parse(), Ok(HostPattern::Exact("[::1]".into())));
        for wrong in ["", "a.*.b", "a:80", "a b", "*x.com", "é.com", ".a.com", "_", "a.com."] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn paths() {
        for right in ["/", "/v1/users:batch", "/a/:8", "/a", "/a/", "/a/{id}", "/a/*/b", "/*", "/a/*", "~^/x", "/a%2Fb"]
        {
            let parsed: PathPattern = right.parse().unwrap_or_else(|e| panic!("{right}: {e}"));
            assert_eq!(parsed.to_string(), right);
        }
        for wrong in
            ["", "a", "/a?b", "/a//b", "/../a", "/a{x}", "/{x}/{x}", "/{}", "/%41", "/a%2fb", "~(", "/a b", "/c/:id"]
        {
            assert!(wrong.parse::<PathPattern>().is_err(), "{wrong}");
        }
        for dotted in ["/a/../b", "/%2e/b", "/a/.%2E"] {
            assert!(dotted.parse::<PathPattern>().is_err_and(|why| why.contains("dotted segments")), "{dotted}");
        }
        let pattern: PathPattern = "/v/{a}/x/{b}".parse().expect("fine");
        assert_eq!(pattern.sample().as_deref(), Some("/v/{}/x/{}"));
        assert_eq!(pattern.params("/v/1/x/2").collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        let pattern: PathPattern = "~^/v(?<version>[0-9]+)/([a-z]+)".parse().expect("fine");
        assert_eq!(pattern.param_names(), ["version", "1", "2"]);
        for (name, value) in [("version", Some("2")), ("1", Some("2")), ("2", Some("users")), ("3", None), ("x", None)]
        {
            assert_eq!(pattern.value("/v2/users/7", name), value, "{name}");
        }
    }
}
