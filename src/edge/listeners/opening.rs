//! The first steps of a connection at layer 4: what the client says in TLS, the choice of the rule by it, and TLS that
//! ends here.
//!
//! A connection is looked at only where its rule may depend on it, or TLS ends here. At a listener whose rules all pass
//! TLS on and ask for no name, nothing is awaited: the server may speak first.

use std::net::SocketAddr;
use std::sync::Arc;

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
use crate::snapshot::{StreamRule, StreamTls, Streams};
use crate::telemetry::metrics::METRICS;
use crate::tls::TlsStream;

/// A connection whose rule is known, and whose TLS, if it ends here, is established.
pub struct OpenedStream {
    /// The stream.
    pub stream: ClientStream,
    /// The rule.
    pub rule: Arc<StreamRule>,
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
}

/// Returns the connection with its rule; `None` where it has ended without one, which is counted and logged. It takes
/// no longer than the listener's time for headers.
pub async fn open_stream(stream: TcpStream, opening: &Opening<'_>) -> Option<OpenedStream> {
    let streams = opening.service.streams();
    if !streams.table.needs_hello() {
        let rule = streams.find(&opening.facts(&ClientHelloFacts::default()));
        // Nothing that comes could change it.
        match rule {
            Some(rule) if opening.mode(rule) == StreamTls::Pass => {
                return Some(OpenedStream {
                    stream: ClientStream::Plain(stream),
                    rule: Arc::clone(rule),
                    requested: ClientHelloFacts::default(),
                    postgres: false,
                });
            }
            Some(_) => {}
            None => return opening.reject("no_rule", "no rule matches"),
        }
    }
    match timeout(opening.service.header_time(), opening.open(stream, &streams)).await {
        Ok(opened) => opened,
        Err(_) => opening.reject("tls_timeout", "the first bytes took too long"),
    }
}

impl Opening<'_> {
    async fn open(&self, mut stream: TcpStream, streams: &Streams) -> Option<OpenedStream> {
        if let Some(said) = self.said_of_tls() {
            // TLS ended at the load balancer: there is no other hello.
            return self.choose(stream, said, false, streams).await;
        }
        let (first, postgres) = match first_bytes(&mut stream, self.patience(streams)).await {
            Ok(first) => first,
            Err(_) => return self.reject("opening", "the connection broke"),
        };
        match first {
            FirstBytes::Hello(facts) => self.terminate_or_pass(stream, facts, postgres, streams).await,
            FirstBytes::NoHello => self.choose(stream, self.said().unwrap_or_default(), postgres, streams).await,
            FirstBytes::Malformed(why) => {
                alert(stream, DECODE_ERROR).await;
                self.reject("opening", why)
            }
            FirstBytes::Closed => None,
        }
    }

    /// Chooses the rule for a connection without TLS.
    async fn choose(
        &self,
        stream: TcpStream,
        requested: ClientHelloFacts,
        postgres: bool,
        streams: &Streams,
    ) -> Option<OpenedStream> {
        let Some(rule) = streams.find(&self.facts(&requested)).cloned() else {
            return self.reject("no_rule", "no rule matches a client without TLS");
        };
        let ends_in_front = self.said_of_tls().is_some();
        if self.mode(&rule) == StreamTls::Terminate && !ends_in_front {
            return self.reject("tls", "the client does not begin TLS, which the rule requires");
        }
        Some(OpenedStream { stream: ClientStream::Plain(stream), rule, requested, postgres })
    }

    async fn terminate_or_pass(
        &self,
        stream: TcpStream,
        requested: ClientHelloFacts,
        postgres: bool,
        streams: &Streams,
    ) -> Option<OpenedStream> {
        let Some(rule) = streams.find(&self.facts(&requested)).cloned() else {
            alert(stream, UNRECOGNIZED_NAME).await;
            let name = requested.server_name.as_deref().unwrap_or("none");
            return self.reject("no_rule", &format!("no rule matches the server name {name}"));
        };
        if self.mode(&rule) == StreamTls::Pass {
            return Some(OpenedStream { stream: ClientStream::Plain(stream), rule, requested, postgres });
        }
        let Some(tls) = self.service.tls.present() else { return self.reject("tls", "the listener has no TLS") };
        match handshake(stream, &tls, rule.protocol(&requested.alpn)).await {
            Ok(None) => None,
            Ok(Some((stream, facts))) => {
                let stream = ClientStream::Tls(Box::new(stream), facts);
                Some(OpenedStream { stream, rule, requested, postgres })
            }
            Err(error) => {
                note_failure(&error, self.client, self.listener_state);
                None
            }
        }
    }

    fn facts<'f>(&self, requested: &'f ClientHelloFacts) -> StreamFacts<'f> {
        let server_name = requested.server_name.as_deref();
        StreamFacts { client: self.client.ip(), server_name, alpn: &requested.alpn }
    }

    /// Returns what happens to TLS by a rule.
    fn mode(&self, rule: &StreamRule) -> StreamTls {
        rule.tls.unwrap_or(if self.service.tls.is_present() { StreamTls::Terminate } else { StreamTls::Pass })
    }

    /// Returns how long a client may send nothing before it is one of a protocol in which the server speaks first:
    /// where there is a rule for those that begin no TLS, which passes them on.
    fn patience(&self, streams: &Streams) -> Option<std::time::Duration> {
        let rule = streams.find(&self.facts(&ClientHelloFacts::default()))?;
        (self.mode(rule) == StreamTls::Pass).then(|| self.service.hello_time())
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

    /// Counts and logs a connection that ends here.
    fn reject<T>(&self, cause: &'static str, why: &str) -> Option<T> {
        static REJECTED: RareLine = RareLine::new();
        METRICS.refused.with_label_values(&[cause]).inc();
        if let Some(skipped) = REJECTED.next(clock::now()) {
            let more = if skipped == 0 { String::new() } else { format!("; {skipped} more since the last such line") };
            let (name, client) = (self.listener_state.name.load(), self.client);
            log::info!("listener {name}: the connection of {client} is closed: {why}{more}");
        }
        None
    }
}
