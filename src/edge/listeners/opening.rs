//! The first steps of a connection at layer 4: what the client says in TLS, the choice of the rule by it, and TLS that
//! ends here.
//!
//! A connection is looked at only where its rule may depend on it, or TLS ends here. At a listener whose rules all pass
//! TLS on and ask for no name, nothing is awaited: the server may speak first.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::clock;
use super::connection::ListenerState;
use super::handshake::{handshake, note_failure};
use super::hello::{DECODE_ERROR, FirstBytes, UNRECOGNIZED_NAME, alert, first_bytes};
use super::layer4::TcpService;
use super::rare_line::RareLine;
use crate::exchange::{ProxyFacts, TlsFacts};
use crate::rules::protocols::{ALPN_VALUE, AUTHORITY_VALUE, ClientHelloFacts, SSL_VALUE};
use crate::rules::routing::StreamFacts;
use crate::snapshot::{StreamTls, Streams};
use crate::telemetry::metrics::METRICS;
use crate::tls::TlsStream;

/// A connection whose rule is known, and whose TLS, if it ends here, is established.
pub struct OpenedStream {
    /// The stream.
    pub stream: ClientStream,
    /// The place of its rule among those of the listener.
    pub place: usize,
    /// What the client requested in TLS, wherever that ends, or a load balancer in front said of it.
    pub requested: ClientHelloFacts,
    /// Whether the client sent PostgreSQL's request for TLS. A target expects it too where TLS is spoken to it.
    pub postgres: bool,
}

/// The stream of a client.
pub enum ClientStream {
    /// As it came.
    Plain(TcpStream),
    /// Without the TLS of the client.
    Tls(Box<TlsStream<TcpStream>>, TlsFacts),
}

/// A connection that was not opened.
pub enum Unopened {
    /// No rule is for what the client requested.
    NoRule(ClientHelloFacts),
    /// It has ended otherwise, which is counted.
    Ended,
}

/// A connection that was accepted, and what decides on its rule.
pub struct Opening<'o> {
    /// The client.
    pub client: SocketAddr,
    /// What a PROXY header said beside the addresses.
    pub proxy: Option<&'o ProxyFacts>,
    /// The listener.
    pub listener_state: &'o ListenerState,
    /// Its settings.
    pub service: &'o TcpService,
    /// Its rules.
    pub streams: &'o Streams,
}

/// Returns the connection with its rule. It takes no longer than the listener's time for headers.
///
/// # Errors
/// Fails where no rule matches, or the connection ends before one is known.
pub async fn open_stream(stream: TcpStream, opening: &Opening<'_>) -> Result<OpenedStream, Unopened> {
    let unknown = ClientHelloFacts::default();
    if !opening.streams.table.needs_hello() {
        // Nothing that comes could change it.
        let place = opening.find(&unknown);
        if place.is_none_or(|place| !opening.terminates(place)) {
            return opening.pass(stream, place, unknown, false);
        }
    }
    match timeout(opening.service.header_time(), opening.open(stream)).await {
        Ok(opened) => opened,
        Err(_) => opening.reject("tls_timeout", "the first bytes took too long"),
    }
}

