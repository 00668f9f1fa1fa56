//! Clauses on what is stored, under which key, and for which requests: RFC 9111, sections 2, 3 and 4.1.

use super::caching::{Fields, Row, fetch, fetch_status, hit, row, row_at, validate};

const FRESH: Fields = &[("cache-control", "max-age=60")];

/// Returns the rows.
pub fn rows() -> Vec<Row> {
    [statuses(), forbidden(), authorized(), fields(), keys(), varying(), settings()].into_iter().flatten().collect()
}

fn statuses() -> Vec<Row> {
    let explicit = [
        ("9111 §3: 200 with freshness", 200),
        ("9111 §3: 203 with freshness", 203),
        ("9111 §3: 204 with freshness", 204),
        ("9111 §3: 299 with freshness", 299),
        ("9111 §3: 301 with freshness", 301),
        ("9111 §3: 302 with freshness", 302),
        ("9111 §3: 307 with freshness", 307),
        ("9111 §3: 308 with freshness", 308),
        ("9111 §3: 400 with freshness", 400),
        ("9111 §3: 404 with freshness", 404),
        ("9111 §3: 410 with freshness", 410),
        ("9111 §3: 499 with freshness", 499),
        ("9111 §3: 500 with freshness", 500),
        ("9111 §3: 503 with freshness", 503),
        ("9111 §3: 599 with freshness", 599),
    ];
    let guessed = [
        ("9110 §15.1: 404 is heuristically cacheable", 404),
        ("9110 §15.1: 405 is heuristically cacheable", 405),
        ("9110 §15.1: 410 is heuristically cacheable", 410),
        ("9110 §15.1: 414 is heuristically cacheable", 414),
        ("9110 §15.1: 501 is heuristically cacheable", 501),
    ];
    let not_guessed = [
        ("9110 §15.1: 201 is not", 201),
        ("9110 §15.1: 202 is not", 202),
        ("9110 §15.1: 302 is not", 302),
        ("9110 §15.1: 502 is not", 502),
        ("9110 §15.1: 503 is not", 503),
    ];
    const MODIFIED: Fields = &[("last-modified", "{now-86400}"), ("date", "{now}")];
    let explicit =
        explicit.into_iter().map(|(clause, status)| row(clause, [fetch_status(status, FRESH), hit().gets(status)]));
    let guessed =
        guessed.into_iter().map(|(clause, status)| row(clause, [fetch_status(status, MODIFIED), hit().gets(status)]));
    let not_guessed = not_guessed
        .into_iter()
        .map(|(clause, status)| row(clause, [fetch_status(status, MODIFIED), fetch_status(status, MODIFIED)]));
    explicit
        .chain(guessed)
        .chain(not_guessed)
        .chain([row(
            "9111 §3.3: a part is not stored",
            [
                fetch_status(206, &[("cache-control", "max-age=60"), ("content-range", "bytes 0-1/9")]).sends("ab"),
                fetch(FRESH),
            ],
        )])
        .collect()
}

fn forbidden() -> Vec<Row> {
    let not_stored =
        |clause, control: Fields| row(clause, [fetch(control), fetch(FRESH).asks_without("if-none-match")]);
    vec![
        not_stored("9111 §5.2.2.5: no-store", &[("cache-control", "no-store, max-age=60")]),
        not_stored("9111 §5.2.2.5: No-StOrE", &[("cache-control", "No-StOrE, max-age=60")]),
        not_stored(
            "9111 §5.2.2.5: no-store in another line",
            &[("cache-control", "max-age=60"), ("cache-control", "no-store")],
        ),
        not_stored("9111 §5.2.2.5: no-store with a tag", &[("cache-control", "no-store"), ("etag", "\"a\"")]),
        not_stored("9111 §5.2.2.7: private", &[("cache-control", "private, max-age=60")]),
        not_stored("9111 §5.2.2.7: private with s-maxage", &[("cache-control", "private, s-maxage=60")]),
        not_stored("9111 §4.1: Vary: *", &[("cache-control", "max-age=60"), ("vary", "*")]),
        not_stored("9111 §4.1: Vary: * among others", &[("cache-control", "max-age=60"), ("vary", "a, *")]),
        not_stored("cookies: a response that sets one", &[("cache-control", "max-age=60"), ("set-cookie", "a=b")]),
        row(
            "9111 §5.2.2.3: must-understand lifts no-store",
            [fetch(&[("cache-control", "max-age=60, no-store, must-understand")]), hit()],
        ),
        row(
            "9111 §5.2.2.3: unless the status is unknown",
            [fetch_status(599, &[("cache-control", "max-age=60, no-store, must-understand")]), fetch(FRESH)],
        ),
        row(
            "9111 §5.2.1.5: no-store in the request",
            [fetch(FRESH).with(&[("cache-control", "no-store")]), fetch(FRESH), hit()],
        ),
        row("9111 §5.2.1.5: what is stored may be used", [fetch(FRESH), hit().with(&[("cache-control", "no-store")])]),
        row("9111 §3: the response to POST is not stored", [fetch(FRESH).by("POST"), fetch(FRESH)]),
        row("9111 §3: nor that to PUT", [fetch(FRESH).by("PUT"), fetch(FRESH)]),
        row("9111 §3: nor that to an unknown method", [fetch(FRESH).by("FOO"), fetch(FRESH)]),
    ]
}

