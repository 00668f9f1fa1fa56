//! Targets, each on a free port.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as a target sees it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What a target does with a connection once a request's head has come.
type Behaviour = dyn Fn(&mut TcpStream, &Seen) -> std::io::Result<()> + Send + Sync;

/// A target; it stops with its last handle.
pub struct Target {
    pub address: SocketAddr,
    pub requests: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    word: Arc<Mutex<String>>,
    released: Arc<AtomicBool>,
    /// A port on which nobody listens.
    _held: Option<socket2::Socket>,
}

/// A port of 127.0.0.1 at which connections are refused, and that nobody else gets while the socket lives.
pub fn refused() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let address = socket.local_addr().expect("an address").as_socket().expect("an address");
    (socket, address)
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
    }
}

impl Target {
    /// A target of that behaviour, on a free port.
    pub fn new(behaviour: impl Fn(&mut TcpStream, &Seen) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a free port"), behaviour)
    }

    /// A target on that socket.
    pub fn on(
        listener: TcpListener,
        behaviour: impl Fn(&mut TcpStream, &Seen) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("an address");
        let (stop, requests) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&requests));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let (behaviour, counted, stopped) =
                    (Arc::clone(&behaviour), Arc::clone(&counted), Arc::clone(&stopped));
                std::thread::spawn(move || {
                    let _ = serve(stream, &*behaviour, &counted, &stopped);
                });
            }
        });
        Self { address, requests, stop, word: Arc::default(), released: Arc::default(), _held: None }
    }

    pub fn count(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }

    /// Answers with what it saw, as JSON, and its name.
    pub fn echo(name: &'static str) -> Self {
        Self::new(move |stream, seen| echo(stream, seen, name))
    }

    /// Answers with that status, those headers and that body.
    pub fn fixed(status: u16, headers: &'static [(&'static str, &'static str)], body: &'static [u8]) -> Self {
        Self::new(move |stream, _| answer(stream, status, headers, body))
    }

    /// Answers with those bytes, and closes.
    pub fn raw(bytes: &'static [u8]) -> Self {
        Self::new(move |stream, _| raw(stream, bytes))
    }

    /// A target by the word that scenario files use for it; its behaviour can be changed with
    /// [`Target::become_`].
    pub fn named(word: &str, name: &'static str) -> Self {
        if word == "refused" {
            let (socket, address) = refused();
            let (word, released) = (Arc::default(), Arc::default());
            return Self {
                address,
                requests: Arc::default(),
                stop: Arc::default(),
                word,
                released,
                _held: Some(socket),
            };
        }
        let present = Arc::new(Mutex::new(word.to_owned()));
        let released = Arc::new(AtomicBool::new(false));
        let (word, gate) = (Arc::clone(&present), Arc::clone(&released));
        let count = AtomicUsize::new(0);
        let mut target = Self::new(move |stream, seen| {
            while seen.target.starts_with("/hold") && !gate.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(2));
            }
            let word = word.lock().expect("the word").clone();
            behave(&word, name, count.fetch_add(1, Ordering::Relaxed), stream, seen)
        });
        (target.word, target.released) = (present, released);
        target
    }

    /// From now on it behaves as that word says.
    pub fn become_(&self, word: &str) {
        word.clone_into(&mut self.word.lock().expect("the word"));
    }

    /// Answers what is held.
    pub fn release(&self) {
        self.released.store(true, Ordering::Release);
    }
}

/// Answers with what it saw, as JSON, and its name.
fn echo(stream: &mut TcpStream, seen: &Seen, name: &str) -> std::io::Result<()> {
    let headers: serde_json::Map<String, serde_json::Value> =
        seen.headers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.clone().into())).collect();
    let body = serde_json::json!({
        "served_by": name,
        "method": seen.method,
        "target": seen.target,
        "headers": headers,
        "body": String::from_utf8_lossy(&seen.body),
        "length": seen.body.len(),
    });
    answer(stream, 200, &[("content-type", "application/json"), ("x-target", name)], body.to_string().as_bytes())
}

fn raw(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(bytes)?;
    Err(std::io::ErrorKind::ConnectionAborted.into())
}

