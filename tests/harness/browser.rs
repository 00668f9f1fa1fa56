//! A browser as far as logins need one: it keeps cookies, follows redirects, and knows where hosts are.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::client::{Answer, Connection, head};

/// A cookie, with where it is sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Cookie {
    pub host: String,
    pub path: String,
    pub name: String,
    pub value: String,
}

/// A browser.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    /// The addresses of hosts: `app.test`.
    pub hosts: HashMap<String, SocketAddr>,
    pub cookies: Vec<Cookie>,
}

/// The response to the last request of several, and its URL.
#[derive(Debug)]
pub struct Page {
    pub url: String,
    pub answer: Answer,
}

/// What a browser sends when somebody opens a page.
const NAVIGATION: [(&str, &str); 2] =
    [("accept", "text/html,application/xhtml+xml,*/*;q=0.8"), ("sec-fetch-mode", "navigate")];

impl Browser {
    /// One for which `host` is at that address.
    pub fn at(host: &str, address: SocketAddr) -> Self {
        Self { hosts: HashMap::from([(host.to_owned(), address)]), cookies: Vec::new() }
    }

    /// Sends a request, and takes the cookies of the response.
    #[track_caller]
    pub fn send(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let (host, target) = split(url);
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .filter(|c| c.host == host && target.starts_with(&c.path))
            .map(|c| format!("{}={}", c.name, c.value))
            .collect();
        let (cookies, length) = (cookies.join("; "), body.len().to_string());
        let mut all = vec![("host", host.as_str())];
        all.extend(headers);
        if !cookies.is_empty() {
            all.push(("cookie", &cookies));
        }
        if method == "POST" {
            all.extend([("content-type", "application/x-www-form-urlencoded"), ("content-length", &length)]);
        }
        let to = self.hosts.get(&host).copied().unwrap_or_else(|| host.parse().expect("a known host"));
        let answer = Connection::open(to).ask(head(method, &target, &all) + body);
        for (_, cookie) in answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")) {
            self.take(&host, cookie);
        }
        answer
    }

    fn take(&mut self, host: &str, cookie: &str) {
        let mut parts = cookie.split(';').map(str::trim);
        let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("a pair");
        let attributes: Vec<String> = parts.map(str::to_ascii_lowercase).collect();
        let path = find_path(cookie).unwrap_or_else(|| "/".to_owned());
        self.cookies.retain(|c| !(c.host == host && c.name == name && c.path == path));
        let gone = attributes.iter().any(|a| a == "max-age=0" || a.starts_with("expires=thu, 01 jan 1970"));
        if !gone {
            self.cookies.push(Cookie { host: host.to_owned(), path, name: name.to_owned(), value: value.to_owned() });
        }
    }

    /// Opens a page, without following redirects.
    #[track_caller]
    pub fn open(&mut self, url: &str) -> Answer {
        self.send("GET", url, &NAVIGATION, "")
    }

    /// Follows the redirects of a response until one has a status other than 3xx, or leads to a URL of which `ends`
    /// holds, which is not opened.
    #[track_caller]
    pub fn follow(&mut self, mut url: String, mut answer: Answer, ends: impl Fn(&str) -> bool) -> Page {
        for _ in 0..20 {
            let Some(to) = answer.header("location").filter(|_| (300..400).contains(&answer.status)) else {
                return Page { url, answer };
            };
            url = resolve(&url, to);
            if ends(&url) {
                return Page { url, answer };
            }
            answer = self.open(&url);
        }
        panic!("more than 20 redirects, the last one to {url}");
    }

    /// The names of the cookies of a host, in their order.
    pub fn names(&self, host: &str) -> Vec<&str> {
        self.cookies.iter().filter(|c| c.host == host).map(|c| c.name.as_str()).collect()
    }
}

fn find_path(cookie: &str) -> Option<String> {
    let mut parts = cookie.split(';').map(str::trim);
    parts
        .find(|part| part.get(..5).is_some_and(|key| key.eq_ignore_ascii_case("path=")))
        .map(|part| part[5..].to_owned())
}

fn split(url: &str) -> (String, String) {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(at);
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    (host.to_owned(), target)
}

/// The URL of a `Location` in a response to the request of `base`.
pub fn resolve(base: &str, to: &str) -> String {
    if to.contains("://") {
        return to.to_owned();
    }
    let (scheme, _) = base.split_once("://").expect("an absolute URL");
    match to.strip_prefix("//") {
        Some(other) => format!("{scheme}://{other}"),
        None => format!("{scheme}://{}{to}", split(base).0),
    }
}

/// The value of a parameter in the query of a URL.
pub fn parameter(url: &str, name: &str) -> Option<String> {
    let query = url.split_once('?')?.1;
    let raw = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))?;
    Some(percent_encoding::percent_decode_str(raw).decode_utf8_lossy().into_owned())
}