impl Opening<'_> {
    async fn open(&self, mut stream: TcpStream) -> Result<OpenedStream, Unopened> {
        if let Some(said) = self.said_of_tls() {
            // TLS ended at the load balancer: there is no other hello.
            return self.pass(stream, self.find(&said), said, false);
        }
        let Ok((first, postgres)) = first_bytes(&mut stream, self.patience()).await else {
            return self.reject("opening", "the connection broke");
        };
        match first {
            FirstBytes::Hello(facts) => self.terminate_or_pass(stream, facts, postgres).await,
            FirstBytes::NoHello => {
                let said = self.said().unwrap_or_default();
                let place = self.find(&said);
                if place.is_some_and(|place| self.terminates(place)) {
                    return self.reject("tls", "the client does not begin TLS, which the rule requires");
                }
                self.pass(stream, place, said, postgres)
            }
            FirstBytes::Malformed(why) => {
                alert(stream, DECODE_ERROR).await;
                self.reject("opening", why)
            }
            FirstBytes::Closed if self.patience().is_some() => {
                // It has ended its direction without a byte: where the server speaks first, that is a client as well.
                let said = self.said().unwrap_or_default();
                self.pass(stream, self.find(&said), said, postgres)
            }
            FirstBytes::Closed => Err(Unopened::Ended),
        }
    }

    async fn terminate_or_pass(
        &self,
        stream: TcpStream,
        requested: ClientHelloFacts,
        postgres: bool,
    ) -> Result<OpenedStream, Unopened> {
        let Some(place) = self.find(&requested) else {
            alert(stream, UNRECOGNIZED_NAME).await;
            return self.no_rule(requested);
        };
        let tls = self.service.tls.present().filter(|_| self.terminates(place));
        let Some(tls) = tls else { return self.pass(stream, Some(place), requested, postgres) };
        let rule = &self.streams.rules[place];
        match handshake(stream, &tls, rule.protocol(&requested.alpn)).await {
            Ok(None) => Err(Unopened::Ended),
            Ok(Some((stream, facts))) => {
                let stream = ClientStream::Tls(Box::new(stream), facts);
                Ok(OpenedStream { stream, place, requested, postgres })
            }
            Err(error) => {
                note_failure(&error, self.client, self.listener_state);
                Err(Unopened::Ended)
            }
        }
    }

    /// Returns a connection that goes on as it came.
    fn pass(
        &self,
        stream: TcpStream,
        place: Option<usize>,
        requested: ClientHelloFacts,
        postgres: bool,
    ) -> Result<OpenedStream, Unopened> {
        let Some(place) = place else {
            // An orderly end would look like one of a target without bytes.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            return self.no_rule(requested);
        };
        Ok(OpenedStream { stream: ClientStream::Plain(stream), place, requested, postgres })
    }

    /// Returns the place of the rule for what a client requested.
    fn find(&self, requested: &ClientHelloFacts) -> Option<usize> {
        let server_name = requested.server_name.as_deref();
        let facts = StreamFacts { client: self.client.ip(), server_name, alpn: &requested.alpn };
        self.streams.table.find(&facts)
    }

    /// Returns whether TLS ends here by the rule at a place. A rule that closes the connection does so before TLS.
    fn terminates(&self, place: usize) -> bool {
        let Some(rule) = self.streams.rules.get(place) else { return false };
        rule.forward.is_some() && rule.tls != Some(StreamTls::Pass) && self.service.tls.is_present()
    }

    /// Returns how long a client may send nothing before it is one of a protocol in which the server speaks first:
    /// where there is a rule for those that begin no TLS, which passes them on.
    fn patience(&self) -> Option<Duration> {
        let place = self.find(&ClientHelloFacts::default())?;
        (!self.terminates(place)).then(|| self.service.hello_time())
    }

    /// Returns what a load balancer in front said of the hello that it got.
    fn said(&self) -> Option<ClientHelloFacts> {
        let proxy = self.proxy?;
        let name = proxy.value(AUTHORITY_VALUE).and_then(|name| std::str::from_utf8(name).ok());
        let alpn = proxy.value(ALPN_VALUE).map(<[u8]>::to_vec);
        Some(ClientHelloFacts {
            server_name: name.map(|name| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()),
            alpn: alpn.into_iter().collect(),
        })
    }

    /// Returns the same where TLS ended at that load balancer.
    fn said_of_tls(&self) -> Option<ClientHelloFacts> {
        let is_over = self.proxy?.value(SSL_VALUE)?.first().is_some_and(|client| client & 1 == 1);
        self.said().filter(|_| is_over)
    }

    fn no_rule<T>(&self, requested: ClientHelloFacts) -> Result<T, Unopened> {
        METRICS.refused.with_label_values(&["no_rule"]).inc();
        Err(Unopened::NoRule(requested))
    }

    /// Counts and logs a connection that ends here.
    fn reject<T>(&self, cause: &'static str, why: &str) -> Result<T, Unopened> {
        static REJECTED: RareLine = RareLine::new();
        METRICS.refused.with_label_values(&[cause]).inc();
        if let Some(skipped) = REJECTED.next(clock::now()) {
            let more = if skipped == 0 { String::new() } else { format!("; {skipped} more since the last such line") };
            let (name, client) = (self.listener_state.name.load(), self.client);
            log::info!("listener {name}: the connection of {client} is closed: {why}{more}");
        }
        Err(Unopened::Ended)
    }
}
