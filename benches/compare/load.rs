//! A load that does not wait: requests are due at fixed times, and a late answer counts from when its
//! request was due, not from when there was room to send it (G. Tene's "coordinated omission").

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

pub trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 on kept connections.
    Http1,
    /// HTTP/1.1 on a new connection for each request.
    Fresh,
    Http2,
}

/// What is asked, and what a right answer is.
#[derive(Clone)]
pub struct Plan {
    pub address: SocketAddr,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub protocol: Protocol,
    pub tls: Option<Arc<rustls::ClientConfig>>,
    pub connections: usize,
    /// Requests a second; `None` is as many as there can be.
    pub rate: Option<f64>,
    pub time: Duration,
    /// Bytes of the body, where that is known.
    pub body: Option<usize>,
    /// Header lines in lower case that an answer has, and such that it must not have.
    pub has: Vec<&'static str>,
    pub lacks: Vec<&'static str>,
    /// Ends it before its time.
    pub stop: Option<Arc<AtomicBool>>,
}

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub fine: u64,
    pub failed: BTreeMap<String, u64>,
    /// When each right answer's request was due, and the microseconds from then to the answer.
    pub latencies: Vec<(Instant, u32)>,
    pub elapsed: Duration,
}

impl Outcome {
    pub fn rate(&self) -> f64 {
        self.fine as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of all answers stays below, in microseconds.
    pub fn percentile(&mut self, share: f64) -> u32 {
        self.latencies.sort_unstable_by_key(|(_, latency)| *latency);
        let place = ((self.latencies.len() as f64 * share).ceil() as usize).clamp(1, self.latencies.len().max(1));
        self.latencies.get(place - 1).map_or(0, |(_, latency)| *latency)
    }

    /// What was due within that time.
    pub fn within(&self, time: &std::ops::Range<Instant>) -> Self {
        let latencies: Vec<_> = self.latencies.iter().filter(|(due, _)| time.contains(due)).copied().collect();
        Self { fine: latencies.len() as u64, latencies, elapsed: time.end - time.start, ..Self::default() }
    }

    fn fail(&mut self, why: impl Into<String>) {
        *self.failed.entry(why.into()).or_default() += 1;
    }

    pub fn add(&mut self, other: Self) {
        self.fine += other.fine;
        self.latencies.extend(other.latencies);
        other.failed.into_iter().for_each(|(why, count)| *self.failed.entry(why).or_default() += count);
    }
}

/// Hands out the times at which requests are due.
struct Pace {
    begun: Instant,
    end: Instant,
    interval: Option<Duration>,
    due: Semaphore,
    next: AtomicU64,
    over: AtomicBool,
}

impl Pace {
    fn new(plan: &Plan) -> Arc<Self> {
        let begun = Instant::now();
        let interval = plan.rate.map(|rate| Duration::from_secs_f64(1.0 / rate));
        let pace = Arc::new(Self {
            begun,
            end: begun + plan.time,
            interval,
            due: Semaphore::new(0),
            next: AtomicU64::new(0),
            over: false.into(),
        });
        if let Some(interval) = interval {
            let (pace, stop) = (Arc::clone(&pace), plan.stop.clone());
            // A thread, because timers of the runtime know milliseconds only.
            std::thread::spawn(move || {
                for count in 0_u32.. {
                    let at = pace.begun + interval * count;
                    if at >= pace.end || stop.as_ref().is_some_and(|stop| stop.load(Ordering::Acquire)) {
                        break;
                    }
                    std::thread::sleep(at.saturating_duration_since(Instant::now()));
                    pace.due.add_permits(1);
                }
                pace.over.store(true, Ordering::Release);
                pace.due.add_permits(100_000);
            });
        }
        pace
    }

