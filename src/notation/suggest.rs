//! The right spelling of a text in another program's notation: `.example.com`, `/users/:id`, `$.user.ssn`, `10sec`.

use super::text::check_format;
use super::types::*;

/// Returns how a text that is wrong in its format is written, if that is evident.
pub fn spelling(format: &str, text: &str) -> Option<String> {
    let text = text.trim();
    let candidates = match format {
        Duration::FORMAT => vec![duration(text)],
        Size::FORMAT => vec![size(text)],
        RateText::FORMAT => rates(text),
        QuotaText::FORMAT => quotas(text),
        Timestamp::FORMAT => vec![format!("{text}T00:00:00Z"), format!("{text}Z")],
        Host::FORMAT => hosts(text),
        Path::FORMAT => paths(text),
        Address::FORMAT => addresses(text),
        Listen::FORMAT => listen_addresses(text),
        Network::FORMAT => vec![text.replace("localhost", "127.0.0.1"), before(text, ':')],
        Field::FORMAT => vec![field(text)],
        MethodName::FORMAT => vec![text.to_ascii_uppercase()],
        KeySource::FORMAT => vec![format!("file:{text}")],
        Name::FORMAT => vec![name(text)],
        Header::FORMAT => vec![text.trim_end_matches(':').replace([' ', '_'], "-")],
        Statuses::FORMAT => vec![text.to_ascii_lowercase().replace("**", "xx").replace([' ', '|'], ",")],
        _ => Vec::new(),
    };
    let is_right = |candidate: &String| check_format(format, candidate).is_some_and(|checked| checked.is_ok());
    candidates.into_iter().find(|candidate| candidate != text && is_right(candidate))
}

fn before(text: &str, end: char) -> String {
    text.split(end).next().unwrap_or_default().to_owned()
}

/// Splits a number from the word behind it.
fn number_and_word(text: &str) -> (&str, String) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim().to_ascii_lowercase())
}

fn unit(word: &str) -> &str {
    match word {
        "ms" | "msec" | "millis" | "milliseconds" => "ms",
        "m" | "min" | "mins" | "minute" | "minutes" => "m",
        "h" | "hr" | "hrs" | "hour" | "hours" => "h",
        "d" | "day" | "days" => "d",
        _ => "s",
    }
}

fn quotas(text: &str) -> Vec<String> {
    let (count, word) = text.split_once(|c: char| !c.is_ascii_digit()).unwrap_or((text, ""));
    let words = word.split(|c: char| !c.is_ascii_alphabetic()).map(str::to_ascii_lowercase);
    let window = words.filter_map(|word| match word.trim_end_matches('s') {
        "h" | "hour" | "hourly" => Some("hour"),
        "d" | "day" | "daily" => Some("day"),
        "w" | "week" | "weekly" => Some("week"),
        "m" | "mo" | "month" | "monthly" => Some("month"),
        _ => None,
    });
    window.map(|window| format!("{count}/{window}")).collect()
}

fn duration(text: &str) -> String {
    let (number, word) = number_and_word(text);
    format!("{number}{}", unit(&word))
}

fn size(text: &str) -> String {
    let (number, word) = number_and_word(text);
    let unit = match word.as_str() {
        "k" | "kib" => "KiB",
        "m" | "mib" => "MiB",
        "g" | "gib" => "GiB",
        "kb" => "KB",
        "mb" => "MB",
        "gb" => "GB",
        _ => "B",
    };
    format!("{number}{unit}")
}

/// Returns rates for `10r/s` of nginx, `100/minute` and `100 per minute`.
fn rates(text: &str) -> Vec<String> {
    let text = text.replace(" per ", "/");
    let Some((count, period)) = text.split_once('/') else { return vec![format!("{text}/s")] };
    let (number, _) = number_and_word(count.trim());
    let (times, word) = number_and_word(period.trim());
    vec![format!("{number}/{times}{}", unit(&word))]
}

fn hosts(text: &str) -> Vec<String> {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = before(bare, '/');
    let host = host.trim_end_matches('.');
    let name = before(host, ':');
    match name.strip_prefix('.') {
        Some(below) => vec![format!("*.{below}")],
        None if name == "_" || name.is_empty() => vec!["*".to_owned()],
        None => vec![name.clone(), name.replacen('*', "*.", 1)],
    }
}

/// Returns paths for the notations of other routers: `/users/:id`, `/users/<id>`, `/a/**`, `= /a`, `^~ /a`, `^/a`.
fn paths(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(expression) = text.strip_prefix("~*") {
        all.push(format!("~(?i){}", expression.trim()));
    }
    if let Some(prefix) = text.strip_prefix("^~") {
        all.push(format!("{}/*", prefix.trim().trim_end_matches('/')));
    }
    if let Some(exact) = text.strip_prefix('=') {
        all.push(exact.trim().to_owned());
    }
    if text.starts_with('^') || text.contains(['(', '\\', '$', '[', '|']) {
        all.push(format!("~{}{text}", if text.starts_with('/') { "^" } else { "" }));
    }
    let path = text.split_once("://").map_or(text, |(_, rest)| rest.find('/').map_or("/", |at| &rest[at..]));
    let path = before(path, '?');
    let segment = |step: &str| {
        let name = step.strip_prefix(':').or_else(|| step.strip_prefix('<')?.strip_suffix('>')?.rsplit(':').next());
        match (name, step) {
            (Some(name), _) => format!("{{{name}}}"),
            (None, "**") => "*".to_owned(),
            (None, step) => step.to_owned(),
        }
    };
    let steps: Vec<String> = path.split('/').map(segment).collect();
    let joined = steps.join("/");
    all.push(joined.clone());
    all.push(format!("/{joined}"));
    if let Some(prefix) = joined.strip_suffix('*') {
        all.push(format!("~^{}", regex::escape(prefix)));
    }
    let once: Vec<&str> = steps.iter().map(String::as_str).filter(|step| !matches!(*step, "" | "." | "..")).collect();
    all.push(format!("/{}", once.join("/")));
    all
}

