//! Clauses on freshness, age and validation: RFC 9111, sections 4.2 and 4.3, RFC 9213, RFC 5861.

use super::caching::{Row, fetch, fetch_status, hit, row, row_at, validate};

/// Returns the rows.
pub fn rows() -> Vec<Row> {
    [directives(), syntax(), expires(), ages(), targeted(), configured(), validations(), merges(), stale()]
        .into_iter()
        .flatten()
        .collect()
}

fn directives() -> Vec<Row> {
    vec![
        row("9111 §5.2.2.1: max-age makes a response fresh", [fetch(&[("cache-control", "max-age=60")]), hit(), hit()]),
        row("9111 §5.2.2.1: max-age=0 is stale", [fetch(&[("cache-control", "max-age=0")]), fetch(&[])]),
        row("9111 §5.2.2.10: s-maxage makes a response fresh", [fetch(&[("cache-control", "s-maxage=60")]), hit()]),
        row(
            "9111 §5.2.2.10: s-maxage counts before a longer max-age",
            [fetch(&[("cache-control", "max-age=60, s-maxage=0")]), fetch(&[])],
        ),
        row(
            "9111 §5.2.2.10: s-maxage counts before a shorter max-age",
            [fetch(&[("cache-control", "s-maxage=60, max-age=0")]), hit()],
        ),
        row(
            "9111 §5.2.2.10: in several lines, too",
            [fetch(&[("cache-control", "max-age=0"), ("cache-control", "s-maxage=60")]), hit()],
        ),
        row(
            "9111 §5.3: max-age counts before Expires in the past",
            [fetch(&[("cache-control", "max-age=60"), ("expires", "{now-60}")]), hit()],
        ),
        row(
            "9111 §5.3: max-age=0 counts before Expires in the future",
            [fetch(&[("cache-control", "max-age=0"), ("expires", "{now+60}")]), fetch(&[])],
        ),
        row(
            "9111 §5.3: s-maxage counts before Expires",
            [fetch(&[("cache-control", "s-maxage=60"), ("expires", "{now-60}")]), hit()],
        ),
        row("9111 §4.2.1: what says nothing is not fresh", [fetch(&[]), fetch(&[])]),
        row(
            "9111 §5.2.3: unknown directives are ignored",
            [fetch(&[("cache-control", "foo, max-age=60, bar=\"1, 2\"")]), hit()],
        ),
        row(
            "9111 §4.2.2: a tenth of the time since Last-Modified",
            [fetch(&[("last-modified", "{now-86400}"), ("date", "{now}")]), hit()],
        ),
        row(
            "9111 §4.2.2: not for a status that is not heuristically cacheable",
            [fetch_status(403, &[("last-modified", "{now-86400}")]), fetch_status(403, &[])],
        ),
        row(
            "9111 §5.2.2.9: public makes a heuristic possible",
            [fetch_status(403, &[("last-modified", "{now-86400}"), ("cache-control", "public")]), hit().gets(403)],
        ),
        row(
            "9111 §1.2.2: a large number is as good as 2^31",
            [fetch(&[("cache-control", "max-age=99999999999")]), hit()],
        ),
    ]
}

