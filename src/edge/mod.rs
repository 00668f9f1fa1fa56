//! Pingora lives here, and nowhere above: accepting connections, and the phases of its `ProxyHttp`.
//!
//! Pingora's `HttpProxy` and connectors do the proxying. Its `Server` and listening `Service` are not
//! used: an accept loop of our own is what lets a listener have limits and deadlines, be added and
//! removed by a reload, and be handed to a successor whatever their number.

pub mod listeners;
pub mod proxy;

pub use listeners::{Bound, Drain, Listening, ServeHttp, Shared};
pub use proxy::{Gateway, http_service};
