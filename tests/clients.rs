//! The gateway between clients and servers of other people: curl, Chromium, httpx, python h2, grpcio, grpc-js and
//! Node.js, beside nginx and HAProxy, scraped by Prometheus, and with certificates from pebble. `.ci/setup clients`
//! installs them; the scripts are in tests/clients.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test or a tool: what is not as it should be ends it"
)]

mod harness;

#[path = "clients/acme.rs"]
mod acme;
#[path = "clients/browser.rs"]
mod browser;
#[path = "clients/cancellation.rs"]
mod cancellation;
#[path = "clients/datagrams.rs"]
mod datagrams;
#[path = "clients/fields.rs"]
mod fields;
#[path = "clients/functions.rs"]
mod functions;
#[path = "clients/grpc.rs"]
mod grpc;
#[path = "clients/grpc_json.rs"]
mod grpc_json;
#[path = "clients/informational.rs"]
mod informational;
#[path = "clients/interop.rs"]
mod interop;
#[path = "clients/malformed.rs"]
mod malformed;
#[path = "clients/nginx.rs"]
mod nginx;
#[path = "clients/nginx_cases.rs"]
mod nginx_cases;
#[path = "clients/oidc.rs"]
mod oidc;
#[path = "clients/pairings.rs"]
mod pairings;
#[path = "clients/passwords.rs"]
mod passwords;
#[path = "clients/postgres.rs"]
mod postgres;
#[path = "clients/programs.rs"]
mod programs;
#[path = "clients/prometheus.rs"]
mod prometheus;
#[path = "clients/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "clients/rejections.rs"]
mod rejections;
#[path = "clients/schema.rs"]
mod schema;
#[path = "clients/signatures.rs"]
mod signatures;
#[path = "clients/soap.rs"]
mod soap;
#[path = "clients/sockets.rs"]
mod sockets;
#[path = "clients/streams.rs"]
mod streams;
#[path = "clients/uploads.rs"]
mod uploads;
