//! Clauses on requests: their directives, conditions and ranges, unsafe methods, and `Cache-Status` (RFC 9111, sections
//! 4.4 and 5.2.1; RFC 9110, sections 13 and 14; RFC 9211).

use super::caching::{Fields, Row, fetch, fetch_status, hit, own, row, row_at, validate};

const FRESH: Fields = &[("cache-control", "max-age=60"), ("etag", "\"a\"")];

/// Returns the rows.
pub fn rows() -> Vec<Row> {
    [directives(), conditions(), ranges(), unsafe_methods(), statuses()].into_iter().flatten().collect()
}

fn directives() -> Vec<Row> {
    const OLD: Fields = &[("cache-control", "max-age=60"), ("age", "30"), ("etag", "\"a\"")];
    const STALE: Fields = &[("cache-control", "max-age=60"), ("age", "90"), ("etag", "\"a\"")];
    vec![
        row("9111 §5.2.1.4: no-cache", [fetch(FRESH), validate(FRESH).with(&[("cache-control", "no-cache")]), hit()]),
        row("9111 §5.4: Pragma: no-cache", [fetch(FRESH), validate(FRESH).with(&[("pragma", "no-cache")])]),
        row(
            "9111 §5.4: not beside Cache-Control",
            [fetch(FRESH), hit().with(&[("pragma", "no-cache"), ("cache-control", "max-stale=1")])],
        ),
        row(
            "9111 §5.4: Pragma in a response means nothing",
            [fetch(&[("pragma", "no-cache"), ("cache-control", "max-age=60")]), hit()],
        ),
        row("9111 §5.2.1.1: max-age=0", [fetch(FRESH), validate(FRESH).with(&[("cache-control", "max-age=0")])]),
        row("9111 §5.2.1.1: max-age above the age", [fetch(OLD), hit().with(&[("cache-control", "max-age=40")])]),
        row(
            "9111 §5.2.1.1: max-age below the age",
            [fetch(OLD), validate(OLD).with(&[("cache-control", "max-age=20")])],
        ),
        row("9111 §5.2.1.3: min-fresh that is met", [fetch(OLD), hit().with(&[("cache-control", "min-fresh=20")])]),
        row(
            "9111 §5.2.1.3: min-fresh that is not",
            [fetch(OLD), validate(OLD).with(&[("cache-control", "min-fresh=40")])],
        ),
        row("9111 §5.2.1.2: max-stale", [fetch(STALE), hit().with(&[("cache-control", "max-stale")])]),
        row(
            "9111 §5.2.1.2: max-stale above the staleness",
            [fetch(STALE), hit().with(&[("cache-control", "max-stale=40")])],
        ),
        row("9111 §5.2.1.2: below it", [fetch(STALE), validate(FRESH).with(&[("cache-control", "max-stale=20")])]),
        row(
            "9111 §4.2.4: must-revalidate forbids max-stale",
            [
                fetch(&[("cache-control", "max-age=60, must-revalidate"), ("age", "90"), ("etag", "\"a\"")]),
                validate(FRESH).with(&[("cache-control", "max-stale")]),
            ],
        ),
        row(
            "9111 §4.2.4: s-maxage forbids it",
            [
                fetch(&[("cache-control", "s-maxage=60"), ("age", "90"), ("etag", "\"a\"")]),
                validate(FRESH).with(&[("cache-control", "max-stale")]),
            ],
        ),
        row(
            "9111 §5.2.1.7: only-if-cached and nothing stored",
            [own(504).with(&[("cache-control", "only-if-cached")])],
        ),
        row(
            "9111 §5.2.1.7: only-if-cached and a fresh one",
            [fetch(FRESH), hit().with(&[("cache-control", "only-if-cached")])],
        ),
        row(
            "9111 §5.2.1.7: only-if-cached and a stale one",
            [fetch(STALE), own(504).with(&[("cache-control", "only-if-cached")])],
        ),
        row_at(
            "deaf",
            "obey_clients: false",
            [fetch(FRESH), hit().with(&[("cache-control", "no-cache")]), hit().with(&[("cache-control", "max-age=0")])],
        ),
        row_at("deaf", "obey_clients: only-if-cached holds", [own(504).with(&[("cache-control", "only-if-cached")])]),
        row(
            "9111 §5.2.1: the origin gets the directives",
            [fetch(FRESH).with(&[("cache-control", "no-transform")]).asks("cache-control", "no-transform")],
        ),
    ]
}

