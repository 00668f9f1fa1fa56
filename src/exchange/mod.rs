//! The state of one request from its arrival to its log line, and the responses that the gateway itself generates.

mod client;
pub mod clock;
mod connect;
mod edits;
mod error_pages;
mod graphql;
mod grpc;
mod identity;
mod pacing;
mod reason;
mod rejection;
mod rendering;
mod request_id;
mod target_edits;
mod template;
mod trace;
mod translation;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use smallvec::SmallVec;

use crate::rules::caching::CacheOutcome;

pub use client::{Client, ConnectionFacts, PeerCertificate, ProxyFacts, TlsFacts, address_text};
pub use connect::{CONNECT_VERSION, Codec, Connect};
pub use edits::{CookieName, Edit, Edits};
pub use error_pages::{ErrorPage, ErrorPages, RenderedPage, StatusRange, error_page};
pub use graphql::GraphqlNote;
pub use grpc::{GrpcWeb, is_grpc, message_format};
pub use identity::{Allowance, Claims, ConsumerFacts, Identity};
pub use pacing::Pacing;
pub use reason::Reason;
pub use rejection::{Rejection, RelayedResponse, WouldReject};
pub use rendering::render;
pub use request_id::new_request_id;
pub use template::{RequestValue, RequestView, Template, TextForm, TextScope, claim, claim_text, form_of_type};
pub use trace::{Trace, TraceState, tracestate};
pub use translation::TranslationNote;

/// The rate limit information for the client.
#[derive(Clone, Debug)]
pub struct LimitNote {
    /// `RateLimit-Policy`, the same for every response of a limit.
    pub policy: HeaderValue,
    /// `RateLimit`, as a text that is in place: it is made for every request.
    pub state: SmallVec<[u8; 64]>,
    /// The number of further requests that the limit allows now.
    pub remaining: u64,
    /// The limit, what is left of it, and the seconds until all of it is: the numbers of `X-RateLimit-*`.
    pub legacy: Option<[u64; 3]>,
}

/// The state of one request.
#[derive(Debug)]
pub struct Exchange {
    /// The time at which its headers were complete.
    pub started: Instant,
    /// The peer of its connection.
    pub peer: Client,
    /// The port of the listener; 0 if there is none.
    pub listener_port: u16,
    /// The client's address, behind trusted proxies.
    pub client: IpAddr,
    /// The client's address as text.
    pub client_text: HeaderValue,
    /// Whether the peer is a trusted proxy.
    pub peer_trusted: bool,
    /// The requested host in lower case, without a port.
    pub host: String,
    /// Its id, in the response, the log and the request to the target.
    pub request_id: Option<HeaderValue>,
    /// Its context in a distributed trace.
    pub trace: Trace,
    /// Whether the client uses gRPC.
    pub grpc: bool,
    /// The encoding of gRPC-Web, if the client uses it.
    pub grpc_web: Option<GrpcWeb>,
    /// The kind of a call of the Connect protocol, once a rejection has to know it.
    pub connect: Option<Connect>,
    /// The verified sender.
    pub identity: Option<Identity>,
    /// The rate limit information for the response.
    pub limit: Option<LimitNote>,
    /// The number of its operation in the route's OpenAPI document.
    pub operation: Option<u32>,
    /// Whether the content coding of its body was decoded, although the head names it.
    pub is_decoded: bool,
    /// The paces of its bodies.
    pub pacing: Pacing,
    /// Cookies that filters set at the client, whatever the response is.
    pub set_cookies: Vec<HeaderValue>,
    /// Edits of the request to the target.
    pub edits: Edits,
    /// The parameters of the path as they are in it, for filters that read them.
    pub params: Vec<(Box<str>, Box<str>)>,
    /// Edits of the head of the response, behind those of filters.
    pub response_edits: Vec<Arc<[Edit]>>,
    /// The reason with which it ends, updated as it proceeds.
    pub reason: Reason,
    /// A detail for the log beyond the reason; never shown to the client.
    pub detail: Option<String>,
    /// What the first filter has found that would have rejected it, were it enforced.
    pub would_reject: Option<Box<WouldReject>>,
    /// What the cache did for it.
    pub cache: Option<CacheOutcome>,
    /// What it was translated from and into.
    pub translation: Option<Box<TranslationNote>>,
    /// What is known of its GraphQL operations.
    pub graphql: Option<Box<GraphqlNote>>,
}

impl Exchange {
    /// Returns the state of a request on a connection of that client.
    pub fn new(peer: Client) -> Self {
        Self {
            started: Instant::now(),
            client: peer.address.ip().to_canonical(),
            client_text: peer.text.clone(),
            peer,
            listener_port: 0,
            peer_trusted: false,
            host: String::new(),
            request_id: None,
            trace: Trace::default(),
            grpc: false,
            grpc_web: None,
            connect: None,
            identity: None,
            limit: None,
            operation: None,
            is_decoded: false,
            pacing: Pacing::default(),
            set_cookies: Vec::new(),
            edits: Edits::default(),
            params: Vec::new(),
            response_edits: Vec::new(),
            reason: Reason::Internal,
            detail: None,
            would_reject: None,
            cache: None,
            translation: None,
            graphql: None,
        }
    }

    /// Returns the state of a request that the gateway makes in place of this one: what goes to targets is the same.
    pub fn for_fetch(&self) -> Self {
        Self {
            started: Instant::now(),
            peer: self.peer.clone(),
            listener_port: self.listener_port,
            client: self.client,
            client_text: self.client_text.clone(),
            peer_trusted: self.peer_trusted,
            host: self.host.clone(),
            request_id: self.request_id.clone(),
            trace: self.trace,
            identity: self.identity.clone(),
            edits: self.edits.clone(),
            ..Self::new(Client::unknown())
        }
    }

    /// Returns whether the client uses gRPC in any form.
    pub fn is_grpc(&self) -> bool {
        self.grpc || self.grpc_web.is_some()
    }

    /// Returns the scheme: `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.peer.is_secure() { "https" } else { "http" }
    }
}

impl Default for Exchange {
    fn default() -> Self {
        Self::new(Client::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), ConnectionFacts::default()))
    }
}
