//! The action `files`: which files are sent, how, and what is never sent.

use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use http::Request;

use super::harness::client::{self, Answer, Connection};
use super::harness::eventually;
use super::harness::gateway::Gateway;
use super::harness::target::Target;
use super::tls;

/// A gateway with those files, which were all modified at one time, and one route that serves them.
fn serve(files: &[(&str, &str)], settings: &str, rest: &str) -> Gateway {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        write(&folder.path().join("site").join(name), text.as_bytes());
    }
    Gateway::start_in(folder, &configuration(settings, rest), &[])
}

fn configuration(settings: &str, rest: &str) -> String {
    format!("routes: [{{name: site, {rest} action: {{files: {{root: site{settings}}}}}}}]")
}

fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, content).expect("written");
    let file = std::fs::File::options().write(true).open(path).expect("opened");
    file.set_modified(UNIX_EPOCH + Duration::from_secs(784_111_777)).expect("a time");
}

const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

const SITE: &[(&str, &str)] = &[
    ("index.html", "home"),
    ("a b.txt", "blank"),
    ("docs/index.html", "documents"),
    ("docs/page.css", "body {}"),
    ("empty/other.txt", ""),
    (".env", "secret"),
    (".git/config", "secret"),
    (".well-known/security.txt", "contact"),
];

#[test]
fn files_and_folders() {
    let gateway = serve(SITE, "", "");
    for (path, kind, body) in [
        ("/", "text/html; charset=utf-8", "home"),
        ("/index.html", "text/html; charset=utf-8", "home"),
        ("/?a=b", "text/html; charset=utf-8", "home"),
        ("/docs/", "text/html; charset=utf-8", "documents"),
        ("/docs/page.css", "text/css; charset=utf-8", "body {}"),
        ("/docs/../docs/page.css", "text/css; charset=utf-8", "body {}"),
        ("/a%20b.txt", "text/plain; charset=utf-8", "blank"),
        ("/empty/other.txt", "text/plain; charset=utf-8", ""),
        ("/.well-known/security.txt", "text/plain; charset=utf-8", "contact"),
    ] {
        let answer = gateway.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (200, body), "{path}");
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
        assert_eq!(answer.header("content-length"), Some(body.len().to_string().as_str()), "{path}");
        assert_eq!(answer.header("last-modified"), Some(MODIFIED), "{path}");
        let head = gateway.request("HEAD", path, &[]);
        assert_eq!((head.status, head.header("content-length")), (200, answer.header("content-length")), "{path}");
        assert_eq!(head.header("etag"), answer.header("etag"), "{path}");
    }
    for (path, location) in [("/docs", "/docs/"), ("/docs?a=b&c", "/docs/?a=b&c"), ("//docs", "/docs/")] {
        let answer = gateway.get(path);
        assert_eq!((answer.status, answer.header("location")), (308, Some(location)), "{path}");
    }
    for path in ["/nothing", "/index.html/", "/index.html/x", "/empty", "/empty/", "/docs/nothing", "/INDEX.html"] {
        assert_eq!(gateway.get(path).reason(), "file_not_found", "{path}");
    }
    let lines = gateway.access_log(28);
    let line =
        |method: &str| lines.iter().find(|l| l["path"] == "/docs/page.css" && l["method"] == method).expect("it");
    assert_eq!((&line("GET")["reason"], &line("GET")["bytes_out"]), (&"served".into(), &7.into()));
    assert_eq!((&line("HEAD")["reason"], &line("HEAD")["bytes_out"]), (&"served".into(), &0.into()));
}

