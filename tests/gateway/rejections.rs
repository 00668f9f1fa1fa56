//! The forms of rejections: a problem document, a page, a gRPC status; each with its challenges.

use super::harness::gateway::Gateway;

const CONFIG: &str = "
consumers:
  ada: {credentials: [{api_key: {value: one, scopes: [read]}}]}
errors:
  4xx: {html: '<h1>{status}</h1>'}
routes:
  - name: write
    match: {path: /write}
    filters: [{api_key: {}}, {authorize: {scopes: [write]}}]
    action: {respond: {body: ok}}
  - name: read
    match: {path: /read}
    filters: [{api_key: {}}, {authorize: {scopes: [read]}}, {rate_limit: {limit: 1/h, by: consumer}}]
    action: {respond: {body: ok}}
";

#[test]
fn rejections_have_the_form_that_the_client_asks_for() {
    let gateway = Gateway::start(CONFIG);
    let key = ("x-api-key", "one");
    assert_eq!(gateway.request("GET", "/read", &[key]).status, 200);
    for (path, headers, status, reason, grpc) in [
        ("/read", vec![], 401, "api_key_missing", "16"),
        ("/write", vec![key], 403, "forbidden", "7"),
        ("/read", vec![key], 429, "rate_limited", "8"),
    ] {
        let with = |more: (&'static str, &'static str)| {
            let headers: Vec<_> = headers.iter().copied().chain([more]).collect();
            gateway.request("GET", path, &headers)
        };
        let document = with(("accept", "application/json"));
        assert_eq!((document.status, document.reason().as_str()), (status, reason), "{}", document.text());
        assert_eq!(document.header("content-type"), Some("application/problem+json"));
        let page = with(("accept", "text/html,*/*;q=0.8"));
        assert_eq!((page.status, page.text()), (status, format!("<h1>{status}</h1>")));
        let call = with(("content-type", "application/grpc"));
        assert_eq!((call.status, call.header("grpc-status")), (200, Some(grpc)));
        // Whatever the form, the client learns how to go on, and not what it would have needed.
        for response in [&document, &page, &call] {
            let challenge = response.header("www-authenticate");
            assert_eq!(challenge.is_some(), status == 401, "{challenge:?}");
            assert_eq!(response.header("retry-after").is_some(), status == 429);
            assert!(!response.text().contains("write"), "{}", response.text());
        }
    }
    let log = gateway.access_log(3);
    let detail = log.iter().find(|line| line["reason"] == "forbidden").map(|line| line["detail"].clone());
    assert!(detail.is_none_or(|detail| detail.as_str().is_some_and(|detail| detail.contains("write"))));
}
