//! Methods that the target itself describes (gRPC server reflection).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Response};
use serde_json::json;
use tokio::net::TcpListener;

use super::harness::eventually;
use super::harness::gateway::Gateway;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The files of `books.proto` and what they import, encoded, by their names.
fn files() -> BTreeMap<String, Vec<u8>> {
    let mut compiler =
        protox::Compiler::new([format!("{ROOT}/tests/gateway/protos"), format!("{ROOT}/src/rules/grpc/protos")])
            .expect("a compiler");
    compiler.include_imports(true).open_file("books.proto").expect("descriptors");
    let pool = compiler.descriptor_pool();
    let files = pool.files().map(|file| (file.name().to_owned(), file.encode_to_vec()));
    files.collect()
}

fn record(field: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    let mut length = bytes.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(bytes);
    out
}

/// The response to one request: the file alone, as some servers send it, so that imports are asked for.
fn respond(request: &[u8], files: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let text = String::from_utf8_lossy(request.get(2..).unwrap_or_default()).into_owned();
    let file = |name: &str| record(4, &record(1, &files[name]));
    match request.first().map(|tag| tag >> 3) {
        Some(7) => {
            let names = ["t.Books", "grpc.reflection.v1alpha.ServerReflection"];
            record(6, &names.iter().flat_map(|name| record(1, &record(1, name.as_bytes()))).collect::<Vec<_>>())
        }
        Some(4) if text == "t.Books" => file("books.proto"),
        Some(3) if files.contains_key(&text) => file(&text),
        _ => record(7, &[&[8, 5][..], &record(2, b"no such thing")].concat()),
    }
}

struct Target {
    address: SocketAddr,
    /// Whether it describes its services.
    describes: Arc<AtomicBool>,
    paths: Arc<Mutex<Vec<String>>>,
}

fn target(describes: bool) -> Target {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("set");
    let address = listener.local_addr().expect("an address");
    let (describes, paths) = (Arc::new(AtomicBool::new(describes)), Arc::new(Mutex::new(Vec::new())));
    let shared = (Arc::clone(&describes), Arc::clone(&paths), Arc::new(files()));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                    while let Some(Ok((request, answer))) = connection.accept().await {
                        tokio::spawn(serve(request, answer, shared.clone()));
                    }
                });
            }
        });
    });
    Target { address, describes, paths }
}

type Shared = (Arc<AtomicBool>, Arc<Mutex<Vec<String>>>, Arc<BTreeMap<String, Vec<u8>>>);

async fn serve(
    request: http::Request<h2::RecvStream>,
    mut answer: h2::server::SendResponse<Bytes>,
    (describes, paths, files): Shared,
) {
    let path = request.uri().path().to_owned();
    paths.lock().unwrap().push(path.clone());
    let mut body = request.into_body();
    let mut got = Vec::new();
    while let Some(Ok(part)) = body.data().await {
        let _ = body.flow_control().release_capacity(part.len());
        got.extend_from_slice(&part);
    }
    // Only the older version of reflection is known here.
    let is_reflection = path.starts_with("/grpc.reflection.v1alpha.");
    let known = path.starts_with("/t.Books/") || is_reflection && describes.load(Ordering::Acquire);
    let head = Response::builder().header("content-type", "application/grpc");
    if !known {
        let head = head.header("grpc-status", "12").body(()).expect("a head");
        let _ = answer.send_response(head, true);
        return;
    }
    let Ok(mut stream) = answer.send_response(head.body(()).expect("a head"), false) else { return };
    let mut rest = got.as_slice();
    while let Some((header, after)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let (message, after) = after.split_at(length);
        let reply = if is_reflection { respond(message, &files) } else { message.to_vec() };
        let frame = [&[0][..], &(reply.len() as u32).to_be_bytes(), &reply].concat();
        let _ = stream.send_data(frame.into(), false);
        rest = after;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    let _ = stream.send_trailers(trailers);
}

fn yaml(target: &Target) -> String {
    format!(
        "
upstreams: {{books: {{targets: ['{}'], protocol: http2}}}}
routes:
  - name: books
    action:
      forward: {{upstream: books, translate: [{{rest_to_grpc: {{reflection: true, openapi: /openapi.json}}}}]}}
",
        target.address
    )
}

#[test]
fn a_target_describes_its_methods() {
    let target = target(true);
    let gateway = Gateway::start(&yaml(&target));
    let response = gateway.get("/v1/shelves/1/books/2?more.note=a");
    assert_eq!(response.status, 200, "{} {}", response.text(), gateway.log());
    assert_eq!(
        (&response.json()["name"], &response.json()["more"]),
        (&json!("shelves/1/books/2"), &json!({"note": "a"}))
    );
    assert_eq!(gateway.get("/openapi.json").json()["openapi"], "3.0.3");
    assert_eq!(gateway.get("/v1/unknown").status, 404);
    // A reload asks anew, before it serves.
    let before = target.paths.lock().unwrap().len();
    gateway.write_config(&format!("{}\n# changed", yaml(&target)));
    assert_eq!(gateway.reload().status, 200);
    assert_eq!(gateway.get("/v1/shelves/1/books/2").status, 200);
    assert!(target.paths.lock().unwrap().len() > before + 1);
}

#[test]
fn a_target_that_describes_nothing_is_asked_again() {
    let target = target(false);
    let gateway = Gateway::start(&yaml(&target));
    let response = gateway.get("/v1/shelves/1/books/2");
    assert_eq!((response.status, response.reason().as_str()), (503, "no_healthy_target"));
    assert!(gateway.log().contains("the methods of upstream books cannot be read"), "{}", gateway.log());
    target.describes.store(true, Ordering::Release);
    eventually("its methods are known", || gateway.get("/v1/shelves/1/books/2").status == 200);
}