fn conditions() -> Vec<Row> {
    const DATED: Fields = &[("cache-control", "max-age=60"), ("last-modified", "{now-100}")];
    let tag = |clause, value: &'static str, status: u16| {
        row(clause, [fetch(FRESH), hit().with(Box::leak(Box::new([("if-none-match", value)]))).gets(status)])
    };
    vec![
        tag("9110 §13.1.2: the stored tag", "\"a\"", 304),
        tag("9110 §13.1.2: a weak form of it", "W/\"a\"", 304),
        tag("9110 §13.1.2: in a list", "\"x\", \"a\"", 304),
        tag("9110 §13.1.2: *", "*", 304),
        tag("9110 §13.1.2: another tag", "\"b\"", 200),
        row(
            "9110 §15.4.5: a 304 has the validators and no type",
            [
                fetch(&[
                    ("cache-control", "max-age=60"),
                    ("etag", "\"a\""),
                    ("content-type", "text/x"),
                    ("vary", "x-a"),
                ]),
                hit()
                    .with(&[("if-none-match", "\"a\"")])
                    .gets(304)
                    .has("etag", "\"a\"")
                    .has("vary", "x-a")
                    .lacks("content-type"),
            ],
        ),
        row(
            "9110 §13.1.3: not modified since",
            [fetch(DATED), hit().with(&[("if-modified-since", "{now-100}")]).gets(304)],
        ),
        row("9110 §13.1.3: a later date", [fetch(DATED), hit().with(&[("if-modified-since", "{now-50}")]).gets(304)]),
        row("9110 §13.1.3: an earlier date", [fetch(DATED), hit().with(&[("if-modified-since", "{now-150}")])]),
        row("9110 §13.1.3: what is no date", [fetch(DATED), hit().with(&[("if-modified-since", "yesterday")])]),
        row(
            "9110 §13.1.3: not beside If-None-Match",
            [
                fetch(&[("cache-control", "max-age=60"), ("last-modified", "{now-100}"), ("etag", "\"a\"")]),
                hit().with(&[("if-none-match", "\"b\""), ("if-modified-since", "{now}")]),
            ],
        ),
        row(
            "9111 §4.3.2: without Last-Modified, Date counts",
            [
                fetch(&[("cache-control", "max-age=60"), ("date", "{now-10}")]),
                hit().with(&[("if-modified-since", "{now-5}")]).gets(304),
            ],
        ),
        row(
            "9110 §13.2.1: no condition on other statuses",
            [fetch_status(404, FRESH), hit().with(&[("if-none-match", "\"a\"")]).gets(404)],
        ),
        row(
            "9111 §4.3.2: If-Match is for the origin",
            [fetch(FRESH), fetch(FRESH).with(&[("if-match", "\"a\"")]).asks("if-match", "\"a\"")],
        ),
        row(
            "9111 §4.3.2: so is If-Unmodified-Since",
            [fetch(FRESH), fetch(FRESH).with(&[("if-unmodified-since", "{now}")]).asks("if-unmodified-since", "{now}")],
        ),
        row(
            "9111 §4.3.1: a miss is not conditional",
            [fetch(FRESH).with(&[("if-none-match", "\"x\"")]).asks_without("if-none-match"), hit()],
        ),
        row(
            "9110 §13.1.2: the response to a miss may be a 304",
            [fetch(FRESH).with(&[("if-none-match", "\"a\"")]).gets(304)],
        ),
        row(
            "9110 §9.3.2: HEAD with a condition",
            [fetch(FRESH), hit().by("HEAD").with(&[("if-none-match", "\"a\"")]).gets(304)],
        ),
    ]
}

