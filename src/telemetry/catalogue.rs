//! The catalogue of metrics: name, kind, labels and help of each. Nothing else names a metric.

use prometheus::proto::MetricType;

/// What is known about a metric beside its values.
#[derive(Clone, Copy, Debug)]
pub struct MetricFacts {
    /// The name.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricType,
    /// The names of the labels, in alphabetical order.
    pub labels: &'static [&'static str],
    /// The meaning, for people.
    pub help: &'static str,
}

/// Defines a constant for each metric, and the list of all.
macro_rules! catalogue {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: MetricFacts =
                MetricFacts { name: $name, kind: MetricType::$kind, labels: &[$($label),*], help: $help };
        )*

        /// All metrics of the gateway's own, in the order of their names.
        pub const CATALOGUE: &[MetricFacts] = &[$($id,)*];
    };
}

catalogue! {
    AGGREGATE_CALL_SECONDS: HISTOGRAM "portcullis_aggregate_call_seconds" ["call", "route"]
        "To the end of a call of an aggregated response";
    AGGREGATE_CALLS: COUNTER "portcullis_aggregate_calls_total" ["call", "outcome", "route"]
        "Calls of aggregated responses: completed (with a result), failed, timed_out or skipped (not made)";
    API_REQUESTS: COUNTER "portcullis_api_requests_total" ["api", "consumer", "version"]
        "Requests for a version of an API by consumer; at most 1000 consumers of a version have a series";
    BUILD_INFO: GAUGE "portcullis_build_info" ["commit", "version"] "Always 1; the labels say which binary runs";
    CACHE_BYTES: GAUGE "portcullis_cache_bytes" ["cache", "tier"]
        "Bytes of stored responses: in memory with heads, index and what is being received, or on disk";
    CACHE_BYTES_LIMIT: GAUGE "portcullis_cache_bytes_limit" ["cache", "tier"] "The most bytes of stored responses";
    CACHE_DISK_ERRORS: COUNTER "portcullis_cache_disk_errors_total" ["cache", "kind"]
        "damaged (files, which are removed), failed (operations of the system), not_written (responses, because the \
         disk failed or was too slow)";
    CACHE_ENTRIES: GAUGE "portcullis_cache_entries" ["cache", "tier"] "Stored responses in memory, or on disk";
    CACHE_EVICTIONS: COUNTER "portcullis_cache_evictions_total" ["cache", "tier"]
        "Responses that were removed to make room for others";
    CACHE_FILLS: GAUGE "portcullis_cache_fills_in_flight" ["cache"] "Responses that are being received";
    CACHE_LOOKUPS: COUNTER "portcullis_cache_lookups_total" ["cache", "outcome"]
        "Look-ups by where the response was found: memory, disk, filling (it is being received), or miss";
    CACHE_PURGES: COUNTER "portcullis_cache_purges_total" ["cache"] "Purges by operators";
    CACHE_REQUESTS: COUNTER "portcullis_cache_requests_total" ["outcome", "route"]
        "Requests of routes with a cache: hit, stale, revalidated (confirmed by a target), miss (and stored), \
         collapsed (served by the response to another one), pass (not stored), bypass";
    CACHE_STORED: COUNTER "portcullis_cache_stored_total" ["cache"] "Responses that were stored";
    CALL_SECONDS: HISTOGRAM "portcullis_call_seconds" ["client"]
        "To the end of a call that the gateway makes for itself";
    CALLS: COUNTER "portcullis_calls_total" ["client", "outcome"]
        "Calls that the gateway makes for itself: completed (with a response), failed, timed_out, breaker_open or busy \
         (not made)";
    CERTIFICATE_EXPIRY: GAUGE "portcullis_certificate_expiry_timestamp_seconds" ["file", "listener"]
        "When the certificate of a listener expires, in seconds of Unix time";
    BAD_FILE: GAUGE "portcullis_config_bad_file" ["file"] "1 for a file for which the last reload was rejected";
    RELOAD_SUCCESSFUL: GAUGE "portcullis_config_last_reload_successful" [] "1 if the last reload succeeded";
    CONFIG_LOADED: GAUGE "portcullis_config_loaded_timestamp_seconds" []
        "When the present configuration was loaded, in seconds of Unix time";
    CONNECTIONS_OPEN: GAUGE "portcullis_connections_open" [] "Client connections that are open";
    CONNECTIONS_REFUSED: COUNTER "portcullis_connections_refused_total" ["cause"]
        "Connections that ended without a request: head (malformed), tls, tls_timeout, client_certificate (none, or \
         not accepted), preface, malformed or h2_abuse (HTTP/2), stream_memory (a stream of HTTP/2), body_stalled, \
         proxy_header (none, or malformed), opening (the first bytes at layer 4), no_rule (of layer 4 that matches), \
         address (too many of one), rate (too many new ones), idle (closed for another), accept (no descriptor left)";
    CONNECTIONS: COUNTER "portcullis_connections_total" [] "Client connections that were accepted";
    DATAGRAMS_DROPPED: COUNTER "portcullis_datagrams_dropped_total" ["listener", "reason"]
        "Datagrams that were dropped: closed (by a rule, or for want of one), flows, client_flows, new_flows or rate \
         (a limit), proxy_header (none, or malformed), no_target, overloaded, exhausted (no descriptor left), \
         target_full, client_full or receive_buffer (a buffer of the system), too_large, amplification, draining";
    DATAGRAMS: COUNTER "portcullis_datagrams_total" ["direction", "listener"]
        "Datagrams of clients (in), and those to clients (out)";
    GRAPHQL_OPERATIONS: COUNTER "portcullis_graphql_operations_total" ["kind", "route"]
        "GraphQL operations: query, mutation, subscription, or rejected";
    JWKS_AGE: GAUGE "portcullis_jwks_age_seconds" ["source"] "Seconds since the key set was last fetched or read";
    JWKS_USABLE: GAUGE "portcullis_jwks_usable" ["source"] "1 if tokens are verified with the key set";
    CONNECTIONS_LIMIT: GAUGE "portcullis_listener_connections_limit" ["listener"]
        "The most client connections of a listener at a time";
    LOG_DROPPED: COUNTER "portcullis_log_lines_dropped_total" []
        "Lines of the access log, and of the process's own, that were dropped";
    MIRRORED: COUNTER "portcullis_mirrored_total" ["outcome", "upstream"]
        "Mirrored requests: answered, or failed";
    OPERATION_DURATION: HISTOGRAM "portcullis_operation_duration_seconds" ["operation", "route"]
        "From a request's headers to the end of its response, by the operation of the route's OpenAPI document";
    OPERATION_REQUESTS: COUNTER "portcullis_operation_requests_total" ["operation", "route", "status"]
        "Requests by operation of the route's OpenAPI document and class of the response's status";
    PANICS: COUNTER "portcullis_panics_total" [] "Panics: each is a defect of the gateway and failed one request";
    READY: GAUGE "portcullis_ready" [] "1 while requests are accepted, 0 while the process starts or drains";
    RELOADS: COUNTER "portcullis_reloads_total" ["outcome"] "Reloads: taken, or refused";
    REQUEST_DURATION: HISTOGRAM "portcullis_request_duration_seconds" ["route"]
        "From a request's headers to the end of its response";
    REQUESTS_ENDED: COUNTER "portcullis_requests_ended_total" ["reason", "route"]
        "Requests by the reason with which they ended; series appear with the first request";
    REQUESTS_IN_FLIGHT: GAUGE "portcullis_requests_in_flight" ["route"] "Requests in flight";
    REQUESTS: COUNTER "portcullis_requests_total" ["route", "status"] "Requests by class of the response's status";
    STREAM_BYTES: COUNTER "portcullis_stream_bytes_total" ["direction", "listener", "stream"]
        "Bytes of layer 4: in (that targets have got) and out (that clients have got)";
    STREAM_CONNECT_FAILURES: COUNTER "portcullis_stream_connect_failures_total" ["listener", "reason", "stream"]
        "Attempts to connect to a target for a session at layer 4 that have failed";
    STREAM_DURATION: HISTOGRAM "portcullis_stream_session_duration_seconds" ["listener", "stream"]
        "From the begin of a session at layer 4 to its end";
    STREAM_SESSIONS_OPEN: GAUGE "portcullis_stream_sessions_open" ["listener", "stream"] "Open sessions at layer 4";
    STREAM_SESSIONS: COUNTER "portcullis_stream_sessions_total" ["listener", "reason", "stream"]
        "Sessions at layer 4, and flows of datagrams, by the reason with which they ended; series appear with the \
         first one";
    TARGET_EJECTED: GAUGE "portcullis_target_ejected" ["target", "upstream"] "1 if the target is ejected";
    TARGET_EJECTIONS: COUNTER "portcullis_target_ejections_total" ["reason", "upstream"] "Ejections of targets";
    TARGET_HEALTHY: GAUGE "portcullis_target_healthy" ["target", "upstream"] "1 if the target is eligible";
    TARGET_IN_FLIGHT: GAUGE "portcullis_target_requests_in_flight" ["target", "upstream"]
        "Requests in flight on the target";
    TARGET_REQUESTS: COUNTER "portcullis_target_requests_total" ["outcome", "target", "upstream"]
        "Tries: good (a response below 500), failed (500, 501, 505 and above), gateway_failed (no connection, a reset, \
         502, 503 or 504), timed_out";
    TRANSLATED: COUNTER "portcullis_translated_requests_total" ["from", "route", "to"]
        "Requests that were translated into another protocol";
    UPGRADES: COUNTER "portcullis_upgrades_total" ["outcome"]
        "Successors that this process started: settled, or failed";
    UPSTREAM_BREAKER: GAUGE "portcullis_upstream_breaker_open" ["upstream"]
        "1 if the breaker is open, 0.5 if it is half-open";
    UPSTREAM_CONNECT: HISTOGRAM "portcullis_upstream_connect_seconds" ["upstream"] "To connect to a target";
    UPSTREAM_CONNECTIONS: COUNTER "portcullis_upstream_connections_total" ["upstream"] "Connections made to targets";
    UPSTREAM_HEDGES: COUNTER "portcullis_upstream_hedges_total" ["upstream"]
        "Hedged requests to a second target while the first was slow";
    UPSTREAM_IN_FLIGHT: GAUGE "portcullis_upstream_requests_in_flight" ["upstream"] "Requests in flight";
    UPSTREAM_LIMIT: GAUGE "portcullis_upstream_requests_limit" ["upstream"] "The most requests in flight at a time";
    UPSTREAM_PENDING: GAUGE "portcullis_upstream_requests_pending" ["upstream"] "Requests that wait for a place";
    UPSTREAM_REQUESTS: COUNTER "portcullis_upstream_requests_total" ["status", "upstream"]
        "Requests by class of the status that the client got, rejections for want of a target included";
    UPSTREAM_RESPONSE: HISTOGRAM "portcullis_upstream_response_seconds" ["upstream"]
        "From forwarding to the response's headers";
    UPSTREAM_RETRIES: COUNTER "portcullis_upstream_retries_total" ["outcome", "upstream"]
        "Retries: begun, or denied by the budget";
    UPSTREAM_REUSED: COUNTER "portcullis_upstream_reused_total" ["upstream"] "Requests on a reused connection";
    UPSTREAM_TARGETS: GAUGE "portcullis_upstream_targets" ["upstream"]
        "Targets that are known, each address of a host name by itself";
    UPSTREAM_TARGETS_ELIGIBLE: GAUGE "portcullis_upstream_targets_eligible" ["upstream"]
        "Targets that a request may be sent to now";
    UPSTREAM_ZONE_BYTES: COUNTER "portcullis_upstream_zone_bytes_total" ["direction", "own", "upstream", "zone"]
        "Bytes of bodies and streams sent to targets of a zone, and received; own=\"false\" is traffic between zones";
    UPSTREAM_ZONE_REQUESTS: COUNTER "portcullis_upstream_zone_requests_total" ["own", "upstream", "zone"]
        "Requests, connections and flows to targets of a zone; own=\"false\" is traffic between zones";
    WOULD_REJECT: COUNTER "portcullis_would_reject_total" ["filter", "reason"]
        "Requests that a filter with enforce: false would have rejected, by the reason";
}

