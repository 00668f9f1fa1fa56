//! Texts that are no YAML: what to write instead, and whose configuration it is if it is another program's.

use super::tree::BadYaml;

/// The first words of lines by which a configuration of another program is known, and how such a line ends.
const PROGRAMS: [(&str, &[&str], Option<char>); 5] = [
    ("nginx", &["server", "http", "events", "upstream", "location"], Some('{')),
    ("nginx", &["worker_processes", "listen", "server_name", "proxy_pass", "include", "root"], Some(';')),
    ("Caddy", &["reverse_proxy", "file_server", "handle", "handle_path", "php_fastcgi", "respond"], None),
    ("HAProxy", &["frontend", "backend", "defaults", "global", "bind"], None),
    ("Apache", &["<VirtualHost", "ProxyPass", "LoadModule", "ServerName"], None),
];

/// Returns the name of the program whose configuration a text is, if that is known.
fn program(text: &str) -> Option<&'static str> {
    text.lines().take(200).find_map(|line| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let word = line.split_whitespace().next()?;
        let found =
            PROGRAMS.iter().find(|(_, words, end)| words.contains(&word) && end.is_none_or(|c| line.ends_with(c)));
        found.map(|(program, ..)| *program)
    })
}

/// Adds to an error what to write instead, where the text shows that. Nothing of the text is quoted: it may be any
/// file.
pub fn describe(text: &str, bad: BadYaml) -> BadYaml {
    let hint = match program(text) {
        Some(program) => format!(
            "; it looks like a configuration of {program}, and this one is YAML: `portcullis init` writes a first one"
        ),
        None => line_hint(text, &bad).map(|hint| format!("; {hint}")).unwrap_or_default(),
    };
    BadYaml { text: format!("{}{hint}", bad.text), ..bad }
}

/// Returns what to write instead in the line of an error, or in the one before it.
fn line_hint(text: &str, bad: &BadYaml) -> Option<&'static str> {
    let last = bad.spot.line as usize;
    let lines = || text.lines().skip(last.saturating_sub(2)).take(if last > 1 { 2 } else { 1 });
    if lines().any(|line| line.trim_start_matches(' ').starts_with('\t')) {
        return Some("YAML is indented with spaces and not with tabs");
    }
    if lines().any(|line| has_braces_within(&unquoted(line))) {
        return Some("within {…} and […] a text with braces is written in quotes: {path: \"/users/{id}\"}");
    }
    if ["anchor", "alias"].iter().any(|word| bad.text.contains(word)) {
        return Some("a text that begins with * or & is written in quotes");
    }
    if bad.text.contains("character") || bad.text.contains("token") {
        return Some("a text that begins with @, `, % or another sign is written in quotes");
    }
    if lines().any(|line| unquoted(line).matches(": ").count() > 1) {
        return Some("a text with a colon and a space in it is written in quotes");
    }
    None
}

/// Returns a line without what stands in quotes.
fn unquoted(line: &str) -> String {
    let (mut out, mut quote) = (String::new(), None);
    for c in line.chars() {
        match quote {
            Some(open) if open == c => quote = None,
            Some(_) => {}
            None if matches!(c, '"' | '\'') => quote = Some(c),
            None => out.push(c),
        }
    }
    out
}

/// Returns whether a text without quotes has a brace in it, which begins or ends a mapping there.
fn has_braces_within(line: &str) -> bool {
    let mut before = ' ';
    line.contains(['{', '['])
        && line.chars().any(|c| {
            let is_within = c == '{' && !(before.is_whitespace() || matches!(before, ',' | '[' | '{' | ':'));
            before = c;
            is_within
        })
}

#[cfg(test)]
mod tests {
    use super::super::tree::{Size, parse_within};

    fn error(text: &str) -> String {
        parse_within(text, 0, &["routes"], &mut Size::default()).map(|_| ()).expect_err("an error").text
    }

    #[test]
    fn errors_say_what_to_write() {
        for (text, hint) in [
            ("routes: [{match: {path: /u/{id}}, name: x}]", "\"/users/{id}\""),
            ("routes:\n\t- a: b", "not with tabs"),
            ("routes: *.example.com", "* or &"),
            ("routes: @x", "written in quotes"),
            ("a: b: c", "colon"),
            ("server {\n  listen 80;\n}\n", "nginx"),
            ("worker_processes 1;\nevents {\n}\nhttp {\n  server {\n  }\n}\n", "nginx"),
            ("example.com {\n  reverse_proxy 127.0.0.1:9000\n}\n", "Caddy"),
            ("frontend main\n  bind *:80\n  default_backend app\n", "HAProxy"),
            ("just a text", "expected a mapping"),
        ] {
            assert!(error(text).contains(hint), "{text:?}: {}", error(text));
        }
    }
}
