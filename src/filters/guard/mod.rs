//! `guard`: rejects requests that look like attacks, and methods and media types that the route does not expect.

mod document;

use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HeaderValue, REFERER, USER_AGENT};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use self::document::JsonPart;
use super::json::is_json;
use super::{CompileContext, HttpFilter, Needs, Stage, Verdict};
use crate::exchange::{Exchange, Reason, Rejection};
use crate::notation::{MethodName, Size};
use crate::rules::guard::{AttackKind, AttackKinds, Inspector, Paranoia, Sign};
use crate::rules::routing::{allow, form_decode};

/// What is taken for an attack.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The kinds of attacks. Default: all. An empty list: none, for the lists of methods and media types alone.
    pub rules: Option<Vec<AttackKind>>,
    /// How much is taken for an attack: 1 what is hardly ever anything else, 2 what is seldom, 3 what is often.
    /// Default 1.
    #[schemars(range(min = 1, max = 3))]
    pub paranoia: Option<u8>,
    /// The longest body that is inspected, if it is JSON or a form; a longer one is rejected. Default: no body is
    /// inspected.
    pub body: Option<Size>,
    /// Values in which some kinds are not looked for.
    pub except: Vec<Exception>,
    /// The only methods. Default: those of the route.
    pub methods: Option<Vec<MethodName>>,
    /// The only media types of bodies: `application/json`, `image/*`. Default: any.
    pub content_types: Option<Vec<String>>,
}

/// A value in which some kinds of attacks are not looked for.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// The name of a query parameter, a field of a form, a member of a JSON document, or a cookie.
    pub name: String,
    /// The kinds. Default: all.
    pub rules: Option<Vec<AttackKind>>,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    inspector: &'static Inspector,
    kinds: AttackKinds,
    exceptions: Vec<(String, AttackKinds)>,
    body: Option<u64>,
    methods: Option<(Vec<http::Method>, HeaderValue)>,
    content_types: Option<Vec<String>>,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Guard;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        let paranoia = match config.paranoia {
            Some(2) => Paranoia::Two,
            Some(3) => Paranoia::Three,
            _ => Paranoia::One,
        };
        let kinds = |list: &Option<Vec<AttackKind>>| list.as_deref().map_or(AttackKinds::all(), AttackKinds::of);
        let methods = config.methods.as_ref().map(|all| {
            let methods: Vec<http::Method> = all.iter().map(|method| method.0.clone()).collect();
            let value = HeaderValue::try_from(allow(&methods));
            (methods, value.unwrap_or_else(|_| HeaderValue::from_static("")))
        });
        for (index, text) in config.content_types.iter().flatten().enumerate() {
            if !text.split_once('/').is_some_and(|(kind, part)| !kind.is_empty() && !part.is_empty()) {
                let place = context.place.key("content_types").index(index);
                context.mistakes.add(&place, "expected a media type such as application/json or image/*");
            }
        }
        Some(Self {
            inspector: Inspector::at(paranoia),
            kinds: kinds(&config.rules),
            exceptions: config.except.iter().map(|one| (one.name.clone(), kinds(&one.rules))).collect(),
            body: config.body.as_ref().map(|size| size.0),
            methods,
            content_types: config
                .content_types
                .as_ref()
                .map(|all| all.iter().map(|text| text.to_ascii_lowercase()).collect()),
        })
    }

    fn needs(&self) -> Needs {
        self.body.map_or(Needs::Heads, Needs::RequestBody)
    }

    async fn on_request(&self, request: &RequestHeader, _exchange: &mut Exchange, (): &mut ()) -> Verdict {
        self.check_method(request)?;
        self.check_type(request)?;
        let no_name = "";
        let path = request.uri.path();
        self.check(no_name, path.as_bytes(), "the path")?;
        // A target takes parts of it for values.
        path.split('/').try_for_each(|part| self.check(no_name, part.as_bytes(), "the path"))?;
        for pair in request.uri.query().into_iter().flat_map(|query| query.split('&')) {
            self.check_pair(pair.as_bytes(), "a query parameter")?;
        }
        for line in request.headers.get_all(COOKIE) {
            for pair in line.as_bytes().split(|byte| *byte == b';') {
                self.check_pair(pair.trim_ascii(), "a cookie")?;
            }
        }
        for name in [USER_AGENT, REFERER] {
            for value in request.headers.get_all(&name) {
                let sign = self.inspector.inspect_client(value.as_bytes(), self.kinds);
                reject(sign, name.as_str())?;
            }
        }
        Ok(())
    }

    fn on_request_body(&self, body: &[u8], request: &RequestHeader, _exchange: &mut Exchange) -> Verdict {
        if self.body.is_none() || body.is_empty() {
            return Ok(());
        }
        let coded = |coding: &HeaderValue| !coding.as_bytes().eq_ignore_ascii_case(b"identity");
        if request.headers.get_all(CONTENT_ENCODING).iter().any(coded) {
            // RFC 7694, section 3.
            let rejection = Rejection::new(Reason::MediaType, "send the body without a content coding");
            return Err(rejection.header(ACCEPT_ENCODING, HeaderValue::from_static("identity")));
        }
        let kind = request.headers.get(CONTENT_TYPE).map(|value| value.as_bytes().to_ascii_lowercase());
        if kind.as_ref().is_some_and(|kind| kind.starts_with(b"application/x-www-form-urlencoded")) {
            return body.split(|byte| *byte == b'&').try_for_each(|pair| self.check_pair(pair, "a field of the form"));
        }
        // A body without a type may be anything to the target.
        let is_plain = kind.as_ref().is_some_and(|kind| kind.starts_with(b"text/plain"));
        if kind.is_none() || is_plain || is_json(&request.headers) {
            return self.check_json(body);
        }
        Ok(())
    }
}

