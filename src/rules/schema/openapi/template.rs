//! Path templates of OpenAPI (3.1.1, "Path Templating") as patterns of routes.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::rules::path::{BadPath, normalise};
use crate::rules::routing::{PathPattern, Segment};

/// The place of a path parameter in a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathPlace {
    /// It is the segment of that number.
    Segment(usize),
    /// It is that group of the pattern's expression.
    Group(usize),
    /// It is all from the segment of that number on.
    Rest(usize),
}

/// A template as a pattern, and the places of its parameters.
#[derive(Clone, Debug)]
pub struct PathTemplate {
    /// The pattern, with the base path.
    pub pattern: PathPattern,
    /// The parameters in order.
    pub params: Vec<(String, PathPlace)>,
}

impl PathTemplate {
    /// Reads a template below a base path, which has no parameters.
    ///
    /// # Errors
    /// Returns what was expected.
    pub fn parse(base: &str, template: &str) -> Result<Self, String> {
        if !template.starts_with('/') {
            return Err("expected a path that begins with /".to_owned());
        }
        if template.contains(['?', '#']) {
            return Err(
                "expected a path without a query: parameters of the query are listed below parameters".to_owned()
            );
        }
        let whole = format!("{}{template}", base.trim_end_matches('/'));
        let mut steps: Vec<&str> = whole.split('/').skip(1).collect();
        let mut params: Vec<(String, PathPlace)> = Vec::new();
        // The notation of Amazon API Gateway for all that follows.
        let greedy = steps.last().and_then(|step| single_param(step)?.strip_suffix('+')).map(str::to_owned);
        if greedy.is_some() {
            steps.pop();
        }
        let is_mixed = |step: &&str| step.contains(['{', '}']) && single_param(step).is_none();
        let pattern = if steps.iter().any(is_mixed) {
            if greedy.is_some() {
                return Err("expected segments that are a text or a parameter before {name+}".to_owned());
            }
            Self::expression(&steps, &mut params)?
        } else {
            let segments = steps.iter().enumerate().map(|(index, step)| match single_param(step) {
                Some(name) => {
                    params.push((name.to_owned(), PathPlace::Segment(index)));
                    Ok(Segment::Param(name.to_owned()))
                }
                None => literal(step).map(Segment::Literal),
            });
            PathPattern::Segments { segments: segments.collect::<Result<_, String>>()?, rest: greedy.is_some() }
        };
        params.extend(greedy.map(|name| (name, PathPlace::Rest(steps.len()))));
        for (index, (name, _)) in params.iter().enumerate() {
            if params[..index].iter().any(|(other, _)| other == name) {
                return Err(format!("expected each parameter once; {{{name}}} is there twice"));
            }
        }
        Ok(Self { pattern, params })
    }

    /// Returns the pattern of a path in which a segment has a parameter and other text.
    fn expression(steps: &[&str], params: &mut Vec<(String, PathPlace)>) -> Result<PathPattern, String> {
        let mut text = String::from("^");
        for step in steps {
            text.push('/');
            let mut rest = *step;
            while let Some((before, behind)) = rest.split_once('{') {
                let (name, after) = behind.split_once('}').ok_or("expected a } behind {")?;
                text.push_str(&regex::escape(&literal(before)?));
                text.push_str("([^/]+?)");
                params.push((name.to_owned(), PathPlace::Group(params.len() + 1)));
                rest = after;
            }
            text.push_str(&regex::escape(&literal(rest)?));
        }
        text.push('$');
        let expression = regex::RegexBuilder::new(&text).size_limit(1 << 20).build();
        expression.map(PathPattern::Regex).map_err(|_| "expected a shorter path".to_owned())
    }

    /// Returns the undecoded values of the parameters in a path, in order.
    pub fn values<'p>(&self, path: &'p str) -> Vec<Option<&'p str>> {
        let groups = match &self.pattern {
            PathPattern::Regex(expression) => expression.captures(path),
            PathPattern::Segments { .. } => None,
        };
        let value = |(_, place): &(String, PathPlace)| match place {
            PathPlace::Segment(index) => path.split('/').nth(index + 1),
            PathPlace::Rest(_) => Some(self.pattern.rest(path)),
            PathPlace::Group(number) => groups.as_ref().and_then(|groups| groups.get(*number)).map(|m| m.as_str()),
        };
        self.params.iter().map(value).collect()
    }
}

/// Returns the name of the parameter that a segment is.
fn single_param(step: &str) -> Option<&str> {
    let name = step.strip_prefix('{')?.strip_suffix('}')?;
    (!name.is_empty() && !name.contains(['{', '}'])).then_some(name)
}

/// Returns a literal as it arrives: in the normal form of paths.
fn literal(step: &str) -> Result<String, String> {
    if step.is_empty() {
        return Ok(String::new());
    }
    let rooted = format!("/{step}");
    let wanted = |bad: BadPath| format!("expected a path that can arrive: {}", bad.text());
    let normal = normalise(rooted.as_bytes()).map_err(wanted)?;
    Ok(normal[1..].to_owned())
}

/// Returns the decoded text of a part of a path.
pub fn decode(text: &str) -> Result<String, ()> {
    percent_decode_str(text).decode_utf8().map(Cow::into_owned).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_become_patterns() {
        let template = PathTemplate::parse("/v1/", "/items/{item-id}/parts/{n}").expect("a template");
        assert_eq!(template.pattern.to_string(), "/v1/items/{item-id}/parts/{n}");
        assert_eq!(template.values("/v1/items/a%2Fb/parts/7"), [Some("a%2Fb"), Some("7")]);
        let template = PathTemplate::parse("", "/repos/{r}/compare/{base}...{head}").expect("a template");
        assert!(
            template.pattern.matches("/repos/x/compare/a...b") && !template.pattern.matches("/repos/x/compare/a..b")
        );
        assert_eq!(template.values("/repos/x/compare/a...b"), [Some("x"), Some("a"), Some("b")]);
        let template = PathTemplate::parse("/v1", "/files/{id}/{proxy+}").expect("a template");
        assert_eq!(template.values("/v1/files/7/a/b"), [Some("7"), Some("a/b")]);
        assert_eq!(template.values("/v1/files/7"), [Some("7"), Some("")]);
        assert_eq!(PathTemplate::parse("", "/").expect("the root").pattern.to_string(), "/");
        for wrong in ["items", "/a?x", "/{a}/{a}", "/x{a", "/a/../b"] {
            assert!(PathTemplate::parse("", wrong).is_err(), "{wrong}");
        }
    }
}
