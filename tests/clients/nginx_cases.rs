//! The requests that are sent to nginx and to the gateway, and what is meant to differ.

/// A request, the status that nginx responds with, and the parts of the response that are meant to differ.
pub struct Case {
    pub name: &'static str,
    /// The head, and the body behind an empty line; `Host` is www.example.com unless it is given.
    pub request: &'static str,
    pub status: &'static str,
    /// Each with the reason.
    pub differ: &'static [(&'static str, &'static str)],
}

/// Headers of responses that are not compared, with the reason.
pub const DIFFERENT_ANYWHERE: &[(&str, &str)] = &[
    ("date", "the time"),
    ("server", "the name of the program: nginx, or none"),
    ("x-request-id", "nginx has no request id that it would send"),
    ("connection", "HTTP/1.1 connections persist without it (RFC 9112, section 9.3)"),
    ("keep-alive", "only of use for HTTP/1.0"),
    ("transfer-encoding", "how a body of unknown length is framed; the bodies are compared"),
    ("expires", "Cache-Control, which is compared, takes precedence (RFC 9111, section 5.3)"),
    ("proxy-status", "the gateway says why it rejects a request (RFC 9209)"),
    ("ratelimit", "the gateway says what is left of a limit"),
    ("ratelimit-policy", "the gateway says which limit there is"),
];

/// Headers of responses with 4xx and 5xx that are not compared, with the reason.
pub const DIFFERENT_ON_ERRORS: &[(&str, &str)] = &[
    ("vary", "the gateway's pages are chosen by Accept"),
    ("etag", "nginx has tags for its pages, with which no request can be made conditional"),
    ("content-length", "a page from ${file:…} has no line feed at its end"),
];

const PAGE: (&str, &str) = ("body", "the built-in page");
const NO_PAGE: (&str, &str) = ("body", "the page of a redirect, which nobody sees");
const NO_TYPE: (&str, &str) = ("content-type", "that of the page");
const RANGES: (&str, &str) = ("accept-ranges", "nginx removes it from 206; it is allowed there");
const CHARSET: (&str, &str) = ("www-authenticate", "the gateway says that names and passwords are UTF-8 (RFC 7617)");
const VARY_304: (&str, &str) = ("vary", "nginx omits it, which RFC 9110, section 15.4.5 requires");

/// Headers of which targets get more than the example has nginx send.
pub const OF_THE_GATEWAY_ALONE: &[&str] =
    &["x-request-id", "traceparent", "x-forwarded-host", "x-forwarded-port", "connection"];

/// Returns a request to which the same response is expected.
const fn same(name: &'static str, status: &'static str, request: &'static str) -> Case {
    Case { name, request, status, differ: &[] }
}

/// Returns a request to which the same response is expected, but for some parts; where the status is one of them, its
/// reason begins with that of the gateway, and besides it `Location` is all that is compared.
const fn but(
    name: &'static str,
    status: &'static str,
    request: &'static str,
    differ: &'static [(&'static str, &'static str)],
) -> Case {
    Case { name, request, status, differ }
}

