//! The closed list of ways in which a request ends.

/// Defines [`Reason`] as one table, so that no column can be forgotten.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident: $code:literal, $status:literal, $title:literal, grpc $grpc:literal, proxy $proxy:expr;)*) => {
        /// How a request ended. Its code is in the access log, the metrics and the answer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its code: a word for logs, metrics and `type` of the problem document.
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The HTTP status of the gateway's own answer; 0 when the answer is not its own.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// What the client is told.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// The gRPC status of the gateway's own answer.
            pub fn grpc_status(self) -> u8 {
                match self { $(Self::$variant => $grpc,)* }
            }

            /// The error type of RFC 9209, when a target is to blame or was not reached.
            pub fn proxy_error(self) -> Option<&'static str> {
                match self { $(Self::$variant => $proxy,)* }
            }
        }
    };
}

reasons! {
    /// The target's answer was passed on.
    Forwarded: "forwarded", 0, "", grpc 0, proxy None;
    /// The connection became a WebSocket and ended.
    Upgraded: "upgraded", 101, "", grpc 0, proxy None;
    /// A fixed answer.
    Responded: "responded", 200, "", grpc 0, proxy None;
    /// The client was sent elsewhere.
    Redirected: "redirected", 308, "", grpc 0, proxy None;
    /// A CORS preflight was answered.
    Preflight: "preflight", 204, "", grpc 0, proxy None;

    /// The request cannot be understood, or is one that proxies must not forward.
    BadRequest: "bad_request", 400, "The request is malformed", grpc 13, proxy Some("http_request_error");
    /// The path has no normal form.
    BadPath: "bad_path", 400, "The path is malformed", grpc 13, proxy Some("http_request_error");
    /// The request target is longer than is taken.
    UriTooLong: "uri_too_long", 414, "The request target is too long", grpc 8, proxy Some("http_request_error");
    /// The request's head is over its limit.
    HeadersTooLarge: "headers_too_large", 431, "The request's headers are too large", grpc 8, proxy Some("http_request_error");
    /// No route matches.
    RouteNotFound: "route_not_found", 404, "No route matches this request", grpc 12, proxy None;
    /// The path is known, but not with this method.
    MethodNotAllowed: "method_not_allowed", 405, "This method is not allowed here", grpc 12, proxy None;

    /// No token.
    TokenMissing: "token_missing", 401, "A token is required", grpc 16, proxy None;
    /// A token that is not acceptable.
    TokenInvalid: "token_invalid", 401, "The token is not acceptable", grpc 16, proxy None;
    /// A token whose time is over.
    TokenExpired: "token_expired", 401, "The token has expired", grpc 16, proxy None;
    /// No API key.
    ApiKeyMissing: "api_key_missing", 401, "An API key is required", grpc 16, proxy None;
    /// An API key that nobody has.
    ApiKeyInvalid: "api_key_invalid", 401, "The API key is not acceptable", grpc 16, proxy None;
    /// No name and password.
    PasswordMissing: "password_missing", 401, "A name and a password are required", grpc 16, proxy None;
    /// A password that is wrong, or a name that nobody has.
    PasswordInvalid: "password_invalid", 401, "The name or the password is wrong", grpc 16, proxy None;
    /// Too many passwords are being verified.
    AuthOverloaded: "auth_overloaded", 503, "Too many callers are being authenticated", grpc 14, proxy None;
    /// The keys to check with are not there.
    AuthUnavailable: "auth_unavailable", 503, "Authentication is not possible at the moment", grpc 14, proxy None;

    /// Over the promised limit.
    RateLimited: "rate_limited", 429, "Too many requests", grpc 8, proxy None;
    /// Over the coarse limit of one address.
    Shielded: "shielded", 429, "Too many requests from this address", grpc 8, proxy None;
    /// The request body is over its limit.
    BodyTooLarge: "body_too_large", 413, "The request body is too large", grpc 8, proxy Some("http_request_denied");
    /// The request body is not what the route takes.
    BodyInvalid: "body_invalid", 400, "The request body is not valid", grpc 3, proxy Some("http_request_error");
    /// The request body is of a kind, or in a coding, that the route does not take.
    MediaType: "media_type", 415, "This kind of request body is not taken here", grpc 3, proxy Some("http_request_error");
    /// The gateway holds as many request bodies as it may.
    BuffersFull: "buffers_full", 503, "The gateway holds too many request bodies", grpc 8, proxy None;
    /// The client sent too slowly.
    ClientTimeout: "client_timeout", 408, "The request took too long to arrive", grpc 4, proxy None;
    /// The client went away.
    ClientGone: "client_gone", 499, "The client closed the connection", grpc 1, proxy None;

    /// The process ended before the answer did: its drain took too long.
    Cut: "cut", 499, "The gateway ended before the answer did", grpc 14, proxy None;

    /// No target may be picked.
    NoHealthyTarget: "no_healthy_target", 503, "No healthy target is available", grpc 14, proxy Some("destination_unavailable");
    /// The breaker of the upstream, or those of all its targets, are open.
    BreakerOpen: "breaker_open", 503, "The upstream is failing and is left alone for now", grpc 14, proxy Some("destination_unavailable");
    /// The upstream has as many requests as it may have.
    Overloaded: "overloaded", 503, "The upstream has too much to do", grpc 14, proxy Some("connection_limit_reached");
    /// The target's name has no address.
    DnsError: "dns_error", 502, "The target's name could not be resolved", grpc 14, proxy Some("dns_error");
    /// The target refused the connection.
    ConnectRefused: "connect_refused", 502, "The target refused the connection", grpc 14, proxy Some("connection_refused");
    /// Connecting took too long.
    ConnectTimeout: "connect_timeout", 504, "Connecting to the target took too long", grpc 14, proxy Some("connection_timeout");
    /// TLS with the target failed.
    TargetTls: "target_tls", 502, "TLS with the target failed", grpc 14, proxy Some("tls_protocol_error");
    /// The target did not answer in time.
    TargetTimeout: "target_timeout", 504, "The target took too long to answer", grpc 4, proxy Some("http_response_timeout");
    /// The route's time is over.
    RouteTimeout: "route_timeout", 504, "The request took too long", grpc 4, proxy Some("http_response_timeout");
    /// The target closed or reset the connection.
    TargetReset: "target_reset", 502, "The target closed the connection", grpc 14, proxy Some("connection_terminated");
    /// The target's answer is no valid HTTP.
    TargetProtocol: "target_protocol", 502, "The target's answer is not valid", grpc 14, proxy Some("http_protocol_error");
    /// An answer that a filter has to look into, and cannot.
    AnswerOpaque: "answer_opaque", 502, "The target's answer could not be inspected", grpc 14, proxy Some("http_response_transform_error");

    /// The gateway has no file descriptor, port or memory left for it.
    Exhausted: "exhausted", 503, "The gateway has no sockets left", grpc 14, proxy Some("connection_limit_reached");
    /// The gateway is to blame.
    Internal: "internal", 500, "The gateway failed", grpc 13, proxy Some("proxy_internal_error");
}

impl Reason {
    /// Its place in [`Reason::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}
