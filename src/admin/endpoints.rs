//! The table of the admin listener's endpoints.

use serde_json::{Value, json};

/// An endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// The methods, as `Allow` has them (RFC 9110, section 10.2.1).
    pub methods: &'static str,
    /// The path, with `{…}` for what varies.
    pub path: &'static str,
    /// Whether it is open to requests without the admin token.
    pub open: bool,
    /// What the response has, or what the request does.
    pub text: &'static str,
}

const fn endpoint(methods: &'static str, path: &'static str, text: &'static str) -> Endpoint {
    Endpoint { methods, path, open: false, text }
}

/// All endpoints.
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint { open: true, ..endpoint("GET, HEAD", "/healthz", "200 while the process runs.") },
    Endpoint {
        open: true,
        ..endpoint(
            "GET, HEAD",
            "/readyz",
            "200 while requests are accepted, otherwise 503; with the result of the last reload.",
        )
    },
    endpoint("GET, HEAD", "/", "These endpoints."),
    endpoint("GET, HEAD", "/metrics", "The metrics in the text format of Prometheus."),
    endpoint(
        "GET, HEAD",
        "/process",
        "Version, process id, start, configuration file, and listeners as they are bound.",
    ),
    endpoint("GET, HEAD", "/routes", "The routes: match, filters in the order in which they run, and action."),
    endpoint(
        "GET, HEAD",
        "/streams",
        "The rules of layer 4 by listener: match, action, and the number of open sessions.",
    ),
    endpoint(
        "GET, HEAD",
        "/upstreams",
        "The upstreams: requests in flight, breaker, and each target with its health and load.",
    ),
    endpoint("GET, HEAD", "/key_sets", "The key sets for tokens: source, age, number of keys, and the last error."),
    endpoint(
        "GET, HEAD",
        "/config",
        "The configuration that serves, as it is written, all its files as one; secrets are shown as `(secret)`, and \
         what came by a reference as the reference.",
    ),
    endpoint("GET, HEAD", "/reasons", "The reasons with which a request ends: code, status, title, gRPC status."),
    endpoint("GET, HEAD", "/consumers", "The names of the consumers, 1000 at a time: `?after=NAME` for the next."),
    endpoint(
        "GET, HEAD, PUT, PATCH, DELETE",
        "/consumers/{name}",
        "A consumer of the configuration or of consumers_file, without secrets; PUT creates or replaces it in that \
         file, `{\"groups\": […], \"plan\": …, \"credentials\": […]}`, and keeps its credentials where there are \
         none; PATCH changes what it has, and removes what is null.",
    ),
    endpoint(
        "POST",
        "/consumers/{name}/keys",
        "Creates an API key, `{\"scopes\": […], \"expires\": …}`: the response alone has it.",
    ),
    endpoint("DELETE", "/consumers/{name}/keys/{id}", "Revokes the API key with that id."),
    endpoint(
        "POST",
        "/consumers/{name}/keys/{id}/rotate",
        "Creates an API key instead of the one with that id, which is accepted for a time, `{\"grace\": \"1h\"}`, or \
         no longer.",
    ),
    endpoint("GET, HEAD", "/caches", "The caches that filters use: entries and bytes, look-ups, evictions, fills."),
    endpoint("GET, HEAD", "/caches/{name}", "One of them."),
    endpoint(
        "GET, HEAD",
        "/caches/{name}/entries",
        "What it has in memory of a URL, `?url=URL`: head, age, freshness, and variant of each response.",
    ),
    endpoint(
        "POST",
        "/caches/{name}/purge",
        "Removes stored responses: `{\"url\": …, \"prefix\": …, \"tag\": …, \"all\": true}`, each a text or a list; \
         with `\"soft\": true` they are marked as stale. When it has responded, no request finds them.",
    ),
    endpoint("POST", "/caches/purge", "The same in all caches."),
    endpoint("POST", "/reload", "Reads the configuration again. 422 with all errors if it has any."),
    endpoint(
        "POST",
        "/diff",
        "What a reload would change. With a body: how the configuration in it differs, as `portcullis diff` sends it.",
    ),
    endpoint("POST", "/upstreams/{name}/targets", "Adds a target: `{\"address\": …, \"weight\": …}`."),
    endpoint(
        "PATCH, DELETE",
        "/upstreams/{name}/targets/{address}",
        "Changes a target, `{\"weight\": …, \"draining\": …}`, or removes it. Changes outlive reloads, and end with \
         the process.",
    ),
];

/// Returns the methods of the endpoint at a path without `{…}`.
pub(super) fn methods(path: &str) -> Option<&'static str> {
    ENDPOINTS.iter().find(|endpoint| endpoint.path == path).map(|endpoint| endpoint.methods)
}

/// Returns the endpoints for people.
pub(super) fn list() -> Value {
    ENDPOINTS
        .iter()
        .map(|one| json!({"methods": one.methods, "path": one.path, "token": !one.open, "text": one.text}))
        .collect()
}