fn ranges() -> Vec<Row> {
    let of = |clause, range: &'static str, status: u16, body: &'static str, content_range: &'static str| {
        let next = hit().with(Box::leak(Box::new([("range", range)]))).gets(status).body(body);
        row(
            clause,
            [
                fetch(FRESH).sends("0123456789"),
                if content_range.is_empty() {
                    next.lacks("content-range")
                } else {
                    next.has("content-range", content_range)
                },
            ],
        )
    };
    let if_range = |clause, value: &'static str, status: u16, body: &'static str| {
        let fields: Fields = Box::leak(Box::new([("range", "bytes=0-1"), ("if-range", value)]));
        row(clause, [fetch(FRESH).sends("0123456789"), hit().with(fields).gets(status).body(body)])
    };
    vec![
        of("9110 §14.1.2: the first bytes", "bytes=0-1", 206, "01", "bytes 0-1/10"),
        of("9110 §14.1.2: bytes in the middle", "bytes=3-5", 206, "345", "bytes 3-5/10"),
        of("9110 §14.1.2: to the end", "bytes=8-", 206, "89", "bytes 8-9/10"),
        of("9110 §14.1.2: the last bytes", "bytes=-3", 206, "789", "bytes 7-9/10"),
        of("9110 §14.1.2: beyond the end", "bytes=8-99", 206, "89", "bytes 8-9/10"),
        of("9110 §15.5.17: behind the end", "bytes=10-", 416, "", "bytes */10"),
        of("9110 §14.2: another unit", "pages=1-2", 200, "0123456789", ""),
        of("9110 §14.2: what is malformed", "bytes=5-2", 200, "0123456789", ""),
        of("9110 §14.2: several ranges may be ignored", "bytes=0-1,3-4", 200, "0123456789", ""),
        if_range("9110 §13.1.5: If-Range with the tag", "\"a\"", 206, "01"),
        if_range("9110 §13.1.5: with another tag", "\"b\"", 200, "0123456789"),
        if_range("9110 §13.1.5: a weak tag never matches", "W/\"a\"", 200, "0123456789"),
        row(
            "9110 §13.1.5: with the date",
            [
                fetch(&[("cache-control", "max-age=60"), ("last-modified", "{now-100}")]).sends("0123456789"),
                hit().with(&[("range", "bytes=0-1"), ("if-range", "{now-100}")]).gets(206).body("01"),
            ],
        ),
        row(
            "9110 §14.2: a condition comes first",
            [fetch(FRESH), hit().with(&[("range", "bytes=0-1"), ("if-none-match", "\"a\"")]).gets(304)],
        ),
        row(
            "9110 §14.2: HEAD has no range",
            [
                fetch(FRESH).sends("0123456789"),
                hit().by("HEAD").with(&[("range", "bytes=0-1")]).has("content-length", "10"),
            ],
        ),
        row(
            "9111 §3.3: a miss with a range fetches the whole",
            [
                fetch(FRESH)
                    .sends("0123456789")
                    .with(&[("range", "bytes=2-3")])
                    .asks_without("range")
                    .gets(206)
                    .body("23"),
                hit().body("0123456789"),
            ],
        ),
    ]
}

