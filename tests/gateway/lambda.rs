//! Calls of AWS Lambda functions.

use std::sync::{Arc, Mutex};

use serde_json::json;

use super::harness::client::Connection;
use super::harness::eventually;
use super::harness::gateway::{Gateway, run};
use super::harness::lambda::{Functions, Returned, frame, header};
use super::harness::target::{Target, answer};

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const ARN: &str = "arn:aws:lambda:us-east-1:123456789012:function:my-function";
const KEY: &str = "credentials: {key: {access_key_id: AKIDEXAMPLE, secret_access_key: \
                   wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY}}";

fn config(functions: &Functions, settings: &str) -> String {
    format!(
        "
upstreams: {{aws: {{targets: ['{}']}}}}
routes:
  - name: api
    match: {{path: '/api/pets/{{id}}/*'}}
    filters: [{{headers: {{request: {{set: {{x-added: by-gateway}}, remove: [x-secret]}}}}}}]
    action: {{lambda: {{upstream: aws, function: '{ARN}', {settings}}}}}
",
        functions.target.address
    )
}

fn hello(_: &str, _: &serde_json::Value) -> Returned {
    Returned::json(r#"{"statusCode":200,"headers":{"content-type":"text/plain"},"cookies":["a=1","b=2"],"body":"hi"}"#)
}

fn post(gateway: &Gateway, target: &str, headers: &str, body: &[u8]) -> super::harness::client::Answer {
    let head =
        format!("POST {target} HTTP/1.1\r\nhost: api.example.com\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    Connection::open(gateway.address()).ask([head.as_bytes(), body].concat())
}

#[test]
fn a_function_gets_a_signed_event_of_version_2() {
    let functions = Functions::start(SECRET, hello);
    let gateway = Gateway::start(&config(&functions, KEY));
    let headers = "content-type: application/json\r\ncookie: s=1; t=2\r\nx-a: 1\r\nx-a: 2\r\nx-secret: s\r\n\
                   connection: x-hop\r\nx-hop: 1\r\nuser-agent: curl/8\r\n";
    let got = post(&gateway, "/api/pets/7/a/b?tag=x&tag=y", headers, b"{\"n\":1}");
    assert_eq!((got.status, got.text().as_str()), (200, "hi"));
    let cookies: Vec<&str> = got
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"))
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!((cookies, got.header("content-length")), (vec!["a=1", "b=2"], Some("2")));
    let call = functions.calls()[0].clone();
    let path =
        "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Amy-function/invocations";
    assert_eq!((call.method.as_str(), call.target.as_str()), ("POST", path));
    assert_eq!(header(&call, "host").as_deref(), Some("lambda.us-east-1.amazonaws.com"));
    assert_eq!(header(&call, "x-amz-invocation-type").as_deref(), Some("RequestResponse"));
    // Nothing of the client's head is sent beside the event.
    assert!(header(&call, "cookie").is_none() && header(&call, "x-forwarded-for").is_none(), "{call:?}");
    let event = functions.event();
    assert_eq!(event["version"], "2.0");
    assert_eq!(event["routeKey"], "POST /api/pets/{id}/{proxy+}");
    assert_eq!((&event["rawPath"], &event["rawQueryString"]), (&json!("/api/pets/7/a/b"), &json!("tag=x&tag=y")));
    assert_eq!(event["cookies"], json!(["s=1", "t=2"]));
    assert_eq!(event["pathParameters"], json!({"id": "7", "proxy": "a/b"}));
    assert_eq!(event["queryStringParameters"], json!({"tag": "x,y"}));
    let headers = &event["headers"];
    assert_eq!((&headers["x-a"], &headers["x-added"]), (&json!("1,2"), &json!("by-gateway")));
    assert!(headers["x-secret"].is_null() && headers["x-hop"].is_null() && headers["cookie"].is_null(), "{headers}");
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("{\"n\":1}"), &json!(false)));
    let context = &event["requestContext"];
    assert_eq!((&context["domainName"], &context["accountId"]), (&json!("api.example.com"), &json!("123456789012")));
    assert_eq!((&context["http"]["sourceIp"], &context["http"]["userAgent"]), (&json!("127.0.0.1"), &json!("curl/8")));
    assert!(context["requestId"].as_str().is_some_and(|id| !id.is_empty()), "{context}");
    let line = gateway.access_log(1).remove(0);
    assert_eq!((&line["operation"], &line["target_status"]), (&json!("my-function"), &json!("200")));
    let series = r#"portcullis_translated_requests_total{from="http",route="api",to="lambda"}"#;
    eventually("it is counted", || gateway.metric(series) == 1.0);
    assert!(!gateway.log().contains(SECRET));
}

