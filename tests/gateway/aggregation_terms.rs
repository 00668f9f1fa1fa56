//! What merged responses say to caches.

use super::aggregation::gateway;
use super::harness::target::{Target, answer};

#[test]
fn caches_are_told_what_a_result_depends_on() {
    let target = Target::new(|stream, seen| {
        let control = seen.target.split_once('?').map_or("", |(path, _)| path).trim_start_matches('/');
        let control = control.replace("%20", " ");
        let all = [("content-type", "application/json"), ("cache-control", control.as_str())];
        answer(stream, 200, if control.is_empty() { &all[..1] } else { &all }, b"{}")
    });
    let told = |calls: &str| {
        let got = gateway(&[("a", &target)], &format!("forward_headers: [], calls: [{calls}]")).get("/page/1");
        assert_eq!(got.status, 200, "{}", got.text());
        let text = |name: &str| got.header(name).unwrap_or("-").to_owned();
        (text("vary"), text("cache-control"))
    };
    let call = |name: &str, rest: &str| format!("{{name: {name}, upstream: a, {rest}}}");
    for (calls, vary, control) in [
        (call("a", "path: /, query: {v: '{query.v}', p: '{id}'}"), "-", "-"),
        (call("a", "path: /, query: {v: '{cookie.v}'}"), "cookie", "-"),
        (call("a", "path: /, query: {v: '{header.x-v}'}"), "x-v", "-"),
        (call("a", "path: /, query: {v: '{client}'}"), "-", "private"),
        (call("a", "path: /, when: \"'x-a' in request.headers || request.method == 'GET'\""), "x-a", "-"),
        (call("a", "path: /, when: \"!('a' in request.cookies)\""), "cookie", "-"),
        (call("a", "path: /, when: \"client.address != ''\""), "-", "private"),
        (call("a", "path: /, when: \"!identity.known\""), "-", "private"),
        (
            [call("a", "path: '/max-age=60', query: {a: b}"), call("b", "path: '/max-age=5', query: {a: b}")]
                .join(", "),
            "-",
            "max-age=5",
        ),
        (
            [call("a", "path: '/max-age=60', query: {a: b}"), call("b", "path: '/private', query: {a: b}")].join(", "),
            "-",
            "private, max-age=60",
        ),
        ([call("a", "path: '/'"), call("b", "path: '/no-store', query: {a: b}")].join(", "), "-", "no-store"),
    ] {
        assert_eq!(told(&calls), (vary.to_owned(), control.to_owned()), "{calls}");
    }
}