fn unsafe_methods() -> Vec<Row> {
    let by = |clause, method: &'static str| row(clause, [fetch(FRESH), fetch(&[]).by(method), fetch(FRESH)]);
    vec![
        by("9111 §4.4: POST invalidates", "POST"),
        by("9111 §4.4: PUT invalidates", "PUT"),
        by("9111 §4.4: DELETE invalidates", "DELETE"),
        by("9111 §4.4: PATCH invalidates", "PATCH"),
        by("9111 §4.4: an unknown method invalidates", "FOO"),
        row("9111 §4.4: OPTIONS does not", [fetch(FRESH).sends("1"), fetch(&[]).by("OPTIONS"), hit().body("1")]),
        row(
            "9111 §4.4: a failed POST does not",
            [fetch(FRESH).sends("1"), fetch_status(500, &[]).by("POST"), hit().body("1")],
        ),
        row(
            "9111 §4.4: nor a rejected one",
            [fetch(FRESH).sends("1"), fetch_status(404, &[]).by("POST"), hit().body("1")],
        ),
        row("9111 §4.4: a redirected one does", [fetch(FRESH), fetch_status(303, &[]).by("POST"), fetch(FRESH)]),
        row(
            "9111 §4.4: Location of the same origin",
            [fetch(FRESH).at("~x?1"), fetch(&[("location", "?1")]).by("POST").at("~x"), fetch(FRESH).at("~x?1")],
        ),
        row(
            "9111 §4.4: Content-Location of the same origin",
            [fetch(FRESH).at("~x?1"), fetch(&[("content-location", "?1")]).by("PUT").at("~x"), fetch(FRESH).at("~x?1")],
        ),
        row(
            "9111 §4.4: not of another origin",
            [
                fetch(FRESH).at("~x?1").sends("1"),
                fetch(&[("location", "http://other.test/x")]).by("POST").at("~x"),
                hit().at("~x?1").body("1"),
            ],
        ),
        row(
            "9111 §4.4: all variants",
            [
                fetch(&[("cache-control", "max-age=60"), ("vary", "x-a")]).with(&[("x-a", "1")]),
                fetch(&[("cache-control", "max-age=60"), ("vary", "x-a")]).with(&[("x-a", "2")]),
                fetch(&[]).by("POST"),
                fetch(FRESH).with(&[("x-a", "1")]),
            ],
        ),
    ]
}

fn statuses() -> Vec<Row> {
    const STALE: Fields = &[("cache-control", "max-age=60"), ("age", "90"), ("etag", "\"a\"")];
    vec![
        row("9211 §2.1: hit", [fetch(FRESH), hit().has("cache-status", "portcullis; hit; ttl=*")]),
        row("9211 §2.2: fwd=uri-miss, stored", [fetch(FRESH).has("cache-status", "portcullis; fwd=uri-miss; stored")]),
        row(
            "9211 §2.2: fwd=vary-miss",
            [
                fetch(&[("cache-control", "max-age=60"), ("vary", "x-a")]),
                fetch(FRESH).with(&[("x-a", "1")]).has("cache-status", "portcullis; fwd=vary-miss*"),
            ],
        ),
        row("9211 §2.2: fwd=method", [fetch(&[]).by("POST").has("cache-status", "portcullis; fwd=method")]),
        row_at(
            "bypass",
            "9211 §2.2: fwd=bypass",
            [fetch(&[]).with(&[("x-debug", "1")]).has("cache-status", "portcullis; fwd=bypass")],
        ),
        row(
            "9211 §2.2: fwd=stale, fwd-status",
            [fetch(STALE), validate(FRESH).has("cache-status", "portcullis; fwd=stale; fwd-status=304; stored")],
        ),
        row(
            "9211 §2.2: fwd=request",
            [
                fetch(FRESH),
                validate(FRESH).with(&[("cache-control", "no-cache")]).has("cache-status", "portcullis; fwd=request*"),
            ],
        ),
        row(
            "9211 §2.8: why it is not stored",
            [fetch(&[("cache-control", "no-store")]).has("cache-status", "portcullis; fwd=uri-miss; detail=no-store")],
        ),
        row(
            "9211 §2: behind what the origin's caches say",
            [
                fetch(&[("cache-control", "max-age=60"), ("cache-status", "other; hit")])
                    .has("cache-status", "other; hit, portcullis; fwd=uri-miss; stored"),
                hit().has("cache-status", "portcullis; hit; ttl=*"),
            ],
        ),
        row_at(
            "error",
            "9211 §2.1: a stale response",
            [
                fetch(STALE),
                fetch_status(500, &[])
                    .gets(200)
                    .of_first()
                    .has("cache-status", "portcullis; fwd=stale; fwd-status=500; detail=stale-if-error"),
            ],
        ),
    ]
}
