//! Header fields on their way: cookies, dates, what belongs to one hop, and queries as clients write them.

use super::programs::{Between, Server, before, before_http2, curl, field, run_one};

fn cookies_seen(gateway: &super::harness::gateway::Gateway, target: &Server) -> Vec<String> {
    let line = run_one("h2_client.py", &["cookies", &gateway.address().to_string(), "/cookies"]);
    assert_eq!(line["status"], 200, "{line}");
    let seen = target.await_line("the request", |l| l["target"] == "/cookies");
    field(&seen, "cookie").into_iter().map(str::to_owned).collect()
}

/// HTTP/2 clients may split a Cookie field; HTTP/1 has one line (RFC 9113 §8.2.3).
#[test]
fn cookie_crumbs_are_joined_for_http1_targets() {
    let target = Server::recorder();
    assert_eq!(cookies_seen(&before(target.address), &target), ["a=1; b=2; c=3"]);
}

#[test]
fn cookie_crumbs_are_joined_on_hedged_ways() {
    let target = Server::recorder();
    let gateway =
        Between { upstream: ", retry: {attempts: 2, hedge_after: 5s}", ..Between::default() }.start(target.address);
    assert_eq!(cookies_seen(&gateway, &target), ["a=1; b=2; c=3"]);
}

const DATE: &str = "Tue, 15 Nov 1994 08:12:31 GMT";

/// Caches compute freshness from the Date of who made the response (RFC 9110 §6.6.1).
#[test]
fn the_date_of_the_target_is_kept() {
    let one = Server::recorder();
    let two = Server::node("http2");
    for gateway in [before(one.address), before_http2(two.address)] {
        for version in ["http1", "http2"] {
            let address = gateway.address().to_string();
            let line = run_one("httpx_client.py", &["get", version, &address, "/date"]);
            assert_eq!(field(&line, "date"), [DATE], "{version}: {line}");
            let line = run_one("httpx_client.py", &["get", version, &address, "/no-date"]);
            let dates = field(&line, "date");
            assert!(dates.len() == 1 && dates[0].ends_with(" GMT") && dates[0] != DATE, "{version}: {line}");
        }
    }
}

/// RFC 9110 §7.6.1.
#[test]
fn fields_of_one_hop_end_there() {
    let target = Server::recorder();
    let gateway = before(target.address);
    for version in ["http1", "http2"] {
        let line = run_one("httpx_client.py", &["get", version, &gateway.address().to_string(), "/hops"]);
        assert_eq!((&line["status"], field(&line, "x-end-to-end")), (&200.into(), vec!["1"]), "{line}");
        for name in ["x-of-this-hop", "proxy-connection", "te", "upgrade"] {
            assert_eq!(field(&line, name), Vec::<&str>::new(), "{version}: {name}: {line}");
        }
        // The gateway may say for itself how long it keeps the connection.
        assert!(!field(&line, "keep-alive").contains(&"timeout=77"), "{version}: {line}");
    }
}

/// Characters that RFC 3986 leaves out and that clients send all the same. Some of them are passed on in their encoded
/// form. On HTTP/2 the `h2` crate knows no `"`, `<` and `>` in a query, and resets the stream.
#[test]
fn raw_characters_in_queries_are_passed_on() {
    let target = Server::recorder();
    let gateway = before(target.address);
    let queries =
        [("--http1.1", r#"/raw?q="<>^`{|}[]\&b='()*"#), ("--http2-prior-knowledge", r"/raw?q=^`{|}[]\&b='()*")];
    for (version, query) in queries {
        let url = format!("http://{}/", gateway.address());
        let done = curl(&["-g", version, "--request-target", query, "-w", "\n%{http_code}", &url]);
        assert!(done.out.ends_with("\n200"), "{version}: {done:?}");
    }
    let seen: Vec<_> = target.lines().iter().filter_map(|l| l["target"].as_str().map(str::to_owned)).collect();
    assert_eq!(seen, [r"/raw?q=%22%3C%3E^%60{|}[]\&b='()*", queries[1].1]);
}

#[test]
fn spaces_and_octets_in_targets_are_rejected() {
    let target = Server::recorder();
    let gateway = before(target.address);
    for request_target in ["/a b", "/a?b c", "/a\u{e9}", "/a?b=\u{e9}"] {
        let url = format!("http://{}/", gateway.address());
        let done = curl(&["-g", "--http1.1", "--request-target", request_target, "-w", "\n%{http_code}", &url]);
        assert!(done.out.ends_with("\n400"), "{request_target}: {done:?}");
    }
    assert_eq!(target.lines().len(), 0, "{:?}", target.lines());
}

/// A key as client libraries encode it: `+` as %2B, `/` as %2F or as it is.
#[test]
fn keys_in_the_query_are_decoded() {
    let target = Server::recorder();
    let key = "a+b/c d=";
    let consumers = format!("consumers: {{a: {{credentials: [{{api_key: {{value: \"{key}\"}}}}]}}}}");
    let gateway = Between { route: ", filters: [{api_key: {query: key}}]", rest: &consumers, ..Between::default() }
        .start(target.address);
    let address = gateway.address().to_string();
    for version in ["http1", "http2"] {
        let line = run_one("httpx_client.py", &["query", version, &address, "/keyed", "key", key]);
        assert_eq!(line["status"], 200, "{version}: {line}");
    }
    let url = format!("http://{address}/keyed");
    let done = curl(&["-G", "--data-urlencode", &format!("key={key}"), "-o", "/dev/null", "-w", "%{http_code}", &url]);
    assert_eq!(done.out, "200", "{done:?}");
}

/// curl asks for the server itself with `*` (RFC 9110 §9.3.7).
#[test]
fn options_of_the_server_itself() {
    let target = Server::recorder();
    let gateway = before(target.address);
    let url = format!("http://{}/", gateway.address());
    let done = curl(&["-X", "OPTIONS", "--request-target", "*", "-o", "/dev/null", "-w", "%{http_code}", &url]);
    assert!(matches!(done.out.as_str(), "200" | "204"), "{done:?}");
}

/// Requests on new connections, over both protocols by turns, share the connections to the target.
#[test]
fn connections_to_targets_are_shared() {
    let target = Server::recorder();
    let gateway = super::harness::gateway::Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]\n\
         listeners: [{{name: main, address: \"127.0.0.1:0\", protocols: [http1, http2]}}]\nprocess: {{threads: 4}}",
        target.address
    ));
    let line = run_one("httpx_client.py", &["connections", &gateway.address().to_string(), "/", "150"]);
    assert_eq!(line["statuses"], serde_json::json!({"HTTP/1.1 200": 75, "HTTP/2 200": 75}), "{line}");
    let connections = target.lines().iter().filter_map(|l| l["connection"].as_u64()).max().map_or(0, |last| last + 1);
    assert!(connections <= 4, "150 requests one after the other opened {connections} connections");
}