#[test]
fn the_verified_caller_is_in_the_event() {
    let functions = Functions::start(SECRET, hello);
    let gateway = Gateway::start(&format!(
        "
upstreams: {{aws: {{targets: ['{}']}}}}
consumers: {{shop: {{credentials: [{{api_key: {{value: a-key-of-the-shop}}}}]}}}}
routes:
  - name: api
    match: {{path: /*}}
    filters: [{{api_key: {{}}}}, {{headers: {{request: {{remove: [x-api-key]}}}}}}]
    action: {{lambda: {{upstream: aws, function: '{ARN}', {KEY}}}}}
",
        functions.target.address
    ));
    assert_eq!(gateway.get("/x").status, 401);
    let got = gateway.request("GET", "/x", &[("x-api-key", "a-key-of-the-shop")]);
    assert_eq!(got.status, 200, "{}", got.text());
    let event = functions.event();
    assert_eq!(event["requestContext"]["authorizer"], json!({"lambda": {"principalId": "shop"}}));
    assert!(event["headers"]["x-api-key"].is_null(), "{event}");
    assert_eq!((&event["routeKey"], &event["pathParameters"]), (&json!("$default"), &json!({"proxy": "x"})));
}

#[test]
fn version_1_has_all_values_and_binary_bodies() {
    let functions = Functions::start(SECRET, |_, _| {
        Returned::json(
            r#"{"statusCode":201,"multiValueHeaders":{"X-M":["1","2"]},"headers":{"Connection":"x-y","X-Y":"1"},
                "body":"AP8=","isBase64Encoded":true}"#,
        )
    });
    let gateway = Gateway::start(&config(&functions, &format!("payload: v1, qualifier: live, {KEY}")));
    let got = post(&gateway, "/api/pets/7/?a=1&a=2", "content-type: image/png\r\n", &[0, 1, 255]);
    assert_eq!((got.status, got.body.as_slice()), (201, &[0, 255][..]));
    assert_eq!(got.headers.iter().filter(|(name, _)| name == "x-m").count(), 2);
    assert!(got.header("x-y").is_none() && got.header("content-type") == Some("application/json"));
    let event = functions.event();
    assert_eq!((&event["version"], &event["httpMethod"]), (&json!("1.0"), &json!("POST")));
    assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("AAH/"), &json!(true)));
    assert_eq!(event["multiValueQueryStringParameters"], json!({"a": ["1", "2"]}));
    assert_eq!(event["resource"], "/api/pets/{id}/{proxy+}");
    assert!(functions.calls()[0].target.ends_with("/invocations?Qualifier=live"));
}

#[test]
fn errors_are_those_of_the_gateway_and_leak_nothing() {
    let functions = Functions::start(SECRET, |_, event| {
        let word = event["rawQueryString"].as_str().unwrap_or_default().to_owned();
        let api_error = |status: u16, kind: &str| Returned {
            status,
            headers: vec![("x-amzn-errortype", format!("{kind}:http://internal.amazon.com/"))],
            payload: b"{\"message\":\"inner\"}".to_vec(),
        };
        match word.as_str() {
            "error" => Returned {
                status: 200,
                headers: vec![("x-amz-function-error", "Unhandled".to_owned()), ("set-cookie", "leak=1".to_owned())],
                payload: br#"{"errorMessage":"secret text","errorType":"KeyError","stackTrace":["x"]}"#.to_vec(),
            },
            "malformed" => Returned::json(r#"{"statusCode":200,"headers":{"set-cookie":"leak=1"},"body":{}}"#),
            "throttled" => api_error(429, "TooManyRequestsException"),
            "denied" => api_error(403, "AccessDeniedException"),
            "large" => api_error(413, "RequestTooLargeException"),
            "bare" => Returned::json(r#"{"message":"hi"}"#),
            _ => Returned::json("null"),
        }
    });
    let gateway = Gateway::start(&config(&functions, KEY));
    let expected = [
        ("error", 502, "function_failed"),
        ("malformed", 502, "response_untranslatable"),
        ("throttled", 503, "function_throttled"),
        ("denied", 502, "function_failed"),
        ("large", 413, "body_too_large"),
    ];
    for (word, status, reason) in expected {
        let got = gateway.get(&format!("/api/pets/1/?{word}"));
        assert_eq!((got.status, got.reason().as_str()), (status, reason), "{word}: {}", got.text());
        assert!(got.header("set-cookie").is_none() && !got.text().contains("secret"), "{word}: {}", got.text());
        assert_eq!(got.header("retry-after").is_some(), word == "throttled");
    }
    let got = gateway.get("/api/pets/1/?bare");
    assert_eq!((got.status, got.text().as_str()), (200, r#"{"message":"hi"}"#));
    assert_eq!(got.header("content-type"), Some("application/json"));
    // The log has the type of the error, and nothing else of it.
    let lines = gateway.access_log(6);
    let line = lines.iter().find(|line| line["reason"] == "function_failed" && line["target_status"] == "Unhandled");
    assert!(line.expect("a line").to_string().contains("KeyError"));
    assert!(!lines.iter().any(|line| line.to_string().contains("secret text")));
    // An event that is too long is not sent.
    let before = functions.calls().len();
    let got = post(&gateway, "/api/pets/1/", "content-type: image/png\r\n", &vec![255; 5 << 20]);
    assert_eq!((got.status, got.reason().as_str()), (413, "body_too_large"), "{}", got.text());
    assert_eq!(functions.calls().len(), before);
}

#[test]
fn queued_calls_and_raw_payloads() {
    let functions = Functions::start(SECRET, |target, event| match target.contains("queued") {
        true => Returned { status: 202, headers: Vec::new(), payload: Vec::new() },
        false => Returned::json(&event.to_string()),
    });
    let action = |name: &str, settings: &str| {
        format!(
            "  - {{name: {name}, match: {{path: /{name}}}, action: {{lambda: {{upstream: aws, region: eu-west-1, \
             function: {name}, {settings}, {KEY}}}}}}}\n"
        )
    };
    let gateway = Gateway::start(&format!(
        "
upstreams: {{aws: {{targets: ['{}']}}}}
routes:
{}{}",
        functions.target.address,
        action("queued", "invocation: event"),
        action("raw", "payload: raw")
    ));
    let got = post(&gateway, "/queued", "", b"{}");
    assert_eq!((got.status, got.body.len()), (202, 0));
    assert_eq!(header(&functions.calls()[0], "x-amz-invocation-type").as_deref(), Some("Event"));
    assert_eq!(header(&functions.calls()[0], "host").as_deref(), Some("lambda.eu-west-1.amazonaws.com"));
    let got = post(&gateway, "/raw", "", b"{\"a\": 1}");
    assert_eq!((got.status, got.text().as_str()), (200, "{\"a\":1}"));
    assert_eq!(functions.calls()[1].body, b"{\"a\": 1}");
    let got = post(&gateway, "/raw", "", b"a=1");
    assert_eq!((got.status, got.reason().as_str()), (400, "request_untranslatable"));
    let got = gateway.get("/raw");
    assert_eq!(got.status, 200, "{}", got.text());
}

fn chunk(payload: &[u8]) -> Vec<u8> {
    frame("event", (":event-type", "PayloadChunk"), payload)
}

#[test]
fn responses_are_streamed_with_their_metadata() {
    let functions = Functions::start(SECRET, |_, event| {
        let complete = |text: &str| frame("event", (":event-type", "InvokeComplete"), text.as_bytes());
        let prelude = chunk(b"{\"statusCode\":418,\"headers\":{\"x-s\":\"1\"},\"cookies\":[\"c=1\"]}\0\0\0\0");
        let frames = match event["rawQueryString"].as_str().unwrap_or_default() {
            "plain" => [chunk(b"he"), chunk(b"llo"), complete("{}")].concat(),
            "early" => complete(r#"{"ErrorCode":"Runtime.Fail","ErrorDetails":"secret"}"#),
            "exception" => frame("exception", (":exception-type", "ModelError"), b"{}"),
            "late" => {
                [prelude, chunk(b"\0\0\0\0be"), chunk(b"gun"), complete(r#"{"ErrorCode":"Runtime.Fail"}"#)].concat()
            }
            "short" => [prelude, chunk(b"\0\0\0\0be")].concat(),
            "broken" => {
                let mut bytes = chunk(b"hello");
                bytes[40] ^= 1;
                bytes
            }
            _ => [prelude, chunk(b"\0\0\0\0be"), chunk(b"gun"), complete("{}")].concat(),
        };
        Returned { status: 200, headers: Vec::new(), payload: frames }
    });
    let gateway = Gateway::start(&config(&functions, &format!("streaming: true, {KEY}")));
    let got = gateway.get("/api/pets/1/");
    assert_eq!((got.status, got.text().as_str(), got.header("x-s")), (418, "begun", Some("1")));
    assert_eq!(got.header("set-cookie"), Some("c=1"));
    assert!(functions.calls()[0].target.starts_with("/2021-11-15/functions/"));
    assert!(functions.calls()[0].target.ends_with("/response-streaming-invocations"));
    assert_eq!(gateway.get("/api/pets/1/?plain").text(), "hello");
    // A body where there is none would be read as the next response.
    let mut connection = Connection::open(gateway.address());
    connection.send("HEAD /api/pets/1/ HTTP/1.1\r\nhost: a\r\n\r\n");
    let head = connection.try_receive(true).expect("a head");
    assert_eq!((head.status, head.header("x-s")), (418, Some("1")));
    let next = connection.ask("GET /api/pets/1/?plain HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!((next.status, next.text().as_str()), (200, "hello"));
    for word in ["early", "exception"] {
        let got = gateway.get(&format!("/api/pets/1/?{word}"));
        assert_eq!((got.status, got.reason().as_str()), (502, "function_failed"), "{word}");
    }
    let got = gateway.get("/api/pets/1/?broken");
    assert_eq!((got.status, got.reason().as_str()), (502, "response_untranslatable"));
    // What has begun is broken off, and not ended as if it were complete.
    for word in ["late", "short"] {
        let mut connection = Connection::open(gateway.address());
        connection.send(format!("GET /api/pets/1/?{word} HTTP/1.1\r\nhost: a\r\n\r\n"));
        let rest = String::from_utf8_lossy(&connection.rest()).into_owned();
        assert!(rest.starts_with("HTTP/1.1 418") && !rest.ends_with("0\r\n\r\n"), "{word}: {rest}");
    }
}

#[test]
fn a_role_is_assumed_and_the_credentials_are_renewed() {
    let functions = Functions::start("S1", hello);
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&asked);
    let sts = Target::new(move |stream, request| {
        let mut asked = noted.lock().unwrap();
        asked.push(String::from_utf8_lossy(&request.body).into_owned());
        if asked.len() == 1 {
            return answer(stream, 500, &[], b"secret");
        }
        // They end soon, so that they are renewed.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let end = chrono::DateTime::from_timestamp(now.as_secs() as i64 + 8, 0).expect("a time");
        let end = end.format("%Y-%m-%dT%H:%M:%SZ");
        let text = format!(
            "<R xmlns='https://sts.amazonaws.com/doc/2011-06-15/'><Credentials><AccessKeyId>ASIA</AccessKeyId>\
             <SecretAccessKey>S1</SecretAccessKey><SessionToken>token-{}</SessionToken><Expiration>{end}</Expiration>\
             </Credentials></R>",
            asked.len()
        );
        answer(stream, 200, &[], text.as_bytes())
    });
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("token"), "web token\n").expect("written");
    let settings = format!(
        "credentials: {{web_identity: {{role: 'arn:aws:iam::123456789012:role/r', token_file: token, url: 'http://{}/'}}}}",
        sts.address
    );
    let gateway = Gateway::start_in(folder, &config(&functions, &settings), &[]);
    // The first try failed: nothing is sent without a signature.
    let got = gateway.get("/api/pets/1/");
    if got.status != 200 {
        assert_eq!((got.status, got.reason().as_str()), (503, "credentials_unavailable"), "{}", got.text());
        assert!(!got.text().contains("secret") && functions.calls().is_empty());
    }
    eventually("there are credentials", || gateway.get("/api/pets/1/").status == 200);
    assert!(asked.lock().unwrap()[0].contains("&WebIdentityToken=web%20token"));
    let token = |at: usize| header(&functions.calls()[at], "x-amz-security-token");
    let first = token(0);
    assert!(first.as_ref().is_some_and(|token| token.starts_with("token-")));
    eventually("they are renewed", || {
        gateway.get("/api/pets/1/").status == 200 && token(functions.calls().len() - 1) != first
    });
    assert!(!gateway.log().contains("web token") && !gateway.log().contains("S1"), "{}", gateway.log());
}

#[test]
fn a_profile_of_a_file_is_read_again_when_it_changes() {
    let functions = Functions::start("S2", hello);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("credentials");
    std::fs::write(&file, "[dev]\naws_access_key_id = A\naws_secret_access_key = other\n").expect("written");
    let settings = "credentials: {file: {path: credentials, profile: dev}}";
    let gateway = Gateway::start_in(folder, &config(&functions, settings), &[]);
    let got = gateway.get("/api/pets/1/");
    assert_eq!((got.status, got.reason().as_str()), (502, "function_failed"));
    std::fs::write(&file, "[dev]\naws_access_key_id = A\naws_secret_access_key = S2\n").expect("written");
    eventually("the new key is used", || gateway.get("/api/pets/1/").status == 200);
}

#[test]
fn settings_that_cannot_work_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wrong.yaml");
    let text = "
listeners: [{name: main, address: 127.0.0.1:0}]
upstreams: {aws: {targets: ['127.0.0.1:1']}}
routes:
  - {name: a, match: {path: /a}, action: {lambda: {upstream: aws, function: f}}}
  - {name: b, match: {path: /b}, action: {lambda: {upstream: awz, function: 'f:live', region: us-east-1, qualifier: x}}}
  - {name: c, match: {path: /c}, action: {lambda: {upstream: aws, function: 'a b', region: us-east-1}}}
  - {name: d, match: {path: /d}, action: {lambda: {upstream: aws, function: f, region: us-east-1, streaming: true, payload: raw}}}
  - {name: e, match: {path: /e}, action: {lambda: {upstream: aws, function: f, region: 'us east', binary_types: [png]}}}
";
    std::fs::write(&file, text).expect("written");
    let (code, out, err) = run(&["check", "-c", file.to_str().expect("a path")], Some(folder.path()));
    let all = format!("{out}{err}");
    assert_ne!(code, 0, "{all}");
    for wanted in [
        "set region",
        "there is no upstream \"awz\"",
        "leave one of both out",
        "expected the name of a function",
        "has no effect: only responses",
        "expected a region such as us-east-1",
        "expected a media type such as image/*",
    ] {
        assert!(all.contains(wanted), "{wanted}: {all}");
    }
}