fn authorized() -> Vec<Row> {
    const SECRET: Fields = &[("authorization", "Basic YTpi")];
    let of = |clause, control: Fields, next| row(clause, [fetch(control).with(SECRET), next]);
    vec![
        of("9111 §3.5: a request with credentials", FRESH, fetch(FRESH)),
        of("9111 §3.5: with public", &[("cache-control", "max-age=60, public")], hit()),
        of("9111 §3.5: with must-revalidate", &[("cache-control", "max-age=60, must-revalidate")], hit()),
        of("9111 §3.5: with s-maxage", &[("cache-control", "s-maxage=60")], hit()),
        row("9111 §3.5: what is stored may be used for it", [fetch(FRESH), hit().with(SECRET)]),
    ]
}

fn fields() -> Vec<Row> {
    let kept: &[(&'static str, &'static str, &'static str)] = &[
        ("9111 §3.1: an unknown field is stored", "x-test", "1"),
        ("9111 §3.1: Content-Type is stored", "content-type", "text/plain;charset=utf-8"),
        ("9111 §3.1: Content-Encoding is stored", "content-encoding", "x-test"),
        ("9111 §3.1: Content-Language is stored", "content-language", "en"),
        ("9111 §3.1: Content-Location is stored", "content-location", "/foo"),
        ("9111 §3.1: ETag is stored", "etag", "\"a\""),
        ("9111 §3.1: Expires is stored", "expires", "Fri, 01 Jan 2038 01:01:01 GMT"),
        ("9111 §3.1: Last-Modified is stored", "last-modified", "Fri, 01 Jan 2010 01:01:01 GMT"),
        ("9111 §3.1: Link is stored", "link", "</a>; rel=x"),
        ("9111 §3.1: Server is stored", "server", "x"),
        ("9111 §3.1: X-Frame-Options is stored", "x-frame-options", "deny"),
    ];
    let lost: &[(&'static str, &'static str, &'static str)] = &[
        ("9111 §3.1: Keep-Alive is not stored", "keep-alive", "timeout=5"),
        ("9111 §3.1: Proxy-Authenticate is not stored", "proxy-authenticate", "Basic"),
        ("9111 §3.1: Proxy-Authentication-Info is not stored", "proxy-authentication-info", "x"),
        ("9111 §3.1: Proxy-Connection is not stored", "proxy-connection", "close"),
        ("9111 §3.1: TE is not stored", "te", "x"),
        ("9111 §3.1: Upgrade is not stored", "upgrade", "x"),
    ];
    // The fields of a row live as long as the test.
    let with = |name: &'static str, value: &'static str| -> Fields {
        Box::leak(Box::new([("cache-control", "max-age=60"), (name, value)]))
    };
    let kept = kept.iter().map(|(clause, name, value)| row(clause, [fetch(with(name, value)), hit().has(name, value)]));
    let lost = lost.iter().map(|(clause, name, value)| row(clause, [fetch(with(name, value)), hit().lacks(name)]));
    let named = |clause, control: &'static str, next: super::caching::Step| {
        row(clause, [fetch(Box::leak(Box::new([("cache-control", control), ("a", "1"), ("b", "2")]))), next])
    };
    kept.chain(lost)
        .chain([
            row(
                "9110 §7.6.1: what Connection names is not stored",
                [
                    fetch(&[
                        ("cache-control", "max-age=60"),
                        ("connection", "a, b"),
                        ("a", "1"),
                        ("b", "2"),
                        ("c", "3"),
                    ]),
                    hit().lacks("a").lacks("b").has("c", "3"),
                ],
            ),
            named(
                "9111 §5.2.2.7: a field that private names",
                "max-age=60, private=\"a\"",
                hit().lacks("a").has("b", "2"),
            ),
            named(
                "9111 §5.2.2.4: a field that no-cache names",
                "max-age=60, no-cache=\"a\"",
                hit().lacks("a").has("b", "2"),
            ),
            row(
                "9111 §5.2.2.7: the first client gets it",
                [fetch(&[("cache-control", "max-age=60, private=\"a\""), ("a", "1")]).has("a", "1"), hit().lacks("a")],
            ),
            row(
                "9111 §3.1: several lines of a field",
                [fetch(&[("cache-control", "max-age=60"), ("x", "1"), ("x", "2")]), hit().has("x", "1, 2")],
            ),
            row("9111 §3: the body is stored", [fetch(FRESH).sends("a longer body than that"), hit()]),
            row("9111 §3: an empty body, too", [fetch_status(204, FRESH), hit().gets(204)]),
        ])
        .collect()
}

fn keys() -> Vec<Row> {
    vec![
        row(
            "9111 §2: another query is another response",
            [fetch(FRESH).at("?a=1"), fetch(FRESH).at("?a=2"), hit().at("?a=2")],
        ),
        row("9111 §2: no query and an empty one differ", [fetch(FRESH), fetch(FRESH).at("?")]),
        row("9111 §2: the order of parameters counts", [fetch(FRESH).at("?a=1&b=2"), fetch(FRESH).at("?b=2&a=1")]),
        row("9111 §2: another path is another response", [fetch(FRESH), fetch(FRESH).at("~b"), hit().at("~b")]),
        row("9110 §4.2.3: paths are compared in their normal form", [fetch(FRESH).at("~a"), hit().at("~%61")]),
        row("9111 §4: HEAD is served from GET", [fetch(FRESH), hit().by("HEAD")]),
        row(
            "9111 §4: with the same fields",
            [fetch(&[("cache-control", "max-age=60"), ("x", "1")]), hit().by("HEAD").has("x", "1")],
        ),
        row("9111 §4: GET is not served from HEAD", [fetch(FRESH).by("HEAD"), fetch(FRESH)]),
        row_at("noquery", "key.query: none", [fetch(FRESH).at("?a=1"), hit().at("?a=2"), hit()]),
        row_at(
            "onlyquery",
            "key.query: only",
            [fetch(FRESH).at("?page=1&x=1"), hit().at("?page=1&x=2"), fetch(FRESH).at("?page=2")],
        ),
        row_at(
            "utm",
            "key.query: without",
            [fetch(FRESH).at("?a=1&utm_x=2"), hit().at("?a=1"), fetch(FRESH).at("?a=2&utm_x=2")],
        ),
        row_at("utm", "key.sort_query", [fetch(FRESH).at("?a=1&b=2"), hit().at("?b=2&a=1")]),
        row_at(
            "parts",
            "key.headers",
            [
                fetch(FRESH).with(&[("x-tenant", "a")]),
                fetch(FRESH).with(&[("x-tenant", "b")]),
                hit().with(&[("x-tenant", "b")]),
            ],
        ),
        row_at(
            "parts",
            "key.cookies",
            [
                fetch(FRESH).with(&[("cookie", "lang=de; x=1")]),
                hit().with(&[("cookie", "x=2; lang=de")]),
                fetch(FRESH).with(&[("cookie", "lang=en")]),
            ],
        ),
    ]
}

fn varying() -> Vec<Row> {
    const VARIES: Fields = &[("cache-control", "max-age=60"), ("vary", "x-a")];
    const ONE: Fields = &[("x-a", "1")];
    const TWO: Fields = &[("x-a", "2")];
    vec![
        row("9111 §4.1: the same value", [fetch(VARIES).with(ONE), hit().with(ONE)]),
        row("9111 §4.1: another value", [fetch(VARIES).with(ONE), fetch(VARIES).with(TWO)]),
        row("9111 §4.1: no value", [fetch(VARIES).with(ONE), fetch(VARIES)]),
        row("9111 §4.1: no value both times", [fetch(VARIES), hit()]),
        row("9111 §4.1: an empty value is not none", [fetch(VARIES), fetch(VARIES).with(&[("x-a", "")])]),
        row(
            "9111 §4.1: several variants are kept",
            [fetch(VARIES).with(ONE), fetch(VARIES).with(TWO), hit().with(TWO), hit().with(ONE).body("first")]
                .into_iter()
                .enumerate()
                .map(|(index, step)| if index == 0 { step.sends("first") } else { step })
                .collect::<Vec<_>>(),
        ),
        row(
            "9111 §4.1: white space in a list does not matter",
            [fetch(VARIES).with(&[("x-a", "1, 2")]), hit().with(&[("x-a", "1,2")])],
        ),
        row(
            "9111 §4.1: nor do lines",
            [fetch(VARIES).with(&[("x-a", "1, 2")]), hit().with(&[("x-a", "1"), ("x-a", "2")])],
        ),
        row(
            "9111 §4.1: the order of a list matters",
            [fetch(VARIES).with(&[("x-a", "1, 2")]), fetch(VARIES).with(&[("x-a", "2, 1")])],
        ),
        row(
            "9111 §4.1: several fields",
            [
                fetch(&[("cache-control", "max-age=60"), ("vary", "x-a, x-b")]).with(&[("x-a", "1"), ("x-b", "1")]),
                hit().with(&[("x-b", "1"), ("x-a", "1")]),
                fetch(VARIES).with(&[("x-a", "1"), ("x-b", "2")]),
            ],
        ),
        row(
            "9111 §4.1: in several lines and any case",
            [
                fetch(&[("cache-control", "max-age=60"), ("vary", "X-A"), ("Vary", "x-b")]).with(ONE),
                fetch(VARIES).with(&[("x-a", "1"), ("x-b", "2")]),
            ],
        ),
        row(
            "9111 §4.1: codings in any order and weight",
            [
                fetch(&[("cache-control", "max-age=60"), ("vary", "accept-encoding")])
                    .with(&[("accept-encoding", "gzip, br")]),
                hit().with(&[("accept-encoding", "br;q=0.9,x-gzip")]),
                fetch(FRESH).with(&[("accept-encoding", "gzip")]),
            ],
        ),
        row(
            "9111 §4.3.1: the variant is validated",
            [
                fetch(&[("cache-control", "max-age=60"), ("vary", "x-a"), ("etag", "\"1\"")]).with(ONE),
                fetch(&[("cache-control", "max-age=0"), ("vary", "x-a"), ("etag", "\"2\"")]).with(TWO),
                validate(&[("vary", "x-a")]).with(TWO).asks("if-none-match", "\"2\""),
                hit().with(ONE).has("etag", "\"1\"").body("first"),
            ]
            .into_iter()
            .enumerate()
            .map(|(index, step)| if index == 0 { step.sends("first") } else { step })
            .collect::<Vec<_>>(),
        ),
        row_at(
            "agents",
            "ignore_vary",
            [
                fetch(&[("cache-control", "max-age=60"), ("vary", "user-agent")]).with(&[("user-agent", "a")]),
                hit().with(&[("user-agent", "b")]),
            ],
        ),
    ]
}

fn settings() -> Vec<Row> {
    const COOKIE: Fields = &[("cache-control", "max-age=60"), ("set-cookie", "a=b")];
    const TAGS: Fields = &[("cache-control", "max-age=60"), ("surrogate-key", "a b"), ("cache-tag", "c")];
    vec![
        row_at(
            "bypass",
            "bypass.headers",
            [fetch(FRESH), fetch(FRESH).with(&[("x-debug", "1")]), hit().body("1")].map(first),
        ),
        row_at(
            "bypass",
            "bypass.cookies",
            [fetch(FRESH), fetch(FRESH).with(&[("cookie", "session=1")]), hit().body("1")].map(first),
        ),
        row_at("bypass", "bypass.when", [fetch(FRESH).at("?fresh=1"), fetch(FRESH).at("?fresh=1")]),
        row_at("bypass", "bypass: others are served", [fetch(FRESH).with(&[("cookie", "x=1")]), hit()]),
        row_at("cookies", "set_cookie: remove", [fetch(COOKIE).has("set-cookie", "a=b"), hit().lacks("set-cookie")]),
        row_at("keep", "set_cookie: keep", [fetch(COOKIE), hit().has("set-cookie", "a=b")]),
        row_at("get", "methods: [GET]", [fetch(FRESH), fetch(FRESH).by("HEAD"), hit()]),
        row("tags: clients do not get them", [fetch(TAGS).lacks("surrogate-key"), hit().lacks("cache-tag")]),
        row_at("quiet", "tags.remove: false", [fetch(TAGS).has("surrogate-key", "a b"), hit().has("cache-tag", "c")]),
        row_at("quiet", "status_header: false", [fetch(FRESH).lacks("cache-status"), hit().lacks("cache-status")]),
        row_at(
            "small",
            "max_object: a larger body is not stored",
            [
                fetch(FRESH).sends("0123456789012345678901234567890123456789012345678901234567890123456789"),
                fetch(FRESH),
                hit(),
            ],
        ),
    ]
}

/// Gives the first response of a row a body of its own.
fn first(step: super::caching::Step) -> super::caching::Step {
    step.sends_once("1")
}