/// Defines the metrics of the process, which have the names that Prometheus' own clients give them.
macro_rules! of_process {
    ($($id:ident: $kind:ident $name:literal $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: MetricFacts = MetricFacts { name: $name, kind: MetricType::$kind, labels: &[], help: $help };
        )*

        /// The metrics of the process as the system sees it.
        pub const OF_PROCESS: &[MetricFacts] = &[$($id,)*];
    };
}

of_process! {
    PROCESS_CPU: COUNTER "process_cpu_seconds_total" "Total user and system CPU time spent in seconds";
    PROCESS_MAX_FDS: GAUGE "process_max_fds" "Maximum number of open file descriptors";
    PROCESS_OPEN_FDS: GAUGE "process_open_fds" "Number of open file descriptors";
    PROCESS_RESIDENT: GAUGE "process_resident_memory_bytes" "Resident memory size in bytes";
    PROCESS_START: GAUGE "process_start_time_seconds" "Start time of the process since the Unix epoch in seconds";
    PROCESS_THREADS: GAUGE "process_threads" "Number of threads of the process";
    PROCESS_VIRTUAL: GAUGE "process_virtual_memory_bytes" "Virtual memory size in bytes";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_in_order() {
        for table in [CATALOGUE, OF_PROCESS] {
            assert!(table.windows(2).all(|pair| pair[0].name < pair[1].name));
            assert!(table.iter().all(|facts| facts.labels.windows(2).all(|pair| pair[0] < pair[1])));
        }
    }
}
