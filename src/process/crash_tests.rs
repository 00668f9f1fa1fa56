//! A panic while a request is processed, provoked by an invalid snapshot.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{ConfigSource, Options, start};
use crate::compile::compile;
use crate::live::Live;
use crate::snapshot::Serving;

const YAML: &str = "listeners: [{name: main, address: 127.0.0.1:0}]
routes: [{name: all, action: {respond: {body: fine}}}]
admin: {address: 127.0.0.1:0}
log: {access: {output: none}}
process: {threads: 1}";

async fn ask(address: std::net::SocketAddr) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    stream.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("a response");
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_panic_is_one_request_s_failure() {
    let source = ConfigSource::Text { text: YAML.to_owned(), name: "c.yaml".to_owned(), base: ".".into() };
    let started = start(Options { source: source.clone(), upgrade: false }).await.expect("started");
    let supervisor = &started.supervisor;
    let address = supervisor.addresses()[0].1;
    assert!(ask(address).await.ends_with("fine"));
    // No configuration makes such a snapshot: its router names a route that does not exist.
    let mut snapshot = compile(&source.load().expect("loaded"), &Live::default()).expect("compiled");
    snapshot.routes.clear();
    let sound = supervisor.serving();
    supervisor.serving.replace(&Arc::new(Serving { snapshot, access_log: Arc::clone(&sound.access_log) }));
    for _ in 0..3 {
        let response = ask(address).await;
        assert!(response.starts_with("HTTP/1.1 500") && response.contains("\"reason\":\"internal\""), "{response}");
        assert!(!response.contains("index out of bounds"));
    }
    supervisor.serving.replace(&sound);
    assert!(ask(address).await.ends_with("fine"), "the process lives");
    supervisor.end();
    tokio::time::timeout(Duration::from_secs(10), started.until_end()).await.expect("nothing is left under way");
}