/// Rejects a request with a sign of an attack. What it is stands in the log alone.
fn reject(sign: Option<Sign>, place: &str) -> Verdict {
    let Some(sign) = sign else { return Ok(()) };
    let text = format!("{} in {place} (rule {})", sign.kind.name(), sign.rule);
    Err(Rejection::new(Reason::AttackDetected, "").log(text))
}

impl Filter {
    /// Checks a value, and whether kinds are excepted under its name.
    fn check(&self, name: &str, value: &[u8], place: &str) -> Verdict {
        match self.inspector.inspect(value, self.kinds_of(name)) {
            None => Ok(()),
            // A name may be long, and is the client's.
            sign if name.is_empty() => reject(sign, place),
            sign => {
                reject(sign, &format!("{place} \"{}\"", name.chars().take(64).collect::<String>().escape_default()))
            }
        }
    }

    /// Returns the kinds that are looked for in the value of that name.
    fn kinds_of(&self, name: &str) -> AttackKinds {
        let of_name = self.exceptions.iter().filter(|(excepted, _)| excepted == name);
        of_name.fold(self.kinds, |kinds, (_, excepted)| kinds.without(*excepted))
    }

    /// Checks a name and its value, `name=value`.
    fn check_pair(&self, pair: &[u8], place: &str) -> Verdict {
        let at = memchr::memchr(b'=', pair).unwrap_or(pair.len());
        let (name, value) = (&pair[..at], pair.get(at + 1..).unwrap_or_default());
        let decoded = form_decode(name);
        let text = String::from_utf8_lossy(&decoded);
        self.check("", name, place_of_name(place))?;
        self.check(&text, value, place)
    }

    /// Checks every name and every text of a document; one that is no JSON is checked as a whole.
    fn check_json(&self, body: &[u8]) -> Verdict {
        let mut verdict = Ok(());
        let is_json = document::inspect_json(body, &mut |part, name, text| {
            verdict = match part {
                JsonPart::Name => {
                    reject(self.inspector.inspect_name(text, self.kinds_of(text)), "the name of a member")
                }
                JsonPart::Text => self.check(name, text.as_bytes(), "the member"),
            };
            verdict.is_ok()
        });
        if is_json || verdict.is_err() { verdict } else { self.check("", body, "the body") }
    }

    fn check_method(&self, request: &RequestHeader) -> Verdict {
        match &self.methods {
            Some((methods, value)) if !methods.contains(&request.method) => {
                let detail = format!("allowed here: {}", value.to_str().unwrap_or_default());
                Err(Rejection::new(Reason::MethodNotAllowed, detail).header(ALLOW, value.clone()))
            }
            _ => Ok(()),
        }
    }

    fn check_type(&self, request: &RequestHeader) -> Verdict {
        let Some(accepted) = &self.content_types else { return Ok(()) };
        let mut values = request.headers.get_all(CONTENT_TYPE).iter();
        let Some(value) = values.next() else { return Ok(()) };
        let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
        let kind = text.split(';').next().unwrap_or_default().trim();
        let fits = |accepted: &String| match accepted.strip_suffix('*') {
            Some(start) => kind.starts_with(start),
            None => kind == accepted,
        };
        if values.next().is_none() && accepted.iter().any(fits) {
            return Ok(());
        }
        Err(Rejection::new(Reason::MediaType, format!("accepted here: {}", accepted.join(", "))))
    }
}

fn place_of_name(place: &str) -> &'static str {
    match place {
        "a cookie" => "the name of a cookie",
        "a query parameter" => "the name of a query parameter",
        _ => "the name of a field of the form",
    }
}

#[cfg(test)]
mod tests {
    use crate::filters::test_kit::{compile, request};

