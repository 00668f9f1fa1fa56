//! The `.proto` files that are a part of the gateway: those of <https://github.com/googleapis/googleapis>, Apache-2.0.

/// Returns the file that is imported by that name.
pub fn bundled_proto(name: &str) -> Option<&'static str> {
    Some(match name {
        "google/api/annotations.proto" => include_str!("protos/google/api/annotations.proto"),
        "google/api/client.proto" => include_str!("protos/google/api/client.proto"),
        "google/api/field_behavior.proto" => include_str!("protos/google/api/field_behavior.proto"),
        "google/api/http.proto" => include_str!("protos/google/api/http.proto"),
        "google/api/httpbody.proto" => include_str!("protos/google/api/httpbody.proto"),
        "google/api/launch_stage.proto" => include_str!("protos/google/api/launch_stage.proto"),
        "google/api/resource.proto" => include_str!("protos/google/api/resource.proto"),
        "google/rpc/code.proto" => include_str!("protos/google/rpc/code.proto"),
        "google/rpc/error_details.proto" => include_str!("protos/google/rpc/error_details.proto"),
        "google/rpc/status.proto" => include_str!("protos/google/rpc/status.proto"),
        _ => return None,
    })
}
