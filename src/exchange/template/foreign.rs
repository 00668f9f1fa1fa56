//! The notations of other programs, which would be sent as they stand.

use super::value::RequestValue;
use super::{TextForm, shorten};

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

/// Returns what to write instead of a variable of nginx (`$host`), HAProxy (`%[src]`) or Envoy (`%REQ(x)%`), and
/// instead of a group of an expression (`$1`) in a target.
pub(super) fn explain(text: &str, form: TextForm) -> Option<String> {
    if let Some(name) = spaced_name(text) {
        return Some(format!("{{ {name} }} is not filled in; write {{{name}}}, without spaces"));
    }
    if !matches!(form, TextForm::Header | TextForm::Target) {
        return None;
    }
    for (at, mark) in text.match_indices(['$', '\\']) {
        let rest = &text[at + 1..];
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        let word = &rest[..end];
        if form == TextForm::Target && !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(format!("{mark}{word} is not filled in here; write {{{word}}} for a group of the expression"));
        }
        if mark == "$" && word.starts_with(|c: char| c.is_ascii_lowercase()) {
            return Some(match counterpart(word) {
                Some(ours) => format!("${word} is not filled in here; write {ours}"),
                None => format!("${word} is not filled in here; values are written as {{client}} or {{header.x-name}}"),
            });
        }
    }
    if text.contains("%[") || text.contains("%REQ(") || text.contains("%DOWNSTREAM_") {
        let text = shorten(text);
        return Some(format!("\"{text}\" is not filled in here; write values as {{client}} or {{header.x-name}}"));
    }
    None
}

/// Returns what stands here for a variable of nginx.
fn counterpart(word: &str) -> Option<String> {
    let known = NGINX.iter().find(|(name, _)| *name == word).map(|(_, ours)| (*ours).to_owned());
    known.or_else(|| {
        let (prefix, ours) = NGINX_FAMILIES.iter().find(|(prefix, _)| word.starts_with(prefix))?;
        let name = &word[prefix.len()..];
        let name = if *prefix == "http_" { name.replace('_', "-") } else { name.to_owned() };
        Some(format!("{{{ours}{name}}}")).filter(|_| !name.is_empty())
    })
}

/// Returns the name of a value that stands in braces with spaces around it.
fn spaced_name(text: &str) -> Option<&str> {
    let inner = text.split("{ ").skip(1).filter_map(|rest| rest.split(" }").next());
    inner.into_iter().find(|name| RequestValue::of(name, true).is_some_and(|value| value.is_ok()))
}
