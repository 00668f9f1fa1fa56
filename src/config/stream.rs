//! `streams`: what happens to connections and datagrams at layer 4.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::notation::{Duration, Host, Name, Network, OneOrMany, Size};

/// What happens to some connections of listeners of kind `tcp`, or to some datagrams of those of kind `udp`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// Its name, in logs and metrics.
    pub name: Name,
    /// The listeners it is for. Default: all of kind `tcp` and `udp`.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// Which connections. Default: all. An exact name comes before `*.example.com`, and that before none; then more
    /// conditions before fewer, and then the order in which they are written.
    #[serde(default, rename = "match")]
    pub matches: StreamMatch,
    /// Whether TLS goes on to the target as it came (`pass`), or ends here (`terminate`). Default: `terminate` on a
    /// listener with `tls`, else `pass`.
    pub tls: Option<StreamTlsMode>,
    /// What is done with them.
    pub action: StreamActionConfig,
    /// How long a connection, or a client's flow of datagrams, may be silent in both directions. Default 10m, and 30s
    /// for datagrams.
    pub idle_time: Option<Duration>,
    /// How long one direction of a connection may be silent once the other has ended. Default: `idle_time`.
    pub half_closed_time: Option<Duration>,
    /// How long a connection or a flow lives at most. Default: any time.
    pub total_time: Option<Duration>,
    /// The most bytes in a second of one connection. Default: any number.
    pub rate: Option<StreamRate>,
    /// Rules for datagrams alone.
    pub datagrams: Option<DatagramConfig>,
}

/// Conditions; all that are given must hold.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StreamMatch {
    /// The server name that the client requests in TLS (SNI, RFC 6066) is any of these.
    pub server_name: Option<OneOrMany<Host>>,
    /// The client offers any of these protocols in TLS (ALPN, RFC 7301).
    pub alpn: Option<OneOrMany<String>>,
    /// The client's address is in any of these networks.
    pub client: Option<OneOrMany<Network>>,
}

/// What happens to TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamTlsMode {
    /// It goes on to the target as it came.
    Pass,
    /// It ends here, with the listener's certificates.
    Terminate,
}

/// What is done with a connection or a datagram.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StreamActionConfig {
    /// It goes to an upstream: `forward: NAME`, or with shares.
    Forward(StreamForwardConfig),
    /// It is closed, or dropped.
    Close,
}

/// `forward: users`, or with shares.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "StreamForward")]
pub enum StreamForwardConfig {
    /// The upstream's name.
    Name(String),
    /// Several upstreams by weight.
    To(StreamForwardTo),
}

/// Several upstreams by weight.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamForwardTo {
    /// The upstreams.
    #[schemars(length(min = 1))]
    pub split: Vec<StreamShare>,
}

/// A share of the connections.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamShare {
    /// The upstream.
    pub upstream: String,
    /// Its share relative to the others.
    #[schemars(range(max = 1_000_000))]
    pub weight: u32,
}

/// The most bytes in a second of one connection.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct StreamRate {
    /// From the client.
    pub received: Option<Size>,
    /// To the client.
    pub sent: Option<Size>,
}

/// Rules for datagrams.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DatagramConfig {
    /// The datagrams of a client in one flow: the next one begins another flow, which has a target of its own. Default:
    /// any number.
    #[schemars(range(min = 1))]
    pub requests: Option<u32>,
    /// The datagrams that a target sends for each one of the client: a flow ends with the last of them, and a target
    /// that sends none fails. 1 is right for DNS. Default: any number.
    #[schemars(range(min = 1))]
    pub responses: Option<u32>,
    /// Each datagram is balanced by itself. Default false: all of a flow go to one target.
    pub per_datagram: bool,
    /// The most bytes to a client for each byte from it: one whose address is forged must not be flooded. Default: any
    /// number.
    #[schemars(range(min = 1))]
    pub amplification: Option<u32>,
    /// A flow goes on to its target when that is no longer healthy. Default false: the flow ends, and the next datagram
    /// of the client begins another one.
    pub keep_unhealthy: bool,
}
