//! Limits of counts and rates: headers, parameters, slow bodies, the memory of HTTP/2 streams.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::harness::client::head;
use super::harness::gateway::Gateway;
use super::harness::target::Target;
use super::tls::block;

fn listener(limits: &str) -> String {
    format!(
        "listeners: [{{name: main, address: 127.0.0.1:0, protocols: [http1, http2], limits: {{{limits}}}}}]\nroutes: [{{name: \
         all, action: {{respond: {{body: x}}}}}}]\n"
    )
}

#[test]
fn headers_and_parameters_are_counted() {
    let gateway = Gateway::start(&listener("header_count: 5, query_parameters: 3"));
    let with = |count: usize| {
        let headers: Vec<(String, String)> = (0..count).map(|n| (format!("x-{n}"), "1".to_owned())).collect();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        gateway.request("GET", "/", &headers)
    };
    // With `Host`.
    assert_eq!(with(4).status, 200);
    assert_eq!((with(5).status, with(5).reason()), (431, "headers_too_large".to_owned()));
    assert_eq!(gateway.get("/?a=1&b=2&c=3").status, 200);
    let many = gateway.get("/?a=1&b=2&c=3&d=4");
    assert_eq!((many.status, many.reason()), (414, "uri_too_long".to_owned()));
    assert_eq!(gateway.get("/?a&&&").status, 414);
}

#[test]
fn a_body_that_drips_is_rejected() {
    let target = Target::echo("one");
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]\nlisteners: [{{name: \
         main, address: 127.0.0.1:0, limits: {{body_rate: 1KiB, header_time: 500ms}}}}]\n",
        target.address
    ));
    let mut stream = TcpStream::connect(gateway.address()).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
    stream.write_all(head("POST", "/", &[("content-length", "100000")]).as_bytes()).expect("sent");
    let mut text = Vec::new();
    // A byte every 20 ms, until the response comes.
    let mut part = [0; 4096];
    while !text.ends_with(b"}") && stream.write_all(b"x").is_ok() {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => text.extend_from_slice(&part[..count]),
            Err(_) => {}
        }
    }
    let text = String::from_utf8_lossy(&text);
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("client_timeout"), "{text}");
    // One that comes at once is none.
    let body = "x".repeat(3_000);
    let text = head("POST", "/", &[("content-length", "3000")]) + &body;
    let mut connection = super::harness::client::Connection::open(gateway.address());
    assert_eq!(connection.ask(text).status, 200);
}

#[test]
fn the_streams_of_a_connection_have_a_bounded_memory() {
    let target = Target::named("echo", "one");
    let gateway = Gateway::start(&format!(
        "upstreams: {{one: {{targets: [\"{}\"]}}}}\nroutes: [{{name: all, action: {{forward: one}}}}]\nlisteners: [{{name: \
         main, address: 127.0.0.1:0, protocols: [http1, http2], limits: {{http2_memory: 256KiB}}}}]\n",
        target.address
    ));
    let results = block(async {
        let stream = tokio::net::TcpStream::connect(gateway.address()).await.expect("a connection");
        let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut sender = sender.ready().await.expect("ready");
        let mut responses = Vec::new();
        for _ in 0..6 {
            let request = http::Request::get("http://a.test/hold").body(()).expect("a request");
            responses.push(sender.send_request(request, true).expect("sent").0);
        }
        // Three streams of 64 KiB and their heads fit, a fourth does not.
        let mut refused = 0;
        for response in responses.split_off(3) {
            let error = response.await.expect_err("refused");
            refused += usize::from(error.reason() == Some(h2::Reason::REFUSED_STREAM));
        }
        target.release();
        let mut statuses = Vec::new();
        for response in responses {
            statuses.push(response.await.expect("a response").status().as_u16());
        }
        // Their memory is free again.
        let request = http::Request::get("http://a.test/").body(()).expect("a request");
        statuses.push(sender.send_request(request, true).expect("sent").0.await.expect("a response").status().as_u16());
        (refused, statuses)
    });
    assert_eq!(results, (3, vec![200; 4]));
    assert_eq!(gateway.metric("portcullis_connections_refused_total{cause=\"stream_memory\"}"), 3.0);
}
