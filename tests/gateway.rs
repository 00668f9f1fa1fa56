//! The gateway over real sockets.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test or a tool: what is not as it should be ends it"
)]

mod harness;

#[path = "gateway/adversarial.rs"]
mod adversarial;
#[path = "gateway/aggregation.rs"]
mod aggregation;
#[path = "gateway/aggregation_terms.rs"]
mod aggregation_terms;
#[path = "gateway/amazon_integrations.rs"]
mod amazon_integrations;
#[path = "gateway/answers.rs"]
mod answers;
#[path = "gateway/authentication.rs"]
mod authentication;
#[path = "gateway/authorization.rs"]
mod authorization;
#[path = "gateway/basic.rs"]
mod basic;
#[path = "gateway/cache_serving.rs"]
mod cache_serving;
#[path = "gateway/cache_store.rs"]
mod cache_store;
#[path = "gateway/caching.rs"]
mod caching;
#[path = "gateway/caching_freshness.rs"]
mod caching_freshness;
#[path = "gateway/caching_keys.rs"]
mod caching_keys;
#[path = "gateway/caching_requests.rs"]
mod caching_requests;
#[path = "gateway/caching_shared.rs"]
mod caching_shared;
#[path = "gateway/caching_storing.rs"]
mod caching_storing;
#[path = "gateway/cases.rs"]
mod cases;
#[path = "gateway/chains.rs"]
mod chains;
#[path = "gateway/client_certificates.rs"]
mod client_certificates;
#[path = "gateway/configuration.rs"]
mod configuration;
#[path = "gateway/connect.rs"]
mod connect;
#[path = "gateway/connecting.rs"]
mod connecting;
#[path = "gateway/consumers.rs"]
mod consumers;
#[path = "gateway/counts.rs"]
mod counts;
#[path = "gateway/crash.rs"]
mod crash;
#[path = "gateway/datagram_batches.rs"]
mod datagram_batches;
#[path = "gateway/datagram_targets.rs"]
mod datagram_targets;
#[path = "gateway/datagrams.rs"]
mod datagrams;
#[path = "gateway/discovery.rs"]
mod discovery;
#[path = "gateway/door.rs"]
mod door;
#[path = "gateway/ends.rs"]
mod ends;
#[path = "gateway/facts.rs"]
mod facts;
#[path = "gateway/failover.rs"]
mod failover;
#[path = "gateway/families.rs"]
mod families;
#[path = "gateway/files.rs"]
mod files;
#[path = "gateway/filter_sets.rs"]
mod filter_sets;
#[path = "gateway/first_hour.rs"]
mod first_hour;
#[path = "gateway/forward_auth.rs"]
mod forward_auth;
#[path = "gateway/frames.rs"]
mod frames;
#[path = "gateway/framing.rs"]
mod framing;
#[path = "gateway/from_kong.rs"]
mod from_kong;
#[path = "gateway/graphql.rs"]
mod graphql;
#[path = "gateway/graphql_limits.rs"]
mod graphql_limits;
#[path = "gateway/grpc_json.rs"]
mod grpc_json;
#[path = "gateway/grpc_json_target.rs"]
mod grpc_json_target;
#[path = "gateway/grpc_reflection.rs"]
mod grpc_reflection;
#[path = "gateway/grpc_web.rs"]
mod grpc_web;
#[path = "gateway/handover.rs"]
mod handover;
#[path = "gateway/hello.rs"]
mod hello;
#[path = "gateway/http2.rs"]
mod http2;
#[path = "gateway/interim.rs"]
mod interim;
#[path = "gateway/introspection.rs"]
mod introspection;
#[path = "gateway/issuers.rs"]
mod issuers;
#[path = "gateway/key_sets.rs"]
mod key_sets;
#[path = "gateway/lambda.rs"]
mod lambda;
#[path = "gateway/limit_filters.rs"]
mod limit_filters;
#[path = "gateway/limits.rs"]
mod limits;
#[path = "gateway/listeners.rs"]
mod listeners;
#[path = "gateway/log_formats.rs"]
mod log_formats;
#[path = "gateway/metrics.rs"]
mod metrics;
#[path = "gateway/mtls.rs"]
mod mtls;
#[path = "gateway/oidc.rs"]
mod oidc;
#[path = "gateway/oidc_sessions.rs"]
mod oidc_sessions;
#[path = "gateway/operators.rs"]
mod operators;
#[path = "gateway/payload.rs"]
mod payload;
#[path = "gateway/process.rs"]
mod process;
#[path = "gateway/proxy_out.rs"]
mod proxy_out;
#[path = "gateway/proxy_protocol.rs"]
mod proxy_protocol;
#[path = "gateway/query_keys.rs"]
mod query_keys;
#[path = "gateway/quotas.rs"]
mod quotas;
#[path = "gateway/readiness.rs"]
mod readiness;
#[path = "gateway/references.rs"]
mod references;
#[path = "gateway/rejections.rs"]
mod rejections;
#[path = "gateway/relay.rs"]
mod relay;
#[path = "gateway/reload.rs"]
mod reload;
#[path = "gateway/reload_reports.rs"]
mod reload_reports;
#[path = "gateway/resilience.rs"]
mod resilience;
#[path = "gateway/rest_to_graphql.rs"]
mod rest_to_graphql;
#[path = "gateway/room.rs"]
mod room;
#[path = "gateway/sessions.rs"]
mod sessions;
#[path = "gateway/sessions_misuse.rs"]
mod sessions_misuse;
#[path = "gateway/sessions_tls.rs"]
mod sessions_tls;
#[path = "gateway/signatures.rs"]
mod signatures;
#[path = "gateway/sizes.rs"]
mod sizes;
#[path = "gateway/soap.rs"]
mod soap;
#[path = "gateway/sockets.rs"]
mod sockets;
#[path = "gateway/starttls.rs"]
mod starttls;
#[path = "gateway/stream_upgrades.rs"]
mod stream_upgrades;
#[path = "gateway/streams.rs"]
mod streams;
#[path = "gateway/succession.rs"]
mod succession;
#[path = "gateway/target_tls.rs"]
mod target_tls;
#[path = "gateway/target_tokens.rs"]
mod target_tokens;
#[path = "gateway/telemetry.rs"]
mod telemetry;
#[path = "gateway/tls.rs"]
mod tls;
#[path = "gateway/tls_settings.rs"]
mod tls_settings;
#[path = "gateway/tracing.rs"]
mod tracing;
#[path = "gateway/transforms.rs"]
mod transforms;
#[path = "gateway/translated_choices.rs"]
mod translated_choices;
#[path = "gateway/translated_paths.rs"]
mod translated_paths;
#[path = "gateway/upgrade.rs"]
mod upgrade;
#[path = "gateway/uploads.rs"]
mod uploads;
#[path = "gateway/validation.rs"]
mod validation;
#[path = "gateway/warnings.rs"]
mod warnings;
#[path = "gateway/websocket.rs"]
mod websocket;
#[path = "gateway/whole_bodies.rs"]
mod whole_bodies;
#[path = "gateway/zones.rs"]
mod zones;
