//! Path templates of `google.api.http`: `/v1/{name=shelves/*/books/*}:read` (google/api/http.proto, "Path template
//! syntax").

use percent_encoding::percent_decode_str;

/// The most segments of a template.
const MAX_SEGMENTS: usize = 64;

/// A segment of a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// This segment.
    Literal(Box<str>),
    /// Any one segment that is not empty.
    One,
    /// All that follows, which may be nothing.
    Rest,
}

/// A variable of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateVariable {
    /// The names of the path to its field.
    pub field: Vec<String>,
    /// The first segment.
    pub start: usize,
    /// The segment behind the last; a rest ends with the path.
    pub end: usize,
    /// Whether it may have several segments, so that a slash in it has a meaning.
    pub is_multiple: bool,
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    /// The segments.
    pub segments: Vec<Segment>,
    /// The variables.
    pub variables: Vec<TemplateVariable>,
    /// The verb.
    pub verb: Option<Box<str>>,
}

impl PathTemplate {
    /// Parses a template.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix('/').ok_or("it does not begin with /")?;
        let mut parser = Parser { rest, segments: Vec::new(), variables: Vec::new() };
        if !rest.is_empty() {
            parser.segments(None)?;
        }
        let verb = match parser.rest.strip_prefix(':') {
            Some(verb) if !verb.is_empty() && !verb.contains(['/', '{', '}', '*', ':']) => Some(verb.into()),
            Some(_) => return Err("a verb is a word behind the last segment".to_owned()),
            None if parser.rest.is_empty() => None,
            None => return Err(format!("\"{}\" is not expected", parser.rest)),
        };
        let Parser { segments, variables, .. } = parser;
        if segments.len() > MAX_SEGMENTS {
            return Err(format!("it has more than {MAX_SEGMENTS} segments"));
        }
        if segments.iter().rev().skip(1).any(|segment| *segment == Segment::Rest) {
            return Err("** is only for the end".to_owned());
        }
        for (at, variable) in variables.iter().enumerate() {
            let clashes = |other: &TemplateVariable| {
                let (short, long) = if other.field.len() < variable.field.len() {
                    (&other.field, &variable.field)
                } else {
                    (&variable.field, &other.field)
                };
                long.starts_with(short)
            };
            if variables[..at].iter().any(clashes) {
                return Err(format!("{{{}}} is there twice", variable.field.join(".")));
            }
        }
        Ok(Self { segments, variables, verb })
    }

    /// Returns how many segments are literals.
    pub fn literals(&self) -> usize {
        self.segments.iter().filter(|segment| matches!(segment, Segment::Literal(_))).count()
    }
}

struct Parser<'t> {
    rest: &'t str,
    segments: Vec<Segment>,
    variables: Vec<TemplateVariable>,
}

impl Parser<'_> {
    /// Parses segments up to the end, the verb, or the end of the variable.
    fn segments(&mut self, variable: Option<()>) -> Result<(), String> {
        loop {
            if let Some(rest) = self.rest.strip_prefix("**") {
                self.rest = rest;
                self.segments.push(Segment::Rest);
            } else if let Some(rest) = self.rest.strip_prefix('*') {
                self.rest = rest;
                self.segments.push(Segment::One);
            } else if let Some(rest) = self.rest.strip_prefix('{') {
                if variable.is_some() {
                    return Err("a variable is within another".to_owned());
                }
                self.rest = rest;
                self.variable()?;
            } else {
                let end = self.rest.find(['/', ':', '{', '}', '*', '=']).unwrap_or(self.rest.len());
                let (literal, rest) = self.rest.split_at(end);
                let decoded = percent_decode_str(literal).decode_utf8().map_err(|_| "it is not UTF-8".to_owned())?;
                if decoded.is_empty() {
                    return Err("a segment is empty".to_owned());
                }
                self.segments.push(Segment::Literal(decoded.into()));
                self.rest = rest;
            }
            match self.rest.strip_prefix('/') {
                Some(rest) => self.rest = rest,
                None => return Ok(()),
            }
        }
    }

    fn variable(&mut self) -> Result<(), String> {
        let end = self.rest.find(['=', '}']).ok_or("a { has no }")?;
        let (name, rest) = self.rest.split_at(end);
        let field: Vec<String> = name.split('.').map(str::to_owned).collect();
        let is_name = |part: &String| {
            !part.is_empty()
                && !part.starts_with(|c: char| c.is_ascii_digit())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        if !field.iter().all(is_name) {
            return Err(format!("\"{name}\" is no name of a field"));
        }
        let start = self.segments.len();
        self.rest = rest;
        if let Some(rest) = self.rest.strip_prefix('=') {
            self.rest = rest;
            self.segments(Some(()))?;
        } else {
            self.segments.push(Segment::One);
        }
        self.rest = self.rest.strip_prefix('}').ok_or("a { has no }")?;
        let end = self.segments.len();
        let is_multiple = end - start > 1 || self.segments[start..].contains(&Segment::Rest);
        self.variables.push(TemplateVariable { field, start, end, is_multiple });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_parsed() {
        let parsed = PathTemplate::parse("/v1/{name=shelves/*/books/**}:read").expect("a template");
        let literal = |text: &str| Segment::Literal(text.into());
        assert_eq!(parsed.segments, [literal("v1"), literal("shelves"), Segment::One, literal("books"), Segment::Rest]);
        assert_eq!(parsed.verb.as_deref(), Some("read"));
        let [variable] = parsed.variables.as_slice() else { panic!("one variable") };
        assert_eq!((variable.start, variable.end, variable.is_multiple), (1, 5, true));
        assert_eq!(PathTemplate::parse("/").map(|t| t.segments.len()), Ok(0));
        let two = PathTemplate::parse("/{a.b}/x/{c=*}").expect("a template");
        assert_eq!(
            two.variables.iter().map(|v| (v.start, v.is_multiple)).collect::<Vec<_>>(),
            [(0, false), (2, false)]
        );
        assert_eq!(two.variables[0].field, ["a", "b"]);
        assert_eq!(PathTemplate::parse("/caf%C3%A9").map(|t| t.segments), Ok(vec![literal("café")]));
    }

    #[test]
    fn what_is_no_template_is_an_error() {
        for wrong in [
            "",
            "v1",
            "/v1/",
            "//",
            "/a/**/b",
            "/{a=**}/b",
            "/{a={b}}",
            "/{a",
            "/{}",
            "/{a.}",
            "/{1a}",
            "/a:",
            "/a:b/c",
            "/{a}/{a}",
            "/{a}/{a.b}",
            "/{a}b",
            "/a*",
            "/a:b:c",
            "/{a=}",
            "/%FF",
            "/a}",
            "/a=b",
        ] {
            assert!(PathTemplate::parse(wrong).is_err(), "{wrong}");
        }
    }
}
