//! A client of raw bytes.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

/// An answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a header, or nothing.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// `reason` of a problem document.
    pub fn reason(&self) -> String {
        self.json()["reason"].as_str().unwrap_or_default().to_owned()
    }
}

/// A connection that is kept.
pub struct Connection {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects from 127.0.0.1.
    pub fn open(to: SocketAddr) -> Self {
        Self::try_open(to).expect("a connection")
    }

    pub fn try_open(to: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect(to)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Connects from another address of the loopback network.
    pub fn open_from(to: SocketAddr, from: Ipv4Addr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into()).expect("a source address");
        socket.connect(&to.into()).expect("a connection");
        let stream: TcpStream = socket.into();
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        Self { stream, buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("sent");
    }

    /// Reads one answer; `head` when it is to a HEAD request.
    pub fn try_receive(&mut self, head: bool) -> std::io::Result<Answer> {
        let end = self.until(|b| find(b, b"\r\n\r\n"))?;
        let text = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 4);
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok()).unwrap_or(0);
        let headers =
            lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_owned(), v.trim().to_owned())).collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if head || status == 204 || status == 304 || (100..200).contains(&status) {
            return Ok(answer);
        }
        answer.body = if answer.header("transfer-encoding") == Some("chunked") {
            self.chunks()?
        } else if let Some(length) = answer.header("content-length") {
            let length: usize = length.parse().unwrap_or(0);
            self.until(|b| (b.len() >= length).then_some(length))?;
            self.buffer.drain(..length).collect()
        } else {
            self.rest()
        };
        Ok(answer)
    }

    #[track_caller]
    pub fn receive(&mut self) -> Answer {
        self.try_receive(false).expect("an answer")
    }

    /// Sends and receives.
    #[track_caller]
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request.as_ref());
        self.try_receive(request.as_ref().starts_with(b"HEAD ")).expect("an answer")
    }

    /// Everything until the other side closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.buffer);
        let _ = self.stream.read_to_end(&mut all);
        all
    }

    /// Reads until some bytes are there, and takes them.
    pub fn some(&mut self) -> std::io::Result<Vec<u8>> {
        self.until(|b| (!b.is_empty()).then_some(0))?;
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Reads until those bytes have come, and takes all up to their end.
    #[track_caller]
    pub fn pass(&mut self, bytes: &[u8]) {
        let at = self.until(|b| find(b, bytes));
        let at = at.unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.buffer)));
        self.buffer.drain(..at + bytes.len());
    }

    /// Whether the other side has closed, or closes before the time-out.
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        matches!(self.stream.read(&mut byte), Ok(0)) || self.stream.take_error().ok().flatten().is_some()
    }

    fn chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = self.until(|b| find(b, b"\r\n"))?;
            let size = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
                .map_err(std::io::Error::other)?;
            self.buffer.drain(..end + 2);
            self.until(|b| (b.len() >= size + 2).then_some(size))?;
            body.extend(self.buffer.drain(..size));
            self.buffer.drain(..2);
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn until(&mut self, found: impl Fn(&[u8]) -> Option<usize>) -> std::io::Result<usize> {
        loop {
            if let Some(at) = found(&self.buffer) {
                return Ok(at);
            }
            let mut part = [0; 16 * 1024];
            match self.stream.read(&mut part)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => self.buffer.extend_from_slice(&part[..count]),
            }
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

/// One `GET` on a connection of its own.
#[track_caller]
pub fn get(to: SocketAddr, path: &str) -> Answer {
    request(to, "GET", path, &[])
}

/// One request on a connection of its own.
#[track_caller]
pub fn request(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    Connection::open(to).ask(head(method, path, headers))
}

/// A request's head; `Host` is `localhost` unless it is given.
pub fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
        text.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text + "\r\n"
}