pub const CASES: &[Case] = &[
    same("a page", "200", "GET / HTTP/1.1"),
    same("HEAD", "200", "HEAD /index.html HTTP/1.1"),
    same("a folder", "200", "GET /docs/ HTTP/1.1"),
    same("a text", "200", "GET /docs/start.txt HTTP/1.1"),
    same("dots and slashes", "200", "GET //docs/./x/../st%61rt.txt HTTP/1.1"),
    same("a file is no folder", "404", "GET /docs/start.txt/ HTTP/1.1\nAccept: text/html"),
    but("above the root", "400", "GET /../secret HTTP/1.1\nAccept: text/html", &[PAGE]),
    but(
        "a folder without slash",
        "301",
        "GET /docs?page=2 HTTP/1.1",
        &[("status", "308: permanent as well, and keeps the method")],
    ),
    but(
        "a hidden file",
        "403",
        "GET /.env HTTP/1.1\nAccept: text/html",
        &[("status", "404: it is not disclosed that there is one")],
    ),
    but(
        "a folder without index",
        "403",
        "GET /empty/ HTTP/1.1\nAccept: text/html",
        &[("status", "404: it is not disclosed that there is one")],
    ),
    but(
        "a file is not written to",
        "405",
        "POST /index.html HTTP/1.1\nContent-Length: 1\nAccept: text/html\n\na",
        &[PAGE, ("allow", "RFC 9110, section 15.5.6 requires it")],
    ),
    but(
        "another host",
        "200",
        "GET / HTTP/1.1\nHost: other.example.com",
        &[("status", "404: no route names this host; nginx has its default server respond")],
    ),
    // Caches, gzip and ranges.
    same("a file that expires", "200", "GET /assets/site.css HTTP/1.1"),
    same("gzip", "200", "GET /assets/site.css HTTP/1.1\nAccept-Encoding: gzip"),
    same("HEAD with gzip", "200", "HEAD /assets/site.css HTTP/1.1\nAccept-Encoding: gzip"),
    same("gzip is not wanted", "200", "GET /assets/site.css HTTP/1.1\nAccept-Encoding: gzip;q=0, identity"),
    same("too short for gzip", "200", "GET / HTTP/1.1\nAccept-Encoding: gzip"),
    but("a range", "206", "GET /docs/start.txt HTTP/1.1\nRange: bytes=0-6", &[RANGES]),
    but("the end of a file", "206", "GET /docs/start.txt HTTP/1.1\nRange: bytes=-4", &[RANGES]),
    but(
        "a range beyond the end",
        "416",
        "GET /docs/start.txt HTTP/1.1\nRange: bytes=900-\nAccept: text/html",
        &[PAGE, ("x-content-type-options", "nginx writes it twice")],
    ),
    but(
        "two ranges",
        "206",
        "GET /docs/start.txt HTTP/1.1\nRange: bytes=0-1,4-5",
        &[("status", "200: several ranges get the whole file (RFC 9110, section 14.2)")],
    ),
    but(
        "a range and gzip",
        "200",
        "GET /assets/site.css HTTP/1.1\nRange: bytes=0-6\nAccept-Encoding: gzip",
        &[("status", "206: nginx compresses first, and then has no ranges")],
    ),
    but("If-Range", "206", "GET /assets/site.css HTTP/1.1\nIf-Range: {etag}\nRange: bytes=0-1", &[RANGES]),
    same("If-Range of another", "200", "GET /assets/site.css HTTP/1.1\nIf-Range: \"x\"\nRange: bytes=0-1"),
    but("If-None-Match", "304", "GET /assets/site.css HTTP/1.1\nIf-None-Match: {etag}", &[VARY_304]),
    but("If-None-Match of any", "304", "GET /assets/site.css HTTP/1.1\nIf-None-Match: *", &[VARY_304]),
    same("If-None-Match of another", "200", "GET /assets/site.css HTTP/1.1\nIf-None-Match: \"x\""),
    but("If-Modified-Since", "304", "GET /assets/site.css HTTP/1.1\nIf-Modified-Since: {modified}", &[VARY_304]),
    but("If-Match of another", "412", "GET /assets/site.css HTTP/1.1\nIf-Match: \"x\"\nAccept: text/html", &[PAGE]),
    // Pages.
    same("not found, for a browser", "404", "GET /none HTTP/1.1\nAccept: text/html,*/*;q=0.8"),
    but(
        "not found, for a program",
        "404",
        "GET /none HTTP/1.1",
        &[
            ("body", "a problem document (RFC 9457), where HTML is not asked for"),
            ("content-type", "that of the problem document"),
        ],
    ),
    same("no target", "502", "GET /reports/a HTTP/1.1\nAccept: text/html,*/*;q=0.8"),
    same("a fixed text", "200", "GET /robots.txt HTTP/1.1"),
    but("moved", "301", "GET /old/start.txt?a=b HTTP/1.1", &[NO_PAGE, NO_TYPE]),
    but(
        "maintenance",
        "503",
        "GET /cart HTTP/1.1\nHost: shop.example.com",
        &[("x-content-type-options", "the listener's, for all hosts")],
    ),
    but(
        "maintenance, POST",
        "503",
        "POST /cart HTTP/1.1\nHost: shop.example.com\nContent-Length: 1\n\na",
        &[("x-content-type-options", "the listener's, for all hosts")],
    ),
    // Passwords.
    but("no password", "401", "GET /private/ HTTP/1.1\nAccept: text/html", &[PAGE, CHARSET]),
    but(
        "a wrong password",
        "401",
        "GET /private/ HTTP/1.1\nAuthorization: Basic YWRhOndyb25n\nAccept: text/html",
        &[PAGE, CHARSET],
    ),
    same("the password", "200", "GET /private/ HTTP/1.1\nAuthorization: Basic YWRhOm9wZW4gc2VzYW1l"),
    but("by another path", "401", "GET /docs/..//private/index.html HTTP/1.1\nAccept: text/html", &[PAGE, CHARSET]),
    but("out of it", "200", "GET /private/%2e%2e/index.html HTTP/1.1", &[]),
    but(
        "without slash",
        "301",
        "GET /private HTTP/1.1\nAccept: text/html",
        &[
            ("status", "401: the prefix /private/* has the folder itself, so that it needs a password as well"),
            ("location", "nginx redirects to the folder"),
        ],
    ),
    but(
        "an escaped slash",
        "401",
        "GET /private%2Findex.html HTTP/1.1\nAccept: text/html",
        &[("status", "404: the gateway takes it for a part of the name; there is no such file")],
    ),
    // Targets.
    same("to a target", "200", "GET /api/users/7?fields=name HTTP/1.1"),
    same("with an identity", "200", "GET /api/a HTTP/1.1\nX-Forwarded-For: 192.0.2.1\nX-Real-IP: 192.0.2.1"),
    same("with escapes", "200", "GET /api/a%20b/%C3%A9?x=1%202&y=%2F HTTP/1.1"),
    same("with cookies", "200", "GET /api/a HTTP/1.1\nCookie: a=1; b=2\nAuthorization: Bearer x\nX-Any: 1"),
    but(
        "without slash",
        "301",
        "GET /api HTTP/1.1",
        &[("status", "200: the prefix /api/* has /api itself"), ("location", "nginx redirects to /api/")],
    ),
    same(
        "POST",
        "200",
        "POST /api/users HTTP/1.1\nContent-Type: application/json\nContent-Length: 10\n\n{\"a\": \"b\"}",
    ),
    same("DELETE", "200", "DELETE /api/users/7 HTTP/1.1"),
    but(
        "chunked",
        "200",
        "POST /api/users HTTP/1.1\nTransfer-Encoding: chunked\n\n3\r\nabc\r\n0\r\n\r\n",
        &[
            ("seen content-length", "nginx stores the body first, and then knows its length"),
            ("seen transfer-encoding", "the gateway forwards the body while it comes"),
        ],
    ),
    but("too large", "413", "POST /api/users HTTP/1.1\nContent-Length: 2000000\nAccept: text/html", &[PAGE]),
    same("headers of a target", "201", "GET /api/cookies HTTP/1.1"),
    same("404 of a target", "404", "GET /api/missing HTTP/1.1\nAccept: text/html"),
    same("503 of a target", "503", "GET /api/broken HTTP/1.1\nAccept: text/html"),
    same("gzip of a target", "200", "GET /api/document HTTP/1.1\nAccept-Encoding: br;q=0.5, gzip"),
    same("the first login", "200", "POST /api/login HTTP/1.1\nContent-Length: 0"),
    same("the second login", "200", "POST /api/login HTTP/1.1\nContent-Length: 0"),
    same("the third login", "200", "POST /api/login HTTP/1.1\nContent-Length: 0"),
    but(
        "the fourth login",
        "429",
        "POST /api/login HTTP/1.1\nContent-Length: 0\nAccept: text/html",
        &[PAGE, ("retry-after", "the gateway says when to come back")],
    ),
    same(
        "a WebSocket",
        "101",
        "GET /live/socket HTTP/1.1\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\
         Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==",
    ),
];