    /// Waits for the next request's time; `None` at the end.
    async fn next(&self) -> Option<Instant> {
        let Some(interval) = self.interval else {
            let now = Instant::now();
            return (now < self.end).then_some(now);
        };
        self.due.acquire().await.ok()?.forget();
        let count = u32::try_from(self.next.fetch_add(1, Ordering::Relaxed)).ok()?;
        let at = self.begun + interval * count;
        // What is handed out at the end only wakes whoever waits.
        (at < self.end && at <= Instant::now()).then_some(at)
    }
}

/// Runs a plan on the present runtime.
pub async fn run(plan: &Plan) -> Outcome {
    let plan = Arc::new(plan.clone());
    let pace = Pace::new(&plan);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..plan.connections {
        let (plan, pace) = (Arc::clone(&plan), Arc::clone(&pace));
        match plan.protocol {
            Protocol::Http2 => tasks.spawn_local(http2(plan, pace)),
            _ => tasks.spawn_local(http1(plan, pace, number)),
        };
    }
    let mut all = Outcome::default();
    while let Some(outcome) = tasks.join_next().await {
        all.add(outcome.expect("a worker"));
    }
    all.elapsed = pace.begun.elapsed();
    all
}

/// Connects, from one of many addresses: one alone has too few ports for new connections each time.
pub async fn connect(plan: &Plan, number: usize) -> std::io::Result<Box<dyn Io>> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_nodelay(true)?;
    let source = Ipv4Addr::new(127, 0, (number / 200 % 200) as u8, (number % 200 + 2) as u8);
    socket.bind(SocketAddr::from((source, 0)))?;
    let stream: TcpStream = socket.connect(plan.address).await?;
    let Some(config) = &plan.tls else { return Ok(Box::new(stream)) };
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("a name");
    Ok(Box::new(tokio_rustls::TlsConnector::from(Arc::clone(config)).connect(name, stream).await?))
}

async fn http1(plan: Arc<Plan>, pace: Arc<Pace>, number: usize) -> Outcome {
    let mut outcome = Outcome::default();
    let mut request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n", plan.path);
    plan.headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    request.push_str("\r\n");
    let mut kept: Option<Box<dyn Io>> = None;
    let mut buffer = Vec::with_capacity(8192);
    let mut made = number;
    while let Some(due) = pace.next().await {
        let stream = match kept.take() {
            Some(stream) => Ok(stream),
            None => {
                made += plan.connections;
                connect(&plan, made).await
            }
        };
        let result = match stream {
            Ok(mut stream) => {
                exchange(&plan, &mut stream, request.as_bytes(), &mut buffer).await.map(|keep| (stream, keep))
            }
            Err(error) => Err(format!("connect: {}", error.kind())),
        };
        match result {
            Ok((stream, keep)) => {
                outcome.fine += 1;
                outcome.latencies.push((due, due.elapsed().as_micros() as u32));
                kept = (keep && plan.protocol == Protocol::Http1).then_some(stream);
            }
            Err(why) => outcome.fail(why),
        }
    }
    outcome
}

/// One request and its answer. Whether the connection can be kept.
async fn exchange(plan: &Plan, stream: &mut Box<dyn Io>, request: &[u8], buffer: &mut Vec<u8>) -> Result<bool, String> {
    buffer.clear();
    stream.write_all(request).await.map_err(|e| format!("write: {}", e.kind()))?;
    let mut read = async |buffer: &mut Vec<u8>| match stream.read_buf(buffer).await {
        Ok(0) => Err(format!("closed after {} bytes", buffer.len().min(1))),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("read: {}", error.kind())),
    };
    let end = loop {
        if let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            break end + 4;
        }
        read(buffer).await?;
    };
    let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
    if !head.starts_with("http/1.1 200") {
        return Err(head.lines().next().unwrap_or_default().to_owned());
    }
    let wrong =
        plan.has.iter().find(|line| !head.contains(**line)).or(plan.lacks.iter().find(|line| head.contains(**line)));
    if let Some(line) = wrong {
        return Err(format!("wrong header: {line}"));
    }
    let chunked = head.contains("transfer-encoding: chunked");
    let length = plan.body.unwrap_or(0);
    let whole = |buffer: &[u8]| if chunked { buffer.ends_with(b"\r\n0\r\n\r\n") } else { buffer.len() >= end + length };
    while !whole(buffer) {
        read(buffer).await?;
    }
    if !chunked && buffer.len() != end + length || plan.body.is_none() && memchr::memmem::find(buffer, b"ssn").is_some()
    {
        return Err("wrong length".to_owned());
    }
    Ok(!head.contains("connection: close"))
}