fn behave(word: &str, name: &'static str, count: usize, stream: &mut TcpStream, seen: &Seen) -> std::io::Result<()> {
    let (word, number) = word.split_once(' ').unwrap_or((word, ""));
    let number = || number.parse::<u64>().unwrap_or_else(|_| panic!("{word} needs a number"));
    match word {
        "echo" => echo(stream, seen, name),
        // Milliseconds to the answer.
        "slow" => {
            std::thread::sleep(Duration::from_millis(number()));
            echo(stream, seen, name)
        }
        // Percent of the answers are 500.
        "flaky" if (count as u64 * 37) % 100 < number() => answer(stream, 500, &[("x-target", name)], b"flaky"),
        "flaky" => echo(stream, seen, name),
        "stall" => {
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        }
        "reset" => {
            socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
            Err(std::io::ErrorKind::ConnectionReset.into())
        }
        "close" => raw(stream, b""),
        "half" => raw(stream, b"HTTP/1.1 200 OK\r\ncontent-le"),
        "short" => raw(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this"),
        "garbage" => raw(stream, b"\x16\x03\x01 this is no HTTP\r\n\r\n"),
        "two_lengths" => raw(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde"),
        "drip" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")?;
            for _ in 0..10 {
                stream.write_all(b"x")?;
                std::thread::sleep(Duration::from_millis(30));
            }
            Ok(())
        }
        "user" => answer(
            stream,
            200,
            &[("content-type", "application/json"), ("etag", "\"v1\"")],
            br#"{"name":"Ada","ssn":"078-05-1120","deep":[{"internal":{"a":1},"b":2}]}"#,
        ),
        "text" => answer(stream, 200, &[("content-type", "text/plain")], b"{\"ssn\": plain}"),
        // A probe finds it healthy, a request does not.
        "pretender" if seen.target == "/healthz" => answer(stream, 200, &[], b"ok"),
        "pretender" => answer(stream, 500, &[("x-target", name)], b"no"),
        status => {
            let status = status.parse().unwrap_or_else(|_| panic!("no target is called {status}"));
            answer(stream, status, &[("x-target", name)], b"as told")
        }
    }
}

/// Writes an answer of known length.
pub fn answer(stream: &mut TcpStream, status: u16, headers: &[(&str, &str)], body: &[u8]) -> std::io::Result<()> {
    let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let mut bytes = text.into_bytes();
    bytes.extend_from_slice(body);
    stream.write_all(&bytes)
}

fn serve(
    mut stream: TcpStream,
    behaviour: &Behaviour,
    counted: &AtomicUsize,
    stopped: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end;
            }
            fill(&mut stream, &mut buffer)?;
        };
        let text = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let (method, target) =
            (first.next().unwrap_or_default().to_owned(), first.next().unwrap_or_default().to_owned());
        let headers: Vec<(String, String)> =
            lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_owned(), v.trim().to_owned())).collect();
        let body = body(&mut stream, &mut buffer, &headers)?;
        if target != "/healthz" {
            counted.fetch_add(1, Ordering::AcqRel);
        }
        behaviour(&mut stream, &Seen { method, target, headers, body })?;
        if stopped.load(Ordering::Acquire) {
            return Ok(());
        }
    }
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    let mut part = [0; 64 * 1024];
    match stream.read(&mut part)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        count => {
            buffer.extend_from_slice(&part[..count]);
            Ok(())
        }
    }
}

fn body(stream: &mut TcpStream, buffer: &mut Vec<u8>, headers: &[(String, String)]) -> std::io::Result<Vec<u8>> {
    let header = |name: &str| headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
    if header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if let Some(length) = header("content-length") {
        let length: usize = length.parse().unwrap_or(0);
        while buffer.len() < length {
            fill(stream, buffer)?;
        }
        return Ok(buffer.drain(..length).collect());
    }
    let mut body = Vec::new();
    while header("transfer-encoding").is_some() {
        let Some(end) = buffer.windows(2).position(|w| w == b"\r\n") else {
            fill(stream, buffer)?;
            continue;
        };
        let size = usize::from_str_radix(&String::from_utf8_lossy(&buffer[..end]), 16).unwrap_or(0);
        while buffer.len() < end + 2 + size + 2 {
            fill(stream, buffer)?;
        }
        body.extend_from_slice(&buffer[end + 2..end + 2 + size]);
        buffer.drain(..end + 2 + size + 2);
        if size == 0 {
            break;
        }
    }
    Ok(body)
}
