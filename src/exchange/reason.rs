//! The closed list of reasons with which a request ends.

/// Defines [`Reason`] as one table, so that no column can be forgotten.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $variant:ident: $code:literal, $status:literal, $title:literal, grpc $grpc:literal,
    proxy $proxy:expr;)*) => {
        /// The reason with which a request ended. Its code is in the access log, the metrics and the response.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Reason {
            /// All reasons in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Returns its code: the word for logs, metrics and `type` of the problem document.
            pub fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// Returns the HTTP status of the gateway's own response, or 0 when the response is the target's.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status,)* }
            }

            /// Returns the title for the client.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// Returns the gRPC status of the gateway's own response.
            pub fn grpc_status(self) -> u8 {
                match self { $(Self::$variant => $grpc,)* }
            }

            /// Returns its meaning, for operators.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),*).trim_ascii(),)* }
            }

            /// Returns the error type of RFC 9209, when the target failed or was not reached.
            pub fn proxy_error(self) -> Option<&'static str> {
                match self { $(Self::$variant => $proxy,)* }
            }
        }
    };
}

reasons! {
    /// The target's response was forwarded.
    Forwarded: "forwarded", 0, "", grpc 0, proxy None;
    /// The connection was upgraded to a WebSocket, which has ended.
    Upgraded: "upgraded", 101, "", grpc 0, proxy None;
    /// The route has a fixed response.
    Responded: "responded", 200, "", grpc 0, proxy None;
    /// An example from the route's OpenAPI document was sent.
    Mocked: "mocked", 200, "", grpc 12, proxy None;
    /// The results of calls to upstreams were merged.
    Aggregated: "aggregated", 200, "", grpc 0, proxy None;
    /// The results of calls to upstreams were merged, without those that failed.
    AggregatedInPart: "aggregated_in_part", 200, "", grpc 0, proxy None;
    /// A file was sent, or the client has it already.
    Served: "served", 200, "", grpc 0, proxy None;
    /// The response came from the cache.
    Cached: "cached", 200, "", grpc 0, proxy None;
    /// The client was redirected.
    Redirected: "redirected", 308, "", grpc 0, proxy None;
    /// The request was a CORS preflight.
    Preflight: "preflight", 204, "", grpc 0, proxy None;

    /// The request is malformed, or one that proxies must not forward.
    BadRequest: "bad_request", 400, "The request is malformed", grpc 13, proxy Some("http_request_error");
    /// The connection is not for this host: the client was not verified as the host requires, or for another host.
    Misdirected: "misdirected", 421, "The connection is not for this host", grpc 14, proxy Some("http_request_error");
    /// The path has no normal form.
    BadPath: "bad_path", 400, "The path is malformed", grpc 13, proxy Some("http_request_error");
    /// The request target is too long.
    UriTooLong: "uri_too_long", 414, "The request target is too long", grpc 8, proxy Some("http_request_error");
    /// The request's head exceeds its limit.
    HeadersTooLarge: "headers_too_large", 431, "The request's headers are too large",
        grpc 8, proxy Some("http_request_error");
    /// No route matches.
    RouteNotFound: "route_not_found", 404, "No route matches this request", grpc 12, proxy None;
    /// The path matches a route, but not with this method.
    MethodNotAllowed: "method_not_allowed", 405, "This method is not allowed here", grpc 12, proxy None;
    /// The request names no version of the API, and there is no default.
    VersionMissing: "version_missing", 400, "A version of the API has to be named", grpc 3, proxy None;
    /// The API has no such version, or none that the client may use.
    VersionUnknown: "version_unknown", 404, "The API has no such version", grpc 12, proxy None;
    /// The version of the API is retired.
    VersionRetired: "version_retired", 410, "This version of the API has ended", grpc 12, proxy None;
    /// The route serves files, and has none of that name.
    FileNotFound: "file_not_found", 404, "There is no such file", grpc 5, proxy None;
    /// The file is not the one that the client expects.
    PreconditionFailed: "precondition_failed", 412, "The file is not the one that is expected", grpc 9, proxy None;
    /// The file does not have the range that was requested.
    RangeNotSatisfiable: "range_not_satisfiable", 416, "The file does not have this range", grpc 11, proxy None;
    /// The file could not be read.
    FileFailed: "file_failed", 500, "The file could not be read", grpc 13, proxy None;
    /// Too many files are being read.
    FilesOverloaded: "files_overloaded", 503, "Too many files are being read", grpc 14, proxy None;

    /// The request looks like an attack.
    AttackDetected: "attack_detected", 403, "This request is not accepted", grpc 7, proxy None;
    /// A page of another site made the browser send the request.
    CrossSite: "cross_site", 403, "Requests of other sites are not accepted", grpc 7, proxy None;

    /// There is no credential, where credentials of several kinds are accepted.
    CredentialMissing: "credential_missing", 401, "A credential is required", grpc 16, proxy None;
    /// There is no token.
    TokenMissing: "token_missing", 401, "A token is required", grpc 16, proxy None;
    /// The token is not acceptable.
    TokenInvalid: "token_invalid", 401, "The token is not acceptable", grpc 16, proxy None;
    /// The token has expired.
    TokenExpired: "token_expired", 401, "The token has expired", grpc 16, proxy None;
    /// The token lacks a scope that the route requires.
    InsufficientScope: "insufficient_scope", 403, "The token does not permit this", grpc 7, proxy None;
    /// The authentication server did not accept the request; the response is its own, or 403.
    ForwardAuthRejected: "forward_auth_rejected", 403, "The request was not accepted", grpc 16, proxy None;
    /// There is no session, and the request is not one that can be redirected to the login.
    LoginRequired: "login_required", 401, "A login is required", grpc 16, proxy None;
    /// There is no session: the client was redirected to the login.
    LoginRedirect: "login_redirect", 302, "", grpc 16, proxy None;
    /// The login was completed, and the client redirected to the page that it had requested.
    LoggedIn: "logged_in", 302, "", grpc 0, proxy None;
    /// The client has logged out.
    LoggedOut: "logged_out", 302, "", grpc 0, proxy None;
    /// The login was not completed: its state is not known, or has expired, or the provider's response is wrong.
    LoginFailed: "login_failed", 400, "The login failed", grpc 3, proxy None;
    /// The provider did not permit the login.
    LoginDenied: "login_denied", 403, "The login was not permitted", grpc 7, proxy None;
    /// There is no API key.
    ApiKeyMissing: "api_key_missing", 401, "An API key is required", grpc 16, proxy None;
    /// The API key belongs to no consumer.
    ApiKeyInvalid: "api_key_invalid", 401, "The API key is not acceptable", grpc 16, proxy None;
    /// There is no signature.
    SignatureMissing: "signature_missing", 401, "A signature is required", grpc 16, proxy None;
    /// The signature is not acceptable, or the body is not the one that was signed.
    SignatureInvalid: "signature_invalid", 401, "The signature is not acceptable", grpc 16, proxy None;
    /// There is no name and password.
    PasswordMissing: "password_missing", 401, "A name and a password are required", grpc 16, proxy None;
    /// The password is wrong, or the name belongs to no consumer.
    PasswordInvalid: "password_invalid", 401, "The name or the password is wrong", grpc 16, proxy None;
    /// There is no client certificate.
    CertificateMissing: "certificate_missing", 401, "A client certificate is required", grpc 16, proxy None;
    /// The client certificate belongs to none of those who may come in.
    CertificateInvalid: "certificate_invalid", 401, "The client certificate is not acceptable", grpc 16, proxy None;
    /// Too many passwords are being verified.
    AuthOverloaded: "auth_overloaded", 503, "Too many callers are being authenticated", grpc 14, proxy None;
    /// Credentials cannot be verified at present: the keys, or the server that is called about them, are not available.
    AuthUnavailable: "auth_unavailable", 503, "Authentication is not possible at the moment", grpc 14, proxy None;

    /// Nobody has been identified, and the route is not for everyone.
    IdentityMissing: "identity_missing", 401, "The caller has to be identified", grpc 16, proxy None;
    /// The caller is known, and not allowed to do this.
    Forbidden: "forbidden", 403, "This is not allowed", grpc 7, proxy None;

    /// The request exceeds a rate limit.
    RateLimited: "rate_limited", 429, "Too many requests", grpc 8, proxy None;
    /// The request exceeds a quota of the calendar.
    QuotaExceeded: "quota_exceeded", 429, "The quota is used up", grpc 8, proxy None;
    /// The counts of a quota cannot be written.
    QuotaUnavailable: "quota_unavailable", 503, "Quotas cannot be counted at the moment", grpc 14, proxy None;
    /// As many requests are under way as a limit of concurrency allows.
    ConcurrencyLimited: "concurrency_limited", 429, "Too many requests at a time", grpc 8, proxy None;
    /// As many requests are under way as the route allows.
    RouteFull: "route_full", 503, "Too many requests are under way here", grpc 14, proxy None;
    /// As many requests wait as a throttle allows, or the request would wait for too long.
    ThrottleFull: "throttle_full", 429, "Too many requests are waiting", grpc 8, proxy None;
    /// The request exceeds the coarse limit of its address.
    Shielded: "shielded", 429, "Too many requests from this address", grpc 8, proxy None;
    /// The request body exceeds its limit.
    BodyTooLarge: "body_too_large", 413, "The request body is too large", grpc 8, proxy Some("http_request_denied");
    /// The request body violates the route's rules.
    BodyInvalid: "body_invalid", 400, "The request body is not valid", grpc 3, proxy Some("http_request_error");
    /// The request violates the route's schema or its OpenAPI document.
    RequestInvalid: "request_invalid", 400, "The request is not valid", grpc 3, proxy Some("http_request_error");
    /// The fields that the client selects are not valid, or may not be selected.
    FieldsInvalid: "fields_invalid", 400, "The selection of fields is not valid",
        grpc 3, proxy Some("http_request_error");
    /// The request body has a media type or content coding that the route does not accept.
    MediaType: "media_type", 415, "This media type or content coding is not accepted here",
        grpc 3, proxy Some("http_request_error");
    /// The request cannot be translated into the protocol of the target.
    RequestUntranslatable: "request_untranslatable", 400, "The request cannot be translated",
        grpc 3, proxy Some("http_request_error");
    /// The GraphQL operation exceeds a limit, or its document is not known.
    GraphqlLimit: "graphql_limit", 400, "The GraphQL operation is not accepted", grpc 3, proxy None;
    /// The gateway buffers as many request bodies as it may.
    BuffersFull: "buffers_full", 503, "The gateway buffers too many request bodies", grpc 8, proxy None;
    /// A fault was injected, to test clients.
    FaultInjected: "fault_injected", 503, "This failure is a test", grpc 14, proxy None;
    /// The client sent the request too slowly.
    ClientTimeout: "client_timeout", 408, "The request took too long to arrive", grpc 4, proxy None;
    /// The client closed the connection.
    ClientGone: "client_gone", 499, "The client closed the connection", grpc 1, proxy None;

    /// The process ended before the response was complete, since its drain took too long.
    Cut: "cut", 499, "The gateway ended before the response did", grpc 14, proxy None;

    /// The client wants a response from the cache alone, and there is none.
    NotCached: "not_cached", 504, "Nothing is cached for this request", grpc 14, proxy None;

    /// A call failed without whose result there is no response.
    CallFailed: "call_failed", 502, "A part of the response is missing", grpc 14, proxy Some("http_protocol_error");
    /// No target can be picked.
    NoHealthyTarget: "no_healthy_target", 503, "No healthy target is available",
        grpc 14, proxy Some("destination_unavailable");
    /// The breakers of the upstream or of all its targets are open.
    BreakerOpen: "breaker_open", 503, "The upstream is failing and gets no requests now",
        grpc 14, proxy Some("destination_unavailable");
    /// The upstream has its maximum number of requests.
    Overloaded: "overloaded", 503, "The upstream is overloaded", grpc 14, proxy Some("connection_limit_reached");
    /// The target's name could not be resolved.
    DnsError: "dns_error", 502, "The target's name could not be resolved", grpc 14, proxy Some("dns_error");
    /// The target refused the connection.
    ConnectRefused: "connect_refused", 502, "The target refused the connection",
        grpc 14, proxy Some("connection_refused");
    /// Connecting took too long.
    ConnectTimeout: "connect_timeout", 504, "Connecting to the target took too long",
        grpc 14, proxy Some("connection_timeout");
    /// TLS with the target failed.
    TargetTls: "target_tls", 502, "TLS with the target failed", grpc 14, proxy Some("tls_protocol_error");
    /// The target did not respond in time.
    TargetTimeout: "target_timeout", 504, "The target took too long to respond",
        grpc 4, proxy Some("http_response_timeout");
    /// The route's time-out has expired.
    RouteTimeout: "route_timeout", 504, "The request took too long", grpc 4, proxy Some("http_response_timeout");
    /// The target closed or reset the connection.
    TargetReset: "target_reset", 502, "The target closed the connection", grpc 14, proxy Some("connection_terminated");
    /// The target's response is not valid HTTP.
    TargetProtocol: "target_protocol", 502, "The target's response is not valid",
        grpc 14, proxy Some("http_protocol_error");
    /// The target's response violates the route's schema or its OpenAPI document.
    ResponseInvalid: "response_invalid", 502, "The target's response is not valid",
        grpc 13, proxy Some("http_response_transform_error");
    /// The target's response cannot be translated into the protocol of the client.
    ResponseUntranslatable: "response_untranslatable", 502, "The target's response cannot be translated",
        grpc 13, proxy Some("http_response_transform_error");
    /// The function that was called failed, or the cloud did not call it.
    FunctionFailed: "function_failed", 502, "The function failed", grpc 13, proxy Some("http_response_transform_error");
    /// As many calls of the function are under way as its cloud allows.
    FunctionThrottled: "function_throttled", 503, "The function has too many calls",
        grpc 14, proxy Some("connection_limit_reached");
    /// The gateway has no credentials for the target at present.
    CredentialsUnavailable: "credentials_unavailable", 503, "The gateway cannot call the target at the moment",
        grpc 14, proxy Some("proxy_configuration_error");
    /// The response of a translated request has no result: errors in its place, or null.
    NoResult: "no_result", 502, "The target has no result for this request", grpc 13, proxy None;
    /// A filter has to inspect the response, and cannot.
    ResponseOpaque: "response_opaque", 502, "The response could not be inspected",
        grpc 14, proxy Some("http_response_transform_error");

    /// Both sides of a connection at layer 4 have ended it.
    SessionEnded: "session_ended", 0, "", grpc 0, proxy None;
    /// The client has reset a connection at layer 4.
    ClientReset: "client_reset", 499, "The client reset the connection", grpc 1, proxy None;
    /// The target has closed a connection at layer 4 before it had sent a byte, although the client had sent some.
    TargetClosedEarly: "target_closed_early", 502, "The target closed the connection",
        grpc 14, proxy Some("connection_terminated");
    /// A connection at layer 4 was silent for as long as it may be.
    IdleTimeout: "idle_timeout", 0, "", grpc 4, proxy None;
    /// One direction of a connection at layer 4 had ended, and the other was silent for as long as it may be.
    HalfClosedTimeout: "half_closed_timeout", 0, "", grpc 4, proxy None;
    /// A connection at layer 4 has lasted as long as it may.
    TotalTimeout: "total_timeout", 0, "", grpc 4, proxy None;
    /// The target of a flow of datagrams is no longer healthy, or no longer a target.
    TargetUnhealthy: "target_unhealthy", 502, "The target is not healthy", grpc 14, proxy Some("connection_terminated");
    /// A reload has removed the rule or the listener of a flow of datagrams, or another rule is for its client now.
    RuleRemoved: "rule_removed", 0, "", grpc 14, proxy None;
    /// No rule of layer 4 is for the connection.
    NoStreamRule: "no_stream_rule", 403, "No rule is for this connection", grpc 7, proxy None;
    /// The rule closes such connections.
    ClosedByRule: "closed_by_rule", 403, "Such connections are closed", grpc 7, proxy None;

    /// The gateway has no file descriptor, port or memory left.
    Exhausted: "exhausted", 503, "The gateway has no sockets left", grpc 14, proxy Some("connection_limit_reached");
    /// The gateway failed.
    Internal: "internal", 500, "The gateway failed", grpc 13, proxy Some("proxy_internal_error");
}

impl Reason {
    /// Returns its index in [`Reason::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}