#[test]
fn only_get_and_head() {
    let gateway = serve(SITE, "", "");
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = gateway.request(method, "/index.html", &[("content-length", "0")]);
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    // The connection goes on, with a body in the request as well.
    let mut connection = Connection::open(gateway.address());
    for _ in 0..2 {
        let answer = connection.ask("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(answer.text(), "home");
        let answer = connection.ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(answer.status, 405);
        assert_eq!(connection.ask("HEAD / HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    }
    assert_eq!(Connection::open(gateway.address()).ask("GET / HTTP/1.0\r\n\r\n").text(), "home");
}

#[test]
fn hidden_names_and_tricks_are_not_served() {
    let gateway = serve(SITE, ", fallback: /index.html", "");
    for path in ["/.env", "/.git/config", "/.git/", "/docs/.x", "/docs%2Fpage.css", "/..%2Fsecret", "/.well-known%2Fx"]
    {
        assert_eq!(gateway.get(path).reason(), "file_not_found", "{path}");
    }
    for path in ["/%00", "/a%5Cb", "/../secret", "/%2e%2e/secret", "/%zz"] {
        assert_eq!(gateway.get(path).status, 400, "{path}");
    }
    assert_eq!(gateway.get("/docs/./page.css").text(), "body {}");
}

#[test]
fn nothing_outside_of_the_root_is_served() {
    let gateway = serve(SITE, "", "");
    let site = gateway.folder.path().join("site");
    write(&gateway.folder.path().join("secret.txt"), b"secret");
    symlink("/etc", site.join("etc")).expect("a link");
    symlink("../secret.txt", site.join("up.txt")).expect("a link");
    symlink(gateway.folder.path().join("secret.txt"), site.join("absolute.txt")).expect("a link");
    symlink("..", site.join("docs/above")).expect("a link");
    symlink("../..", site.join("docs/outside")).expect("a link");
    symlink("loop", site.join("loop")).expect("a link");
    symlink("docs/page.css", site.join("inside.css")).expect("a link");
    symlink("docs", site.join("also")).expect("a link");
    for path in ["/etc/passwd", "/up.txt", "/absolute.txt", "/docs/outside/secret.txt", "/docs/outside/", "/loop"] {
        assert_eq!(gateway.get(path).reason(), "file_not_found", "{path}");
    }
    for (path, body) in [("/inside.css", "body {}"), ("/also/page.css", "body {}"), ("/docs/above/index.html", "home")]
    {
        assert_eq!(gateway.get(path).text(), body, "{path}");
    }
    let lines = gateway.access_log(9);
    let line = lines.iter().find(|l| l["path"] == "/up.txt").expect("its line");
    assert_eq!(line["detail"], "a symbolic link leads out of the root");
}

#[test]
fn only_regular_files_are_served() {
    let gateway = serve(SITE, "", "");
    let site = gateway.folder.path().join("site");
    let made = std::process::Command::new("mkfifo").arg(site.join("fifo")).status().expect("mkfifo");
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(site.join("socket")).expect("a socket");
    symlink("/dev/zero", site.join("zero")).expect("a link");
    for path in ["/fifo", "/socket", "/zero"] {
        assert_eq!(gateway.get(path).reason(), "file_not_found", "{path}");
    }
}

#[test]
fn conditions_and_ranges() {
    let gateway = serve(&[("a.txt", "0123456789")], ", cache_control: no-cache", "");
    let etag = gateway.get("/a.txt").header("etag").expect("a tag").to_owned();
    let weak = format!("W/{etag}");
    let with = |headers: &[(&str, &str)]| gateway.request("GET", "/a.txt", headers);
    for headers in [
        &[("if-none-match", etag.as_str())][..],
        &[("if-none-match", &weak)],
        &[("if-none-match", "*")],
        &[("if-modified-since", MODIFIED)],
        &[("if-none-match", &etag), ("range", "bytes=0-1")],
    ] {
        let answer = with(headers);
        assert_eq!((answer.status, answer.header("content-length")), (304, None), "{headers:?}");
        assert_eq!(answer.header("etag"), Some(etag.as_str()), "{headers:?}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{headers:?}");
    }
    for headers in [
        &[("if-none-match", "\"other\"")][..],
        &[("if-none-match", "\"other\""), ("if-modified-since", MODIFIED)],
        &[("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")],
        &[("if-match", &etag)],
        &[("range", "bytes=0-1,3-4")],
        &[("range", "lines=0-1")],
        &[("range", "bytes=0-1"), ("if-range", "\"other\"")],
        &[("range", "bytes=0-1"), ("if-range", &weak)],
    ] {
        let answer = with(headers);
        assert_eq!((answer.status, answer.text().as_str()), (200, "0123456789"), "{headers:?}");
        assert_eq!(answer.header("accept-ranges"), Some("bytes"), "{headers:?}");
    }
    for headers in [&[("if-match", "\"other\"")][..], &[("if-match", &weak)]] {
        assert_eq!(with(headers).reason(), "precondition_failed", "{headers:?}");
    }
    assert_eq!(with(&[("if-unmodified-since", "Sun, 06 Nov 1994 08:49:36 GMT")]).status, 412);
    for (range, part, text) in
        [("bytes=2-4", "bytes 2-4/10", "234"), ("bytes=-3", "bytes 7-9/10", "789"), ("bytes=9-99", "bytes 9-9/10", "9")]
    {
        for if_range in [None, Some(("if-range", etag.as_str())), Some(("if-range", MODIFIED))] {
            let headers: Vec<_> = [("range", range)].into_iter().chain(if_range).collect();
            let answer = with(&headers);
            assert_eq!((answer.status, answer.text().as_str()), (206, text), "{headers:?}");
            assert_eq!(answer.header("content-range"), Some(part), "{headers:?}");
        }
    }
    let answer = with(&[("range", "bytes=10-")]);
    assert_eq!((answer.status, answer.header("content-range")), (416, Some("bytes */10")));
    assert_eq!(gateway.request("HEAD", "/a.txt", &[("range", "bytes=2-4")]).header("content-length"), Some("10"));
    // Another content at another time has another tag.
    std::fs::write(gateway.folder.path().join("site/a.txt"), "abc").expect("written");
    assert_eq!(with(&[("if-none-match", &etag)]).text(), "abc");
}

#[test]
fn a_file_without_a_real_time_has_no_validators() {
    let gateway = serve(&[("a.txt", "abc")], "", "");
    let file = std::fs::File::options().write(true).open(gateway.folder.path().join("site/a.txt")).expect("opened");
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).expect("a time");
    let answer = gateway.get("/a.txt");
    assert_eq!((answer.header("etag"), answer.header("last-modified")), (None, None));
    assert_eq!(gateway.request("GET", "/a.txt", &[("if-modified-since", MODIFIED)]).text(), "abc");
}

#[test]
fn precompressed_files_are_negotiated() {
    let files =
        [("a.js", "plain"), ("a.js.br", "of br"), ("a.js.gz", "of gzip"), ("b.js", "alone"), ("c.js.br", "no c.js")];
    let gateway = serve(&files, ", precompressed: [br, gzip, zstd]", "");
    let with = |path: &str, accepted: &str| gateway.request("GET", path, &[("accept-encoding", accepted)]);
    let mut tags = std::collections::HashSet::new();
    for (accepted, coding, body) in [
        ("gzip, br, zstd", Some("br"), "of br"),
        ("gzip, br;q=0.5", Some("gzip"), "of gzip"),
        ("zstd", None, "plain"),
        ("zstd, gzip;q=0.1", Some("gzip"), "of gzip"),
        ("br;q=0, *", Some("gzip"), "of gzip"),
        ("identity, br;q=0.5", None, "plain"),
        ("", None, "plain"),
    ] {
        let answer = with("/a.js", accepted);
        assert_eq!((answer.header("content-encoding"), answer.text().as_str()), (coding, body), "{accepted}");
        assert_eq!(answer.header("vary"), Some("accept-encoding"), "{accepted}");
        assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"), "{accepted}");
        tags.insert(answer.header("etag").expect("a tag").to_owned());
    }
    assert_eq!(tags.len(), 3, "{tags:?}");
    assert_eq!(with("/b.js", "br").text(), "alone");
    assert_eq!(with("/c.js", "br").status, 404);
    let part = gateway.request("GET", "/a.js", &[("accept-encoding", "br"), ("range", "bytes=3-4")]);
    assert_eq!((part.status, part.text().as_str(), part.header("content-encoding")), (206, "br", Some("br")));
}

#[test]
fn a_fallback_and_a_prefix() {
    let gateway = serve(SITE, ", fallback: /index.html, strip_prefix: /app", "match: {path: [/app/*, /docs/*]},");
    for path in ["/app/", "/app/settings", "/app/docs/nothing", "/app/empty", "/app/index.html/x"] {
        let answer = gateway.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (200, "home"), "{path}");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
    }
    assert_eq!(gateway.get("/app/docs/page.css").text(), "body {}");
    assert_eq!(gateway.get("/docs/page.css").text(), "body {}", "a path without the prefix is kept");
    assert_eq!(gateway.get("/app/docs?x").header("location"), Some("/app/docs/?x"));
    assert_eq!(gateway.get("/app").header("location"), Some("/app/"));
}

#[test]
fn filters_see_a_file_like_a_response_of_a_target() {
    let text = "text ".repeat(1_000);
    let filters = "filters: [compress: {codings: [gzip]}, headers: {response: {set: {x-frame-options: DENY}}, \
                   always: {set: {x-always: a}}}, cors: {origins: ['https://a.example']}],";
    let gateway = serve(&[("a.txt", &text), ("b.json", "{\"a\":1,\"ssn\":2}")], "", filters);
    let headers = [("accept-encoding", "gzip"), ("origin", "https://a.example")];
    let answer = gateway.request("GET", "/a.txt", &headers);
    assert_eq!((answer.header("content-encoding"), answer.header("x-frame-options")), (Some("gzip"), Some("DENY")));
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://a.example"));
    let etag = answer.header("etag").expect("a tag").to_owned();
    assert!(etag.starts_with("W/") && answer.header("accept-ranges").is_none(), "{etag}");
    let mut plain = String::new();
    flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_string(&mut plain).expect("gzip");
    assert_eq!(plain, text);
    let head = gateway.request("HEAD", "/a.txt", &headers);
    assert_eq!((head.header("content-encoding"), head.header("etag")), (Some("gzip"), Some(etag.as_str())));
    let known = gateway.request("GET", "/a.txt", &[("accept-encoding", "gzip"), ("if-none-match", &etag)]);
    assert_eq!((known.status, known.header("etag")), (304, Some(etag.as_str())));
    let part = gateway.request("GET", "/a.txt", &[("accept-encoding", "gzip"), ("range", "bytes=0-3")]);
    assert_eq!((part.status, part.text().as_str(), part.header("content-encoding")), (206, "text", None));
    let missing = gateway.request("GET", "/nothing", &headers);
    assert_eq!((missing.status, missing.header("x-always"), missing.header("x-frame-options")), (404, Some("a"), None));
    assert_eq!(missing.header("access-control-allow-origin"), Some("https://a.example"));
    assert!(gateway.access_log(5).iter().any(|l| l["reason"] == "served" && l["path"] == "/a.txt"));
    let old = Connection::open(gateway.address()).ask("GET /a.txt HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!((old.header("content-length"), old.header("transfer-encoding")), (None, None));
    assert_eq!(old.body, answer.body, "the end of the connection is the end of the body");
}

/// The resident memory of a process, in KiB.
fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("its status");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A file of that many bytes, which take no place on the disk.
fn large(gateway: &Gateway, size: u64) -> std::fs::File {
    let file = std::fs::File::create(gateway.folder.path().join("site/large.bin")).expect("a file");
    file.set_len(size).expect("a size");
    file
}

#[test]
fn a_large_file_is_read_at_the_pace_of_its_client() {
    const SIZE: u64 = 64 << 20;
    let gateway = serve(&[("index.html", "home")], "", "");
    large(&gateway, SIZE);
    let before = memory(gateway.child.id());
    let mut clients: Vec<Connection> = (0..80).map(|_| Connection::open(gateway.address())).collect();
    for client in &mut clients {
        client.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(!client.some().expect("a begin").is_empty());
    }
    // More clients wait than files are read at a time, and nothing waits for them.
    assert_eq!(gateway.get("/").text(), "home");
    let grown = memory(gateway.child.id()).saturating_sub(before);
    assert!(grown < 48 << 10, "{grown} KiB for 80 clients");
    let whole = gateway.get("/large.bin");
    assert_eq!((whole.status, whole.body.len() as u64), (200, SIZE));
    let part = gateway.request("GET", "/large.bin", &[("range", "bytes=1048575-50331650")]);
    assert_eq!((part.status, part.body.len()), (206, 49_283_076));
}

#[test]
fn a_file_that_shrinks_breaks_its_response_off() {
    const SIZE: u64 = 64 << 20;
    let gateway = serve(&[("index.html", "home")], "", "");
    let file = large(&gateway, SIZE);
    let mut client = Connection::open(gateway.address());
    client.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    let begin = client.some().expect("a begin").len();
    file.set_len(10).expect("a size");
    let rest = client.rest().len();
    assert!(((begin + rest) as u64) < SIZE, "{rest}");
    assert_eq!(gateway.access_log(1)[0]["reason"], "file_failed");
    assert_eq!(gateway.get("/large.bin").body.len(), 10);
    // A client that leaves is no fault of the file.
    file.set_len(SIZE).expect("a size");
    let mut client = Connection::open(gateway.address());
    client.send("GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(client.some().is_ok());
    drop(client);
    assert!(gateway.access_log(3).iter().any(|l| l["reason"] == "client_gone"));
}

#[test]
fn http2_and_tls() {
    let pair = tls::certificate(&["localhost"]);
    let folder = tempfile::tempdir().expect("a folder");
    write(&folder.path().join("site/index.html"), b"home");
    tls::write(folder.path(), "own", &pair);
    let listeners = "\nlisteners: [{name: main, address: 127.0.0.1:0, protocols: [http1, http2]}, {name: tls, address: \
                     127.0.0.1:0, tls: {certificates: [{cert: own.pem, key: own.key}]}}]";
    let gateway = Gateway::start_in(folder, &format!("{}{listeners}", configuration("", "")), &[]);
    let file = large(&gateway, 3 << 20);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let text = runtime.block_on(tls::get(gateway.listeners[1].1, "localhost", &[], &[&pair.0])).expect("an answer").0;
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("\r\n\r\nhome"), "{text}");
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(gateway.address()).await.expect("a connection");
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        let ask = async |method: &str, path: &str, headers: &[(&str, &str)], begun: &dyn Fn()| {
            let mut request = Request::builder().method(method).uri(format!("http://localhost{path}"));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let mut client = client.clone().ready().await.expect("a stream");
            let (answer, _) = client.send_request(request.body(()).expect("a request"), true).expect("sent");
            let (head, mut body) = answer.await.expect("an answer").into_parts();
            let ends_with_head = body.is_end_stream();
            begun();
            let mut all = Vec::new();
            while let Some(part) = body.data().await {
                let part = part?;
                let _ = body.flow_control().release_capacity(part.len());
                all.extend_from_slice(&part);
            }
            Ok::<_, h2::Error>((head.status.as_u16(), all, ends_with_head))
        };
        let nothing = || ();
        assert_eq!(ask("GET", "/", &[], &nothing).await.unwrap(), (200, b"home".to_vec(), false));
        assert_eq!(ask("HEAD", "/", &[], &nothing).await.unwrap(), (200, Vec::new(), true));
        let known = [("if-none-match", "*")];
        assert_eq!(ask("GET", "/", &known, &nothing).await.unwrap(), (304, Vec::new(), true));
        let range = [("range", "bytes=1-2")];
        assert_eq!(ask("GET", "/", &range, &nothing).await.unwrap(), (206, b"om".to_vec(), false));
        assert_eq!(ask("GET", "/large.bin", &[], &nothing).await.unwrap().1.len(), 3 << 20);
        assert_eq!(ask("POST", "/", &[], &nothing).await.unwrap().0, 405);
        let broken = ask("GET", "/large.bin", &[], &|| file.set_len(10).expect("a size")).await;
        assert!(broken.is_err_and(|error| error.is_reset()));
    });
}

#[test]
fn a_new_release_is_served_at_once_and_a_root_must_be_there() {
    let folder = tempfile::tempdir().expect("a folder");
    for release in ["one", "two"] {
        write(&folder.path().join(release).join("index.html"), release.as_bytes());
    }
    symlink("one", folder.path().join("site")).expect("a link");
    let gateway = Gateway::start_in(folder, &configuration("", ""), &[]);
    let body = |answer: Answer| answer.text();
    assert_eq!(body(gateway.get("/")), "one");
    symlink("two", gateway.folder.path().join("next")).expect("a link");
    std::fs::rename(gateway.folder.path().join("next"), gateway.folder.path().join("site")).expect("renamed");
    assert_eq!(body(gateway.get("/")), "two");
    std::fs::remove_file(gateway.folder.path().join("site")).expect("removed");
    let answer = gateway.get("/");
    assert_eq!((answer.status, answer.reason().as_str()), (500, "file_failed"));
    let lines = gateway.access_log(3);
    let line = lines.iter().find(|l| l["status"] == 500).expect("its line");
    assert_eq!(line["detail"], "the root: No such file or directory (os error 2)");
    let reloaded = gateway.reload();
    assert!(reloaded.status != 200 && reloaded.text().contains("cannot serve the files of"), "{}", reloaded.text());
    let of_reason = "portcullis_requests_ended_total{reason=\"served\",route=\"site\"}";
    eventually("the requests are counted", || client::get(gateway.admin, "/metrics").text().contains(of_reason));
}

/// The example as it is shipped, with other ports.
#[test]
fn the_example_serves_a_site_and_its_api() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/examples");
    let target = Target::echo("api");
    let text = std::fs::read_to_string(examples.join("static-site.yaml")).expect("the example");
    let text = text.replace("127.0.0.1:8080", "127.0.0.1:0").replace("127.0.0.1:9001", &target.address.to_string());
    let folder = tempfile::tempdir().expect("a folder");
    symlink(examples.join("site"), folder.path().join("site")).expect("a link");
    let gateway = Gateway::start_in(folder, &text, &[]);
    let home = std::fs::read_to_string(examples.join("site/index.html")).expect("the page");
    for path in ["/", "/index.html", "/settings/profile"] {
        let answer = gateway.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (200, home.as_str()), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
    }
    let script = gateway.request("GET", "/assets/app.js", &[("accept-encoding", "gzip, br")]);
    assert_eq!(script.header("content-encoding"), Some("gzip"));
    assert_eq!(script.header("cache-control"), Some("public, max-age=31536000, immutable"));
    assert_eq!(gateway.get("/assets/missing.js").status, 404);
    assert_eq!(gateway.get("/api/users").json()["target"], "/users");
}

#[test]
fn a_range_of_json_whose_members_are_removed_is_the_whole_file() {
    let files = [("b.json", "{\"a\":1,\"ssn\":2}"), ("a.txt", "text")];
    let gateway = serve(&files, "", "filters: [strip_fields: {response: [ssn]}],");
    let whole = gateway.request("GET", "/b.json", &[("range", "bytes=0-3")]);
    assert_eq!((whole.status, whole.text().as_str()), (200, "{\"a\":1}"));
    let part = gateway.request("GET", "/a.txt", &[("range", "bytes=0-2")]);
    assert_eq!((part.status, part.text().as_str()), (206, "tex"));
}