async fn http2(plan: Arc<Plan>, pace: Arc<Pace>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut kept: Option<h2::client::SendRequest<Bytes>> = None;
    while let Some(due) = pace.next().await {
        match http2_exchange(&plan, &mut kept).await {
            Ok(()) => {
                outcome.fine += 1;
                outcome.latencies.push((due, due.elapsed().as_micros() as u32));
            }
            Err(why) => {
                kept = None;
                outcome.fail(why);
            }
        }
    }
    outcome
}

/// Requests that crossed a GOAWAY and were sent again.
pub static CROSSED: AtomicU64 = AtomicU64::new(0);

async fn http2_exchange(plan: &Plan, kept: &mut Option<h2::client::SendRequest<Bytes>>) -> Result<(), String> {
    let mut builder = http::Request::get(format!("https://localhost{}", plan.path));
    for (name, value) in &plan.headers {
        builder = builder.header(name, value);
    }
    let request = builder.body(()).map_err(|e| e.to_string())?;
    // A connection that has said GOAWAY takes nothing more, and nothing was sent on it: another is made.
    let sender = loop {
        let sender = match kept.take() {
            Some(sender) => sender,
            None => {
                let stream = connect(plan, 1).await.map_err(|e| format!("connect: {}", e.kind()))?;
                let (sender, connection) =
                    h2::client::handshake(stream).await.map_err(|e| format!("handshake: {e}"))?;
                tokio::task::spawn_local(connection);
                sender
            }
        };
        if let Ok(sender) = sender.ready().await {
            break sender;
        }
    };
    let mut sender = sender;
    let Ok((answer, _)) = sender.send_request(request, true) else {
        return Box::pin(http2_exchange(plan, kept)).await;
    };
    let answer = match answer.await {
        // RFC 9113, section 6.8: what a GOAWAY does not name was not and will not be processed. The request
        // crossed it on its way; every client sends it again, on another connection.
        Err(error) if error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR) => {
            CROSSED.fetch_add(1, Ordering::Relaxed);
            return Box::pin(http2_exchange(plan, kept)).await;
        }
        answer => answer.map_err(|e| format!("h2: {e}"))?,
    };
    if answer.status() != 200 {
        return Err(answer.status().to_string());
    }
    let mut body = answer.into_body();
    let mut length = 0;
    while let Some(part) = body.data().await {
        let part = part.map_err(|e| format!("h2 body: {e}"))?;
        length += part.len();
        let _ = body.flow_control().release_capacity(part.len());
    }
    if Some(length) != plan.body {
        return Err("wrong length".to_owned());
    }
    *kept = Some(sender);
    Ok(())
}

/// Opens connections with one request on each, and keeps them.
pub async fn idle(plan: &Plan, count: usize) -> Vec<Box<dyn Io>> {
    let request = format!("GET {} HTTP/1.1\r\nhost: localhost\r\n\r\n", plan.path);
    let mut kept = Vec::with_capacity(count);
    let mut buffer = Vec::with_capacity(8192);
    for number in 0..count {
        let mut stream = connect(plan, number).await.expect("a connection");
        exchange(plan, &mut stream, request.as_bytes(), &mut buffer).await.expect("an answer");
        kept.push(stream);
    }
    kept
}

/// Holds WebSockets through which a frame goes to and fro every half second, until `stop`; how many were lost.
pub async fn websockets(plan: &Plan, count: usize, stop: Arc<AtomicBool>) -> usize {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..count {
        let (plan, stop) = (plan.clone(), Arc::clone(&stop));
        tasks.spawn_local(async move { websocket(&plan, number, &stop).await.is_err() });
    }
    let mut lost = 0;
    while let Some(is_lost) = tasks.join_next().await {
        lost += usize::from(is_lost.unwrap_or(true));
    }
    lost
}

async fn websocket(plan: &Plan, number: usize, stop: &AtomicBool) -> std::io::Result<()> {
    let mut stream = connect(plan, number).await?;
    let request = "GET /ws HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: x3JJHMbDL1EzLkh9GBhXDw==\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    while memchr::memmem::find(&head, b"\r\n\r\n").is_none() {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    // A masked text frame; the target sends the same bytes back.
    let frame = [0x81, 0x85, 0, 0, 0, 0, b'h', b'e', b'l', b'l', b'o'];
    let mut back = [0; 11];
    while !stop.load(Ordering::Acquire) {
        stream.write_all(&frame).await?;
        stream.read_exact(&mut back).await?;
        if back != frame {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}
