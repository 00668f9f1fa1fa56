//! The steps, on requests and responses, without a network.

use crate::filters::test_kit::{Changed, compile, request, response};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn filter(yaml: &str) -> String {
    format!("[{{transform: {yaml}}}]")
}

/// Returns the body that the target gets, and its head.
fn sent(
    yaml: &str,
    line: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<(String, pingora::http::RequestHeader), String> {
    let mut kit = compile(&filter(yaml)).expect("a filter");
    let show = |rejection: Box<crate::exchange::Rejection>| {
        format!("{} {} {}", rejection.reason.code(), rejection.detail, rejection.log.unwrap_or_default())
    };
    kit.exchange.params = vec![("id".into(), "a%20b".into())];
    kit.on_request(request(line, headers)).map_err(show)?;
    let body = kit.edit_request_body(body).map_err(show)?;
    Ok((String::from_utf8_lossy(&body).into_owned(), kit.sent()))
}

fn answered(yaml: &str, status: u16, headers: &[(&str, &str)], body: &str) -> Result<Changed, String> {
    let mut kit = compile(&filter(yaml)).expect("a filter");
    kit.on_request(request("GET /p?q=1", &[("accept-encoding", "gzip"), ("range", "bytes=0-1")])).expect("let in");
    let changed = kit.on_response(response(status, headers), body.as_bytes(), 7);
    changed.map_err(|rejection| format!("{} {}", rejection.reason.code(), rejection.log.unwrap_or_default()))
}

fn body_of(changed: &Changed) -> &str {
    std::str::from_utf8(&changed.body).expect("UTF-8")
}

#[test]
fn heads_of_requests() {
    let yaml = "{request: {headers: {remove: [x-a], rename: {x-b: x-c}, set: {x-d: '{method}', x-e: \"{{ \
        request.query.q | upper }}\"}}, \
        query: {remove: [r], rename: {s: t}, set: {q: '{header.x-b}'}, add: {n: '1'}}, \
            cookies: {remove: [a], set: {b: '{query.q}'}}, \
        method: POST, path: '/v2/{{ request.params.id }}/x'}}";
    let headers = [("x-a", "1"), ("x-b", "2"), ("cookie", "a=1; c=2")];
    let (_, head) = sent(yaml, "GET /p?q=v&r=1&s=2", &headers, b"").expect("let in");
    assert_eq!(head.uri, "/v2/a%20b/x?q=2&t=2&n=1");
    assert_eq!(head.method, "POST");
    let shown = |name: &str| head.headers.get(name).map_or("-", |value| value.to_str().expect("text"));
    let all = [shown("x-a"), shown("x-b"), shown("x-c"), shown("x-d"), shown("x-e"), shown("cookie")];
    assert_eq!(all, ["-", "-", "2", "GET", "V", "c=2; b=v"]);
}

#[test]
fn conditions_choose_steps() {
    let yaml = "{request: [{when: \"request.method == 'PUT'\", headers: {set: {x-a: put}}}, {when: \
        \"request.headers['x-n'] == '1'\", headers: {set: {x-b: n}}}]}";
    for (line, headers, a, b) in [("PUT /", &[("x-n", "2")], true, false), ("GET /", &[("x-n", "1")], false, true)] {
        let (_, head) = sent(yaml, line, headers, b"").expect("let in");
        assert_eq!([head.headers.contains_key("x-a"), head.headers.contains_key("x-b")], [a, b], "{line}");
    }
    let yaml = "{response: [{when: 'response.status == 404', status: {'404': 410}, headers: {set: {x-a: '1'}}}, \
        {when: \"response.status == 410 && response.headers['x-a'] == '1'\", headers: {add: {x-b: '{method}'}}}]}";
    for (status, wanted) in [(404, (410, "1", "GET")), (200, (200, "-", "-"))] {
        let changed = answered(yaml, status, &[], "").expect("a response");
        assert_eq!((changed.head.status.as_u16(), changed.header("x-a"), changed.header("x-b")), wanted);
    }
}

#[test]
fn json_of_requests_and_responses_is_edited_alike() {
    let json = "json: {keep: ['a,b,c,d,items,card,mail'], remove: ['/a/x', '$..internal'], rename: {b: beta}, \
        move: {/c/from: /to/at}, \
        set: {/d: [1, '{{ request.method }}', {n: \"{{ request.method | length }}\"}], 'items[].ok': true}, \
        add: {e: none, card: 1}, \
        mask: [{field: card, keep_last: 4}], hash: {fields: [mail], key: k}}";
    let given = [
        r#"{"a":{"x":1,"y":1.50},"b":2,"c":{"from":"m"},"z":0,"items":[{"internal":1},{}],"#,
        r#""card":"4111111111111111","mail":"abc"}"#,
    ];
    let given = given.concat();
    let wanted = |method: &str| {
        format!(
            "{}{}{}{}",
            r#"{"a":{"y":1.50},"beta":2,"c":{},"items":[{"ok":true},{"ok":true}],"card":"***1111","#,
            format_args!(r#""mail":"{}","#, "0".repeat(64)),
            format_args!(r#""to":{{"at":"m"}},"d":[1,"{method}",{{"n":{}}}],"#, method.len()),
            r#""e":"none"}"#
        )
    };
    let trim = |text: &str| {
        // The hash is compared by its form; hash_tests knows its value.
        let at = text.find("\"mail\":\"").expect("a hash") + 8;
        format!("{}{}", &text[..at], &text[at + 64..])
    };
    let (body, head) =
        sent(&format!("{{request: {{{json}}}}}"), "PATCH /", &[JSON[0], ("digest", "x")], given.as_bytes())
            .expect("JSON");
    assert_eq!(trim(&body), trim(&wanted("PATCH")));
    assert!(!head.headers.contains_key("digest"));
    let headers = [JSON[0], ("content-length", "9"), ("etag", "\"1\""), ("digest", "x"), ("accept-ranges", "bytes")];
    let changed = answered(&format!("{{response: {{{json}}}}}"), 200, &headers, &given).expect("JSON");
    assert_eq!(trim(body_of(&changed)), trim(&wanted("GET")));
    let fields = ["content-length", "etag", "digest", "accept-ranges"].map(|name| changed.header(name));
    assert_eq!(fields, ["-", "W/\"1\"", "-", "-"]);
}

#[test]
fn bodies_by_template() {
    let yaml = "{request: {method: POST, headers: {set: {x-user: '{{ request.json.user.id }}'}}, body: \
        {template: '{\"user\": {{ request.json.user }}, \"path\": \"p {{ request.path }}\"}'}}}";
    let (body, head) = sent(yaml, "PUT /p", &JSON, br#"{"user":{"id":7,"n":1.10}}"#).expect("JSON");
    assert_eq!(body, r#"{"user": {"id":7,"n":1.10}, "path": "p /p"}"#);
    assert_eq!((head.headers["x-user"].to_str().expect("text"), head.method.as_str()), ("7", "POST"));
    for (given, code) in
        [(&br#"{"user":"#[..], "body_invalid"), (b"{}", "body_invalid"), (br#"{"user":{"id":"a\nb"}}"#, "body_invalid")]
    {
        let rejected = sent(yaml, "PUT /p", &JSON, given).expect_err("no such value");
        assert!(rejected.starts_with(code), "{rejected}");
    }
    let empty =
        "{request: {body: {template: 'm={{ request.query.q }}&n=1', content_type: application/x-www-form-urlencoded}}}";
    let (body, head) = sent(empty, "POST /p?q=a%26b", &[], b"").expect("a form");
    assert_eq!(
        (body.as_str(), head.headers["content-type"].to_str().expect("text")),
        ("m=a%26b&n=1", "application/x-www-form-urlencoded")
    );
    let yaml = "{response: {body: {template: '<s>{{ response.status }} {{ response.json.a }} {{ request.query.q \
        }}</s>', content_type: application/xml}}}";
    let changed = answered(yaml, 200, &JSON, r#"{"a":"<&"}"#).expect("JSON");
    assert_eq!((body_of(&changed), changed.header("content-type")), ("<s>200 &lt;&amp; 1</s>", "application/xml"));
}

#[test]
fn conversions() {
    let to_json = "{request: {convert: {from: xml, to: json, arrays: [order.item]}, json: {set: {order.n: 1}}}}";
    let (body, head) =
        sent(to_json, "POST /", &[("content-type", "text/xml; charset=utf-8")], b"<order><item>a</item></order>")
            .expect("XML");
    assert_eq!(
        (body.as_str(), head.headers["content-type"].to_str().expect("text")),
        (r#"{"order":{"item":["a"],"n":1}}"#, "application/json")
    );
    let (body, _) = sent(to_json, "POST /", &[("content-type", "text/plain")], b"<order/>").expect("text");
    assert_eq!(body, "<order/>");
    let rejected =
        sent(to_json, "POST /", &[("content-type", "text/xml")], b"<!DOCTYPE a><a/>").expect_err("a document type");
    assert!(rejected.starts_with("body_invalid") && rejected.contains("document type"), "{rejected}");
    let form = "{request: {convert: {from: form, to: json}}}";
    let (body, _) =
        sent(form, "POST /", &[("content-type", "application/x-www-form-urlencoded")], b"a=1&a=2").expect("a form");
    assert_eq!(body, r#"{"a":["1","2"]}"#);
    let back = "{response: {json: {remove: [b]}, convert: {from: json, to: xml, root: r}}}";
    let changed = answered(back, 200, &JSON, r#"{"a":[1,2],"b":3}"#);
    // The conversion comes before the edits of JSON, which finds none then.
    assert_eq!(
        body_of(&changed.expect("JSON")),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><r><a>1</a><a>2</a><b>3</b></r>"
    );
    let back = "{response: [{json: {remove: [b]}}, {convert: {from: json, to: xml, root: r}}]}";
    let changed = answered(back, 200, &JSON, r#"{"a":[1,2],"b":3}"#).expect("JSON");
    assert_eq!(
        (body_of(&changed), changed.header("content-type")),
        ("<?xml version=\"1.0\" encoding=\"UTF-8\"?><r><a>1</a><a>2</a></r>", "application/xml")
    );
}

#[test]
fn coded_bodies_are_decoded() {
    use std::io::Write;
    let gzip = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text).expect("memory");
        encoder.finish().expect("memory")
    };
    let yaml = "{max_size: 2KiB, request: {json: {remove: [a]}}}";
    let coded = [JSON[0], ("content-encoding", "gzip")];
    let (body, head) = sent(yaml, "POST /", &coded, &gzip(br#"{"a":1,"b":2}"#)).expect("JSON");
    assert_eq!((body.as_str(), head.headers.contains_key("content-encoding")), (r#"{"b":2}"#, false));
    let text = [("content-type", "text/plain"), ("content-encoding", "gzip")];
    let (_, head) = sent(yaml, "POST /", &text, &gzip(b"text")).expect("text");
    assert!(head.headers.contains_key("content-encoding"), "what is not changed stays coded");
    for (headers, body, code) in [
        (&coded, gzip(format!("[\"{}\"]", "x".repeat(4096)).as_bytes()), "body_too_large"),
        (&coded, b"no gzip".to_vec(), "body_invalid"),
        (&[JSON[0], ("content-encoding", "deflate")], b"x".to_vec(), "media_type"),
        (&[JSON[0], ("x-a", "b")], b"{\"a\":".to_vec(), "body_invalid"),
        (&[("content-type", "application/json; charset=utf-16"), ("x-a", "b")], b"{}".to_vec(), "media_type"),
    ] {
        let rejected = sent(yaml, "POST /", headers, &body).expect_err(code);
        assert!(rejected.starts_with(code), "{rejected}");
    }
    let strict = "{other: reject, request: {json: {remove: [a]}}, response: {json: {remove: [a]}}}";
    assert!(
        sent(strict, "POST /", &[("content-type", "text/plain")], b"a").expect_err("text").starts_with("media_type")
    );
    assert!(sent(strict, "GET /", &[], b"").is_ok());
    assert!(
        answered(strict, 200, &[("content-type", "text/plain")], "a").expect_err("text").starts_with("response_opaque")
    );
}

#[test]
fn responses_that_cannot_be_changed_as_a_whole() {
    let yaml = "{max_size: 16B, response: {json: {move: {a: b}}}}";
    let long = r#"{"a":"a long text of its own"}"#;
    let known = answered(yaml, 200, &[JSON[0], ("content-length", "30")], long).expect_err("too long");
    assert!(known.starts_with("response_opaque") && known.contains("too large"), "{known}");
    assert_eq!(body_of(&answered(yaml, 200, &JSON, r#"{"a":1}"#).expect("short")), r#"{"b":1}"#);
    let partial = answered("{response: {json: {remove: [a]}}}", 206, &JSON, "{").expect_err("a part");
    assert!(partial.contains("partial"), "{partial}");
    let mut kit = compile(&filter("{response: {body: {template: '{}'}}}")).expect("a filter");
    kit.on_request(request("HEAD /", &[])).expect("let in");
    let changed = kit
        .on_response(response(200, &[("content-type", "text/html"), ("content-length", "9")]), b"", 1)
        .expect("no content");
    assert_eq!(
        (body_of(&changed), changed.header("content-type"), changed.header("content-length")),
        ("", "application/json", "-")
    );
    let none = answered("{response: {body: {template: '{}'}}}", 304, &[], "").expect("no content");
    assert_eq!(body_of(&none), "");
}

#[test]
fn parts_of_paths_cannot_lead_elsewhere() {
    for (path, id) in [("'/v2/{{ request.params.id }}'", ".."), ("'/v2/{{ request.params.id }}/x'", "%2e%2E")] {
        let mut kit = compile(&filter(&format!("{{request: {{path: {path}}}}}"))).expect("a filter");
        kit.exchange.params = vec![("id".into(), id.into())];
        let rejected = kit.on_request(request("GET /", &[])).expect_err(id);
        assert_eq!(rejected.reason.code(), "bad_path", "{path} with {id}");
    }
}

#[test]
fn what_cannot_take_effect_is_rejected() {
    for (yaml, why) in [
        ("{}", "changes nothing"),
        ("{request: [{}]}", "changes nothing"),
        ("{response: {cookies: {a: {}}}}", "changes no attribute"),
        ("{request: {method: HEAD}}", "HEAD"),
        ("{request: {path: v2}}", "begins with /"),
        ("{request: {path: '/a?b=c'}}", "without a query"),
        ("{request: {headers: {set: {x-a: '{nothing}'}}}}", "nothing here is called"),
        ("{request: {headers: {set: {x-a: '{{ response.status }}'}}}}", "no value response.status"),
        ("{response: {headers: {set: {x-a: '{{ response.json.a }}'}}}}", "no value response.json.a"),
        ("{request: {headers: {set: {content-length: '1'}}}}", "framing"),
        ("{request: {body: {template: '{{ request.json'}}}", "line 1"),
        ("{request: {json: {move: {a.*: b}}}}", "one place"),
        ("{request: {json: {rename: {/a/0: b}}}}", "no name"),
        ("{request: {json: {set: {'a..b': 1}}}}", "expected a field"),
        ("{request: {json: {keep: ['a(']}}}", "expected"),
        ("{request: {convert: {from: xml, to: form}}}", "json as one"),
        ("{request: {convert: {from: json, to: xml, arrays: [a]}}}", "conversions from xml"),
        ("{response: {status: {'404': 204}}}", "cannot be set"),
        ("{response: {status: {40x: 410}}}", "expected statuses"),
        ("{request: {when: 'response.status == 1', method: PUT}}", "response.status"),
        ("{request: {cookies: {set: {'a b': c}}}}", "name of a cookie"),
    ] {
        let error = compile(&filter(yaml)).err().unwrap_or_else(|| panic!("{yaml} is accepted"));
        assert!(error.contains(why), "{yaml}: {error}");
    }
}