    fn outcome(yaml: &str, line: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut kit = compile(yaml).expect("a filter");
        let verdict = kit.on_request(request(line, headers)).and_then(|()| kit.on_request_body(body.as_bytes()));
        verdict.err().map_or_else(String::new, |rejection| {
            format!("{} {}", rejection.reason.code(), rejection.log.clone().unwrap_or_default())
        })
    }

    #[test]
    fn attacks_are_found_wherever_they_are_and_named_in_the_log_alone() {
        let yaml = "[{guard: {body: 1KiB}}]";
        let (json, form) =
            (("content-type", "application/json"), ("content-type", "application/x-www-form-urlencoded"));
        for (line, headers, body, sign) in [
            ("GET /?q=%27+OR+1%3D1--", vec![], "", "sql_injection in a query parameter \"q\""),
            ("GET /?%3Cscript%3E=1", vec![], "", "cross_site_scripting in the name of a query parameter"),
            ("GET /a/%24%7Bjndi:ldap:%7D", vec![], "", "code_injection in the path"),
            ("GET /", vec![("cookie", "a=1; b=../../etc/passwd")], "", "in a cookie \"b\""),
            ("GET /", vec![("user-agent", "sqlmap/1.8#stable")], "", "scanner in user-agent"),
            ("GET /", vec![("referer", "() { :; }; /bin/bash -c id")], "", "command_injection in referer"),
            ("POST /", vec![json], r#"{"a": [{"note": "x'; DROP TABLE users--"}]}"#, "in the member \"note\""),
            ("POST /", vec![json], r#"{"a": "{\"$ne\": 1}"}"#, "sql_injection in the member \"a\""),
            ("POST /", vec![json], r#"{"password": {"$ne": null}}"#, "sql_injection in the name of a member"),
            ("POST /", vec![("content-type", "text/plain")], r#"{"$where": "1"}"#, "sql_injection in the name"),
            ("GET /a/1%20OR%201=1/b", vec![], "", "sql_injection in the path"),
            ("GET /?u=jav%26%23x09;ascript:alert(1)", vec![], "", "cross_site_scripting"),
            ("POST /", vec![form], "a=1&b=%3Csvg+onload%3Dalert(1)%3E", "in a field of the form \"b\""),
            ("POST /", vec![json], r#"{"a": "<script>x</script>", "a": 1}"#, "in the member \"a\""),
            ("POST /", vec![json], "<script>alert(1)</script>", "cross_site_scripting in the body"),
        ] {
            let found = outcome(yaml, line, &headers, body);
            assert!(found.starts_with("attack_detected ") && found.contains(sign), "{line} {body}: {found}");
        }
        for (line, headers, body) in [
            ("GET /search?q=it%27s+5+o%27clock&page=2", vec![("user-agent", "Mozilla/5.0 (X11; Linux x86_64)")], ""),
            ("POST /", vec![json], r#"{"name": "O'Brien", "text": "a < b && c > d; e"}"#),
            ("POST /", vec![form], "name=Tom+%26+Jerry&url=https%3A%2F%2Fexample.com%2F%3Fa%3D1"),
            ("POST /", vec![("content-type", "image/png")], "<script>"),
        ] {
            assert_eq!(outcome(yaml, line, &headers, body), "", "{line} {body}");
        }
    }

    #[test]
    fn kinds_and_names_are_excepted_and_lists_hold() {
        let attack = "GET /?html=%3Cscript%3Ex%3C/script%3E&q=1";
        assert_ne!(outcome("[{guard: {}}]", attack, &[], ""), "");
        assert_eq!(outcome("[{guard: {except: [{name: html}]}}]", attack, &[], ""), "");
        let one = "[{guard: {except: [{name: html, rules: [sql_injection]}]}}]";
        assert_ne!(outcome(one, attack, &[], ""), "");
        assert_eq!(outcome("[{guard: {rules: [sql_injection]}}]", attack, &[], ""), "");
        let lists = "[{guard: {methods: [GET, POST], content_types: [application/json, image/*]}}]";
        for (line, kind, wanted) in [
            ("DELETE /", "application/json", "method_not_allowed "),
            ("POST /", "text/plain", "media_type "),
            ("POST /", "Application/JSON; charset=utf-8", ""),
            ("POST /", "image/png", ""),
            ("POST /", "application/jsonx", "media_type "),
        ] {
            assert_eq!(outcome(lists, line, &[("content-type", kind)], ""), wanted, "{line} {kind}");
        }
        assert_eq!(outcome("[{guard: {body: 1KiB}}]", "POST /", &[("content-encoding", "gzip")], "x"), "media_type ");
        assert!(compile("[{guard: {content_types: [json]}}]").err().expect("an error").contains("a media type"));
    }
}