/// Returns a host without a scheme, and what follows it.
fn authority(text: &str) -> (&str, &str) {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    (rest.split('/').next().unwrap_or_default(), if scheme == "https" { "443" } else { "80" })
}

fn addresses(text: &str) -> Vec<String> {
    let (host, port) = authority(text);
    let bare = host.strip_suffix(":0").unwrap_or(host);
    vec![host.to_owned(), format!("{bare}:{port}"), format!("[{bare}]:{port}")]
}

fn listen_addresses(text: &str) -> Vec<String> {
    let (host, port) = authority(text);
    let port = if port == "443" { "8443" } else { "8080" };
    let named = host.replace("localhost", "127.0.0.1").replace('*', "0.0.0.0");
    vec![named.clone(), format!("0.0.0.0{named}"), format!("0.0.0.0:{named}"), format!("{named}:{port}")]
}

/// Returns a field for a JSON path, a JSON pointer, and elements of arrays: `$.a`, `/a/b`, `a[*].b`, `a["b"]`.
fn field(text: &str) -> String {
    let text = text.strip_prefix('$').map_or(text.to_owned(), |path| path.replace("..", ".**."));
    let text = text.replace(['[', '/'], ".").replace([']', '"', '\''], "");
    let steps = text.split('.').filter(|step| !step.is_empty());
    let steps: Vec<&str> =
        steps.map(|step| if step.bytes().all(|b| b.is_ascii_digit()) { "*" } else { step }).collect();
    // Fields look into arrays by themselves.
    let end = steps.iter().rposition(|step| *step != "*").map_or(0, |at| at + 1);
    steps[..end].join(".")
}

fn name(text: &str) -> String {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.chars().take(64).map(|c| if fine(c) { c } else { '-' }).collect::<String>().trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notations_of_others_are_spelled() {
        for (format, text, right) in [
            (Field::FORMAT, "$.user.ssn", "user.ssn"),
            (Field::FORMAT, "/user/ssn", "user.ssn"),
            (Field::FORMAT, "items[*].cost", "items.*.cost"),
            (Field::FORMAT, "items[*]", "items"),
            (Field::FORMAT, "items[0]['cost']", "items.*.cost"),
            (Field::FORMAT, "$..ssn", "**.ssn"),
            (Host::FORMAT, ".example.com", "*.example.com"),
            (Host::FORMAT, "_", "*"),
            (Host::FORMAT, "https://a.example:443/x", "a.example"),
            (Host::FORMAT, "*example.com", "*.example.com"),
            (Path::FORMAT, "/c/:id/x", "/c/{id}/x"),
            (Path::FORMAT, "/c/<int:id>", "/c/{id}"),
            (Path::FORMAT, "/c/**", "/c/*"),
            (Path::FORMAT, "^/v[0-9]", "~^/v[0-9]"),
            (Path::FORMAT, "= /a", "/a"),
            (Path::FORMAT, "^~ /a/", "/a/*"),
            (Path::FORMAT, "~* \\.jpg$", "~(?i)\\.jpg$"),
            (Path::FORMAT, "/users*", "~^/users"),
            (Path::FORMAT, "a/b", "/a/b"),
            (Path::FORMAT, "/a/../b", "/a/b"),
            (Path::FORMAT, "/a?b=c", "/a"),
            (Address::FORMAT, "10.0.0.1", "10.0.0.1:80"),
            (Address::FORMAT, "https://users.internal/x", "users.internal:443"),
            (Address::FORMAT, "http://10.0.0.1:9000", "10.0.0.1:9000"),
            (Address::FORMAT, "::1", "[::1]:80"),
            (Listen::FORMAT, "localhost", "127.0.0.1:8080"),
            (Listen::FORMAT, "localhost:80", "127.0.0.1:80"),
            (Listen::FORMAT, ":8080", "0.0.0.0:8080"),
            (Listen::FORMAT, "*:8080", "0.0.0.0:8080"),
            (Listen::FORMAT, "8080", "0.0.0.0:8080"),
            (Duration::FORMAT, "10 sec", "10s"),
            (Duration::FORMAT, "2min", "2m"),
            (Size::FORMAT, "1mb", "1MB"),
            (Size::FORMAT, "8k", "8KiB"),
            (QuotaText::FORMAT, "1000/d", "1000/day"),
            (QuotaText::FORMAT, "5000 per month", "5000/month"),
            (Timestamp::FORMAT, "2027-01-31", "2027-01-31T00:00:00Z"),
            (RateText::FORMAT, "10r/s", "10/s"),
            (RateText::FORMAT, "100 per minute", "100/m"),
            (RateText::FORMAT, "5/10sec", "5/10s"),
            (MethodName::FORMAT, "get", "GET"),
            (KeySource::FORMAT, "keys.json", "file:keys.json"),
            (Name::FORMAT, "my api", "my-api"),
            (Statuses::FORMAT, "5**", "5xx"),
        ] {
            assert_eq!(spelling(format, text).as_deref(), Some(right), "{format}: {text}");
        }
        assert_eq!(spelling(Host::FORMAT, "é.com"), None);
        assert_eq!(spelling(Duration::FORMAT, "soon"), None);
    }
}
