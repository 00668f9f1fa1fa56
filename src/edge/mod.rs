//! Pingora lives here, and nowhere above: accepting connections, and the phases of its `ProxyHttp`.
//!
//! Pingora's `HttpProxy` and connectors do the proxying. Its `Server` and listening `Service` are not used: with an
//! accept loop of its own a listener can have limits and deadlines, can be added and removed by a reload, and can be
//! handed over to a successor, however many there are.

mod descriptors;
pub mod listeners;
pub mod proxy;
pub mod stream;

pub use listeners::{Bound, Drain, ListenerContext, Listening, ServeHttp, ServeStreams, SocketPlace};
pub use proxy::{Gateway, http_service};
pub use stream::{StreamBatch, StreamGateway};
