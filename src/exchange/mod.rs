//! One request's state from its arrival to its log line, and the answers that the gateway gives itself.

mod answer;
mod client;
pub mod clock;
mod edits;
mod grpc;
mod reason;
mod rejection;
mod request_id;
mod trace;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;

pub use answer::render;
pub use client::{Client, TlsFacts, address_text};
pub use edits::{Edit, Edits};
pub use grpc::{GrpcWeb, is_grpc};
pub use reason::Reason;
pub use rejection::Rejection;
pub use request_id::new_request_id;
pub use trace::{Trace, TraceState, tracestate};

/// Who a request is from, as far as it was verified.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The consumer's name, or the token's subject when no consumer is configured for it.
    pub name: Arc<str>,
}

/// What a limit says to the client.
#[derive(Clone, Debug)]
pub struct LimitNote {
    /// `RateLimit-Policy`, the same for every answer of a limit.
    pub policy: HeaderValue,
    /// `RateLimit`.
    pub state: HeaderValue,
    /// How many more requests it allows now.
    pub remaining: u32,
}

/// One request from its arrival on.
#[derive(Debug)]
pub struct Exchange {
    /// When its headers were complete.
    pub started: Instant,
    /// The client of its connection: who is connected.
    pub peer: Client,
    /// Whose request it is, behind trusted proxies.
    pub client: IpAddr,
    /// The client's address as text.
    pub client_text: HeaderValue,
    /// Whether the peer is a trusted proxy.
    pub peer_trusted: bool,
    /// The host that was asked for: lower case, no port.
    pub host: String,
    /// Its id, in the answer, the log and at the target.
    pub request_id: Option<HeaderValue>,
    /// Its place in a distributed trace.
    pub trace: Trace,
    /// Whether the caller speaks gRPC.
    pub grpc: bool,
    /// Whether the caller speaks gRPC-Web, and how.
    pub grpc_web: Option<GrpcWeb>,
    /// Who it is from.
    pub identity: Option<Identity>,
    /// What a limit has to say in the answer.
    pub limit: Option<LimitNote>,
    /// Edits of what the target is sent.
    pub edits: Edits,
    /// How it ends; refined as it goes.
    pub reason: Reason,
    /// What the log is told beyond the reason; never shown to the client.
    pub detail: Option<String>,
}

impl Exchange {
    /// A request on a connection of that client.
    pub fn new(peer: Client) -> Self {
        Self {
            started: Instant::now(),
            client: peer.address.ip().to_canonical(),
            client_text: peer.text.clone(),
            peer,
            peer_trusted: false,
            host: String::new(),
            request_id: None,
            trace: Trace::default(),
            grpc: false,
            grpc_web: None,
            identity: None,
            limit: None,
            edits: Edits::default(),
            reason: Reason::Internal,
            detail: None,
        }
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.peer.is_secure() { "https" } else { "http" }
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new(Client::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), None))
    }
}
