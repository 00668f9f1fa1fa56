//! The notations of other programs, which would be sent as they stand.

use super::shorten;

/// Variables of nginx, each with the value that stands for it here.
const NGINX: &[(&str, &str)] = &[
    ("remote_addr", "{client}"),
    ("proxy_add_x_forwarded_for", "nothing: X-Forwarded-For is always sent"),
    ("host", "{host}"),
    ("http_host", "{header.host}"),
    ("server_name", "{host}"),
    ("server_port", "{listener.port}"),
    ("scheme", "{scheme}"),
    ("uri", "{path}"),
    ("document_uri", "{path}"),
    ("request_uri", "{path}{query}"),
    ("args", "{query}"),
    ("query_string", "{query}"),
    ("is_args", "{query}"),
    ("request_method", "{method}"),
    ("request_id", "{request_id}"),
    ("remote_user", "{consumer}"),
    ("ssl_server_name", "{tls.sni}"),
    ("ssl_protocol", "{tls.version}"),
    ("connection_upgrade", "nothing: WebSockets need no setting"),
];

/// Families of variables of nginx.
const NGINX_FAMILIES: &[(&str, &str)] = &[("http_", "header."), ("cookie_", "cookie."), ("arg_", "query.")];

/// Returns what to write instead of a variable of nginx (`$host`), HAProxy (`%[src]`) or Envoy (`%REQ(x)%`).
pub(super) fn explain(text: &str) -> Option<String> {
    for (at, _) in text.match_indices('$') {
        let rest = &text[at + 1..];
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let word = &rest[..end];
        let known = NGINX.iter().find(|(name, _)| *name == word).map(|(_, ours)| (*ours).to_owned());
        let of_family = || {
            let (prefix, ours) = NGINX_FAMILIES.iter().find(|(prefix, _)| word.starts_with(prefix))?;
            let name = &word[prefix.len()..];
            let name = if *prefix == "http_" { name.replace('_', "-") } else { name.to_owned() };
            Some(format!("{{{ours}{name}}}")).filter(|_| !name.is_empty())
        };
        if let Some(ours) = known.or_else(of_family) {
            return Some(format!("${word} is not filled in here; write {ours}"));
        }
    }
    if text.contains("%[") || text.contains("%REQ(") || text.contains("%DOWNSTREAM_") {
        let text = shorten(text);
        return Some(format!("\"{text}\" is not filled in here; write values as {{client}} or {{header.x-name}}"));
    }
    None
}