fn syntax() -> Vec<Row> {
    let fresh: &[(&str, super::caching::Fields)] = &[
        ("9111 §5.2: names have no case", &[("cache-control", "MaX-aGe=60")]),
        ("9111 §5.2: a number may be quoted", &[("cache-control", "max-age=\"60\"")]),
        ("9111 §1.2.2: a number may have leading zeros", &[("cache-control", "max-age=0060")]),
        ("9110 §5.6.1: empty members of a list are ignored", &[("cache-control", ",, max-age=60,,")]),
        ("9110 §5.6.4: a quoted pair ends no string", &[("cache-control", "x=\"a\\\"no-store\", max-age=60")]),
    ];
    let stale: &[(&str, super::caching::Fields)] = &[
        ("9111 §4.2.1: of two max-age the stricter counts", &[("cache-control", "max-age=60, max-age=0")]),
        ("9111 §4.2.1: and in the other order", &[("cache-control", "max-age=0, max-age=60")]),
        ("9111 §4.2.1: and in two lines", &[("cache-control", "max-age=60"), ("cache-control", "max-age=0")]),
        ("9111 §1.2.2: a negative number is none", &[("cache-control", "max-age=-60")]),
        ("9111 §1.2.2: a number in single quotes is none", &[("cache-control", "max-age='60'")]),
        ("9111 §1.2.2: a decimal is none", &[("cache-control", "max-age=60.5")]),
        ("9111 §1.2.2: digits and letters are none", &[("cache-control", "max-age=60s")]),
        ("9111 §5.2: white space after = is not allowed", &[("cache-control", "max-age= 60")]),
        ("9111 §5.2: what is quoted is no directive", &[("cache-control", "x=\"max-age=60\", max-age=0")]),
    ];
    let rows = |list: &[(&'static str, super::caching::Fields)], is_fresh: bool| {
        let one = |(clause, fields): &(&'static str, super::caching::Fields)| {
            row(clause, [fetch(fields), if is_fresh { hit() } else { fetch(&[]) }])
        };
        list.iter().map(one).collect::<Vec<_>>()
    };
    rows(fresh, true).into_iter().chain(rows(stale, false)).collect()
}

fn expires() -> Vec<Row> {
    let of = |clause, fields, is_fresh: bool| row(clause, [fetch(fields), if is_fresh { hit() } else { fetch(&[]) }]);
    vec![
        of("9111 §5.3: Expires in the future", &[("expires", "{now+60}"), ("date", "{now}")], true),
        of("9111 §5.3: Expires in the past", &[("expires", "{now-60}")], false),
        of("9111 §5.3: Expires that equals Date", &[("expires", "{now}"), ("date", "{now}")], false),
        of("9111 §4.2.1: Expires counts from Date", &[("date", "{now-50}"), ("expires", "{now-10}")], false),
        of("9111 §5.3: Expires: 0", &[("expires", "0")], false),
        of("9110 §5.6.7: a date of RFC 850", &[("expires", "Thursday, 18-Aug-50 02:01:18 GMT")], true),
        of("9110 §5.6.7: a date of asctime", &[("expires", "Thu Aug  8 02:01:18 2050")], true),
        of("9111 §4.2: dates have no case", &[("expires", "THU, 18 AUG 2050 02:01:18 gmt")], true),
        of("9110 §5.6.7: UTC is no zone", &[("expires", "Thu, 18 Aug 2050 02:01:18 UTC")], false),
        of("9110 §5.6.7: a year has four digits", &[("expires", "Thu, 18 Aug 50 02:01:18 GMT")], false),
        of("9110 §5.6.7: a comma follows the day", &[("expires", "Thu 18 Aug 2050 02:01:18 GMT")], false),
        of("9110 §5.6.7: one space", &[("expires", "Thu, 18  Aug 2050 02:01:18 GMT")], false),
        of("9110 §5.6.7: an hour has two digits", &[("expires", "Thu, 18 Aug 2050 2:01:18 GMT")], false),
        of("9111 §5.3: two dates", &[("expires", "{now+60}"), ("expires", "{now+90}")], false),
    ]
}

fn ages() -> Vec<Row> {
    let with_age = |clause, age: super::caching::Fields, is_fresh: bool| {
        row(clause, [fetch(age), if is_fresh { hit() } else { fetch(&[]) }])
    };
    vec![
        row("9111 §5.1: a hit has Age", [fetch(&[("cache-control", "max-age=60")]), hit().has("age", "0")]),
        row(
            "9111 §4.2.3: the Age of the response counts on",
            [fetch(&[("cache-control", "max-age=60"), ("age", "30")]).has("age", "30"), hit().has("age", "30")],
        ),
        row(
            "9111 §4.2.3: apparent_age is used",
            [fetch(&[("cache-control", "max-age=60"), ("date", "{now-40}")]), hit().has("age", "4*")],
        ),
        row(
            "9111 §5.1: what was never in a cache has no Age",
            [fetch(&[("cache-control", "max-age=60")]).lacks("age")],
        ),
        with_age("9111 §4.2: Age over max-age", &[("cache-control", "max-age=60"), ("age", "61")], false),
        with_age("9111 §4.2: Age equal to max-age", &[("cache-control", "max-age=60"), ("age", "60")], false),
        with_age("9111 §4.2.3: an old Date", &[("cache-control", "max-age=60"), ("date", "{now-61}")], false),
        with_age("9111 §5.1: Age that is no number", &[("cache-control", "max-age=60"), ("age", "abc")], true),
        with_age("9111 §5.1: Age below 0", &[("cache-control", "max-age=60"), ("age", "-99")], true),
        with_age("9111 §5.1: Age with a fraction", &[("cache-control", "max-age=60"), ("age", "99.0")], true),
        with_age("9111 §5.1: the first of a list", &[("cache-control", "max-age=60"), ("age", "99, 0")], false),
        with_age(
            "9111 §5.1: the first of two lines",
            &[("cache-control", "max-age=60"), ("age", "0"), ("age", "99")],
            true,
        ),
        with_age("9111 §1.2.2: a large Age", &[("cache-control", "max-age=60"), ("age", "99999999999")], false),
    ]
}

fn targeted() -> Vec<Row> {
    let of = |clause, fields, is_fresh: bool| row(clause, [fetch(fields), if is_fresh { hit() } else { fetch(&[]) }]);
    vec![
        of("9213 §3.1: CDN-Cache-Control", &[("cdn-cache-control", "max-age=60")], true),
        of(
            "9213 §2.2: it counts before Cache-Control",
            &[("cdn-cache-control", "max-age=60"), ("cache-control", "max-age=0")],
            true,
        ),
        of(
            "9213 §2.2: also where it is stricter",
            &[("cdn-cache-control", "max-age=0"), ("cache-control", "max-age=60")],
            false,
        ),
        of(
            "9213 §2.2: also before no-store",
            &[("cdn-cache-control", "max-age=60"), ("cache-control", "no-store")],
            true,
        ),
        of("9213 §2.2: and before Expires", &[("cdn-cache-control", "max-age=0"), ("expires", "{now+60}")], false),
        of("9213 §2.2: no-store in it", &[("cdn-cache-control", "no-store"), ("cache-control", "max-age=60")], false),
        of("9213 §2.2: private in it", &[("cdn-cache-control", "private"), ("cache-control", "max-age=60")], false),
        of(
            "9213 §2.1: one that is not valid is ignored",
            &[("cdn-cache-control", "max-age=60, &&"), ("cache-control", "no-store")],
            false,
        ),
        of(
            "9213 §2.1: a value of another type is ignored",
            &[("cdn-cache-control", "max-age=\"60\""), ("cache-control", "no-store")],
            false,
        ),
        of("9213 §2.1: an empty one is ignored", &[("cdn-cache-control", ""), ("cache-control", "max-age=60")], true),
    ]
}

fn configured() -> Vec<Row> {
    vec![
        row_at("default", "ttl.default: of what says nothing", [fetch(&[]), hit()]),
        row_at(
            "default",
            "ttl.default: what says something counts",
            [fetch(&[("cache-control", "max-age=0")]), fetch(&[])],
        ),
        row_at("default", "ttl.default: not of failures", [fetch_status(500, &[]), fetch_status(500, &[])]),
        row_at("fixed", "ttl.override: whatever is said", [fetch(&[("cache-control", "max-age=0")]), hit()]),
        row_at("fixed", "ttl.override: no-store holds", [fetch(&[("cache-control", "no-store")]), fetch(&[])]),
        row_at("fixed", "ttl.override: private holds", [fetch(&[("cache-control", "private")]), fetch(&[])]),
        row_at("negative", "ttl.statuses: 404", [fetch_status(404, &[]), hit().gets(404)]),
        row_at("negative", "ttl.statuses: a range", [fetch_status(502, &[]), hit().gets(502)]),
        row_at("negative", "ttl.statuses: not of others", [fetch_status(410, &[]), fetch_status(410, &[])]),
        row_at(
            "negative",
            "ttl.statuses: what says something counts",
            [fetch_status(404, &[("cache-control", "max-age=0")]), fetch_status(404, &[])],
        ),
        row_at(
            "most",
            "ttl.most: no longer than that",
            [fetch(&[("cache-control", "max-age=60"), ("age", "11")]), fetch(&[])],
        ),
        row_at("noguess", "ttl.heuristic: false", [fetch(&[("last-modified", "{now-86400}")]), validate(&[])]),
    ]
}

/// A response that is stale at once, and can be validated by its tag.
const TAGGED: super::caching::Fields = &[("cache-control", "max-age=60"), ("age", "61"), ("etag", "\"a\"")];

fn validations() -> Vec<Row> {
    vec![
        row(
            "9111 §4.3.1: the tag is sent",
            [fetch(TAGGED), validate(&[("cache-control", "max-age=60")]).asks("if-none-match", "\"a\""), hit()],
        ),
        row(
            "9111 §4.3.1: the date is sent",
            [
                fetch(&[("cache-control", "max-age=60"), ("age", "61"), ("last-modified", "{now-999}")]),
                validate(&[]).asks("if-modified-since", "{now-999}"),
            ],
        ),
        row(
            "9111 §4.3.1: both are sent",
            [
                fetch(&[("cache-control", "max-age=0"), ("etag", "\"a\""), ("last-modified", "{now-999}")]),
                validate(&[]).asks("if-none-match", "\"a\"").asks("if-modified-since", "{now-999}"),
            ],
        ),
        row(
            "9111 §4.3.1: a weak tag is one",
            [
                fetch(&[("cache-control", "max-age=0"), ("etag", "W/\"a\"")]),
                validate(&[]).asks("if-none-match", "W/\"a\""),
            ],
        ),
        row(
            "9111 §4.3.3: a new response replaces the stored one",
            [fetch(TAGGED), fetch(&[("cache-control", "max-age=60")]).asks("if-none-match", "\"a\""), hit()],
        ),
        row(
            "9111 §5.2.2.4: no-cache is validated each time",
            [fetch(&[("cache-control", "no-cache"), ("etag", "\"a\"")]), validate(&[]), validate(&[])],
        ),
        row(
            "9111 §5.2.2.4: also with max-age",
            [fetch(&[("cache-control", "no-cache, max-age=60"), ("etag", "\"a\"")]), validate(&[])],
        ),
        row(
            "9111 §4.3.4: weak comparison of tags",
            [fetch(TAGGED), validate(&[("etag", "W/\"a\""), ("cache-control", "max-age=60")]), hit()],
        ),
        row(
            "9111 §4.3.2: the client's own condition is evaluated here",
            [fetch(TAGGED), validate(&[]).with(&[("if-none-match", "\"a\"")]).gets(304).asks("if-none-match", "\"a\"")],
        ),
    ]
}

fn merges() -> Vec<Row> {
    let updated = |clause, fields: super::caching::Fields, name: &'static str, value: &'static str| {
        row(clause, [fetch(TAGGED), validate(fields).has(name, value)])
    };
    vec![
        updated("9111 §3.2: a 304 adds fields", &[("x-new", "1")], "x-new", "1"),
        row(
            "9111 §3.2: a 304 replaces fields",
            [
                fetch(&[("cache-control", "max-age=0"), ("etag", "\"a\""), ("x-old", "1")]),
                validate(&[("x-old", "2"), ("cache-control", "max-age=60")]).has("x-old", "2"),
                hit().has("x-old", "2"),
            ],
        ),
        row(
            "9111 §3.2: fields that it does not have stay",
            [
                fetch(&[("cache-control", "max-age=0"), ("etag", "\"a\""), ("x-old", "1")]),
                validate(&[("cache-control", "max-age=60")]).has("x-old", "1"),
                hit().has("x-old", "1"),
            ],
        ),
        updated("9111 §3.2: Content-Type is one", &[("content-type", "text/new")], "content-type", "text/new"),
        updated("9111 §3.2: Expires is one", &[("expires", "{now+60}")], "expires", "{now+60}"),
        row(
            "9111 §3.2: Content-Length is none",
            [
                fetch(&[("cache-control", "max-age=0"), ("etag", "\"a\"")]).sends("hello"),
                validate(&[("content-length", "9"), ("cache-control", "max-age=60")]).has("content-length", "5"),
                hit().has("content-length", "5"),
            ],
        ),
        row(
            "9111 §3.2: Content-Range is none",
            [fetch(TAGGED), validate(&[("content-range", "bytes 0-1/9")]).lacks("content-range")],
        ),
        row(
            "9111 §3.1: fields of the connection are none",
            [fetch(TAGGED), validate(&[("connection", "x-hop"), ("x-hop", "1")]).lacks("x-hop")],
        ),
        row(
            "9111 §4.3.4: freshness is that of the 304",
            [fetch(TAGGED), validate(&[("cache-control", "max-age=60")]), hit().has("age", "0")],
        ),
        row(
            "9111 §4.3.4: a 304 with Age is older",
            [fetch(TAGGED), validate(&[("cache-control", "max-age=60"), ("age", "20")]), hit().has("age", "20")],
        ),
    ]
}

fn stale() -> Vec<Row> {
    let error = &[("cache-control", "max-age=60, stale-if-error=600"), ("age", "61")];
    vec![
        row("5861 §4: stale-if-error on a 500", [fetch(error), fetch_status(500, &[]).gets(200).of_first()]),
        row("5861 §4: on a 503", [fetch(error), fetch_status(503, &[]).gets(200).of_first()]),
        row("5861 §4: not on a 404", [fetch(error), fetch_status(404, &[])]),
        row(
            "5861 §4: not after its time",
            [fetch(&[("cache-control", "max-age=60, stale-if-error=10"), ("age", "71")]), fetch_status(500, &[])],
        ),
        row(
            "5861 §4: in a request",
            [
                fetch(&[("cache-control", "max-age=60"), ("age", "61"), ("etag", "\"a\"")]),
                fetch_status(500, &[]).with(&[("cache-control", "stale-if-error=600")]).gets(200).of_first(),
            ],
        ),
        row(
            "9111 §5.2.2.2: must-revalidate forbids it",
            [
                fetch(&[
                    ("cache-control", "max-age=60, must-revalidate, stale-if-error=600"),
                    ("age", "61"),
                    ("etag", "\"a\""),
                ]),
                fetch_status(500, &[]),
            ],
        ),
        row(
            "9111 §5.2.2.8: proxy-revalidate forbids it",
            [
                fetch(&[
                    ("cache-control", "max-age=60, proxy-revalidate, stale-if-error=600"),
                    ("age", "61"),
                    ("etag", "\"a\""),
                ]),
                fetch_status(500, &[]),
            ],
        ),
        row("9111 §4.2.4: nothing stale without leave", [fetch(TAGGED), fetch_status(500, &[])]),
        row_at(
            "error",
            "stale.if_error: the configured time",
            [fetch(TAGGED), fetch_status(502, &[]).gets(200).of_first()],
        ),
        row_at(
            "error",
            "stale.if_error: s-maxage forbids it",
            [fetch(&[("cache-control", "s-maxage=60"), ("age", "61"), ("etag", "\"a\"")]), fetch_status(502, &[])],
        ),
    ]
}
