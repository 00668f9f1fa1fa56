//! `csrf`: rejects requests that pages of other sites make browsers send (CWE-352).
//!
//! Browsers say where a request comes from in `Sec-Fetch-Site` (W3C Fetch Metadata) and `Origin` (RFC 6454, section
//! 7). So no token is needed: a request that changes something has to come from the site itself, from an origin that
//! is named here, or from a program that is no browser and sends neither.

use http::Method;
use http::header::{HOST, HeaderName, ORIGIN};
use pingora::http::RequestHeader;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{CompileContext, HttpFilter, Stage, Verdict};
use crate::exchange::{Exchange, Reason, Rejection};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which other origins may send requests.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Origins such as `https://app.example.com` whose pages may send requests that change something.
    pub origins: Vec<String>,
    /// Whether pages of other hosts of the same site (`same-site`) may. Default false.
    pub same_site: bool,
}

/// The compiled filter.
#[derive(Debug)]
pub struct Filter {
    origins: Vec<String>,
    same_site: bool,
}

impl HttpFilter for Filter {
    type Config = Config;
    type Memory = ();
    const STAGE: Stage = Stage::Guard;

    fn compile(config: &Config, context: &mut CompileContext<'_>) -> Option<Self> {
        for (index, origin) in config.origins.iter().enumerate() {
            let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
            if !rest.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', '@', '?', ' '])) {
                let place = context.place.key("origins").index(index);
                context.mistakes.add(&place, "expected an origin such as https://app.example.com");
            }
        }
        let origins = config.origins.iter().map(|origin| origin.to_ascii_lowercase()).collect();
        Some(Self { origins, same_site: config.same_site })
    }

    async fn on_request(&self, request: &RequestHeader, _exchange: &mut Exchange, (): &mut ()) -> Verdict {
        // RFC 9110, section 9.2.1.
        if matches!(request.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE) {
            return Ok(());
        }
        let reject = |why: &str| Err(Rejection::new(Reason::CrossSite, "").log(why));
        let one = |name: &HeaderName| {
            let mut values = request.headers.get_all(name).iter();
            let value = values.next().map(|value| value.to_str().unwrap_or("").to_ascii_lowercase());
            if values.next().is_some() { Some(String::new()) } else { value }
        };
        let origin = one(&ORIGIN);
        if origin.as_ref().is_some_and(|origin| self.origins.contains(origin)) {
            return Ok(());
        }
        match one(&SEC_FETCH_SITE).as_deref() {
            Some("same-origin" | "none") => Ok(()),
            Some("same-site") if self.same_site => Ok(()),
            Some(_) => reject("Sec-Fetch-Site names another site"),
            None => match origin {
                None => Ok(()),
                Some(origin) if is_own(&origin, request) => Ok(()),
                Some(_) => reject("Origin names another host"),
            },
        }
    }
}

/// Returns whether an origin is the host of the request. The scheme is not compared: behind a proxy it is another.
fn is_own(origin: &str, request: &RequestHeader) -> bool {
    let host = request.uri.authority().map(http::uri::Authority::as_str);
    let host = host.or_else(|| request.headers.get(HOST).and_then(|host| host.to_str().ok()));
    let of_origin = origin.split_once("://").map(|(_, host)| host);
    of_origin.is_some_and(|of_origin| host.is_some_and(|host| host.eq_ignore_ascii_case(of_origin)))
}

#[cfg(test)]
mod tests {
    use crate::filters::test_kit::{compile, request};

    #[test]
    fn what_changes_something_has_to_come_from_the_site() {
        let yaml = "[{csrf: {origins: ['https://app.example.com']}}]";
        let host = ("host", "api.example.com");
        let passes = |yaml: &str, line: &str, headers: &[(&str, &str)]| {
            let mut kit = compile(yaml).expect("a filter");
            let headers: Vec<_> = [host].into_iter().chain(headers.iter().copied()).collect();
            match kit.on_request(request(line, &headers)) {
                Ok(()) => true,
                Err(rejection) => {
                    assert_eq!(rejection.reason.code(), "cross_site");
                    false
                }
            }
        };
        for (line, headers, wanted) in [
            ("GET /", vec![("sec-fetch-site", "cross-site")], true),
            ("POST /", vec![], true),
            ("POST /", vec![("sec-fetch-site", "same-origin")], true),
            ("POST /", vec![("sec-fetch-site", "none")], true),
            ("POST /", vec![("sec-fetch-site", "cross-site")], false),
            ("POST /", vec![("sec-fetch-site", "same-site")], false),
            ("DELETE /", vec![("origin", "https://evil.example")], false),
            ("POST /", vec![("origin", "null")], false),
            ("POST /", vec![("origin", "https://api.example.com")], true),
            ("POST /", vec![("origin", "https://API.example.com")], true),
            ("POST /", vec![("origin", "https://api.example.com.evil.example")], false),
            ("POST /", vec![("origin", "https://app.example.com"), ("sec-fetch-site", "same-site")], true),
            ("POST /", vec![("origin", "https://api.example.com"), ("origin", "https://evil.example")], false),
            ("POST /", vec![("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], false),
        ] {
            assert_eq!(passes(yaml, line, &headers), wanted, "{line} {headers:?}");
        }
        assert!(passes("[{csrf: {same_site: true}}]", "POST /", &[("sec-fetch-site", "same-site")]));
        assert!(compile("[{csrf: {origins: ['*']}}]").is_err());
    }
}
