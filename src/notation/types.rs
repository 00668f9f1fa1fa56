//! The types of the notation.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::text::text_type;
use super::units::{self, Quota, Rate};
use crate::rules::identity::PasswordHash;
use crate::rules::payload::FieldPath;
use crate::rules::routing::{HostPattern, PathPattern};

text_type!(
    /// A length of time: `500ms`, `30s`, `5m`, `1h`, `1d`.
    #[derive(PartialEq)]
    Duration(std::time::Duration), "duration", ["500ms", "30s", "5m"], units::parse_duration
);

text_type!(
    /// A size in bytes: `64KiB`, `1MiB`, `10MB`.
    #[derive(PartialEq)]
    Size(u64), "size", ["64KiB", "1MiB"], units::parse_size
);

text_type!(
    /// A number in a period: `100/s`, `1000/h`, `20/10s`.
#[derive(PartialEq)]
        RateText(Rate), "rate", ["100/s", "1000/h"], str::parse
);

text_type!(
    /// A number of bytes per second: `64KiB/s`, `1MiB/s`.
    ByteRate(u64), "byte-rate", ["64KiB/s", "1MiB/s"], units::parse_byte_rate
);

text_type!(
    /// The offset of a clock from UTC: `+02:00`, `-05:30`.
    UtcOffset(i64), "utc-offset", ["+02:00", "-05:30"], units::parse_utc_offset
);

text_type!(
    /// A number in a calendar window: `5000/day`, `1000000/month`.
    QuotaText(Quota), "quota", ["5000/day", "1000000/month"], str::parse
);

text_type!(
    /// A network or one address: `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.7`.
    Network(ipnet::IpNet), "network", ["10.0.0.0/8", "192.0.2.7"], |text| {
        let net = text.parse::<ipnet::IpNet>().or_else(|_| text.parse::<IpAddr>().map(Into::into));
        net.map(|n| n.trunc()).map_err(|_| "a network such as 10.0.0.0/8 or an address such as 192.0.2.7".to_owned())
    }
);

text_type!(
    /// An address without a port: `192.0.2.7`, `2001:db8::7`.
    IpAddress(IpAddr), "ip-address", ["192.0.2.7", "2001:db8::7"], |text| {
        text.parse().map_err(|_| "an address without a port such as 192.0.2.7".to_owned())
    }
);

/// Networks, or the file that lists them.
#[derive(Clone, Debug)]
pub enum NetworkSource {
    /// One network.
    Network(ipnet::IpNet),
    /// A file with one network a line, read again when it changes.
    File(PathBuf),
}

text_type!(
    /// A network, an address, or a file with one of them a line, which is read again when it changes: `10.0.0.0/8`,
    /// `192.0.2.7`, `file:denied.txt`.
    Networks(NetworkSource), "networks", ["10.0.0.0/8", "file:denied.txt"], |text| match text.strip_prefix("file:") {
        Some("") => Err("a path after file:".to_owned()),
        Some(path) => Ok(NetworkSource::File(path.into())),
        None => text.parse::<Network>().map(|network| NetworkSource::Network(network.0)).map_err(|wanted| {
            format!("{wanted}, or file: and the path of a list")
        }),
    }
);

text_type!(
    /// A host to match: `api.example.com`, `*.example.com` (any depth), `*`.
    Host(HostPattern), "host-pattern", ["api.example.com", "*.example.com"], str::parse
);

text_type!(
    /// A path to match: `/a/b`, `/a/{id}`, `/a/*` (a prefix by segments), `~^/a/[0-9]+$` (an expression).
    Path(PathPattern), "path-pattern", ["/api/v1/users/*", "/users/{id}", "~^/v[0-9]+/"], str::parse
);

text_type!(
    /// A regular expression (the syntax of Rust's `regex`: no look-around, linear in time).
    Pattern(regex::Regex), "regular-expression", ["^v[0-9]+$"], |text| {
        let why = |e: regex::Error| {
            format!("a regular expression: {}", e.to_string().lines().last().unwrap_or_default())
        };
        regex::RegexBuilder::new(text).size_limit(1 << 20).build().map_err(why)
    }
);

text_type!(
    /// The name of a header, in any case.
    Header(http::HeaderName), "header-name", ["x-api-key"], |text| {
        text.parse().map_err(|_| "a header name such as x-api-key".to_owned())
    }
);

text_type!(
    /// The value of a header.
    HeaderText(http::HeaderValue), "header-value", ["no-store"], |text| {
        http::HeaderValue::from_str(text).map_err(|_| "a header value of visible ASCII characters".to_owned())
    }
);

text_type!(
    /// A method, in upper case.
    MethodName(http::Method), "method", ["GET", "POST"], |text| {
        if matches!(text, "ANY" | "ALL") {
            return Err("a method in upper case; without the key all methods match".to_owned());
        }
        let upper = !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
        let wanted = || format!("a method in upper case{}", super::nearest(&text.to_ascii_uppercase(), known));
        if !upper || text == "CONNECT" {
            return Err(wanted());
        }
        text.parse().map_err(|_| wanted())
    }
);

text_type!(
    /// A host or an address, with a port: `10.0.0.11:9001`, `users.internal:80`, `[::1]:80`.
    Address((String, u16)), "address", ["10.0.0.11:9001", "users.internal:80"], |text| {
        let wanted = || "an address with a port such as 10.0.0.11:9001 or users.internal:80".to_owned();
        let (host, port) = text.rsplit_once(':').ok_or_else(wanted)?;
        let port: u16 = port.parse().ok().filter(|p| *p > 0).ok_or_else(wanted)?;
        let name = |h: &str| !h.is_empty() && h.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' |
        b'.' | b'_'));
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        match bare {
            Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => Ok((v6.to_owned(), port)),
            None if name(host) => Ok((host.to_owned(), port)),
            _ => Err(wanted()),
        }
    }
);

text_type!(
    /// An address to listen on: `0.0.0.0:8080`, `[::]:8443`; port 0 takes a free one.
    Listen(SocketAddr), "listen-address", ["0.0.0.0:8080", "[::]:8443"], |text| {
        text.parse().map_err(|_| "an address and port to listen on, such as 0.0.0.0:8080 or [::]:8443".to_owned())
    }
);

text_type!(
    /// A part of a JSON document: `ssn`, `user.address.street`, `items.*.cost`, `**.internal`, `items[0].cost`,
    /// `/items/0/cost` (RFC 6901), `$..internal` (RFC 9535).
    Field(FieldPath), "field", ["ssn", "**.internal"], str::parse
);

text_type!(
    /// A SHA-256 digest in 64 hexadecimal digits.
    Digest([u8; 32]), "sha256", ["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"], |text| {
        let wanted = || "a SHA-256 digest in 64 hexadecimal digits".to_owned();
        if text.len() != 64 || !text.is_ascii() {
            return Err(wanted());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wanted())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wanted())?;
        }
        Ok(digest)
    }
);

text_type!(
    /// The SHA-256 fingerprint of a certificate, as `openssl x509 -noout -fingerprint -sha256` prints it: 64
    /// hexadecimal digits, with or without colons.
    #[derive(PartialEq, Eq, Hash)]
    Fingerprint([u8; 32]), "fingerprint",
    ["E3:B0:C4:42:98:FC:1C:14:9A:FB:F4:C8:99:6F:B9:24:27:AE:41:E4:64:9B:93:4C:A4:95:99:1B:78:52:B8:55"], |text| {
        let wanted = |_| "the SHA-256 fingerprint of a certificate, 64 hexadecimal digits".to_owned();
        text.replace(':', "").parse::<Digest>().map(|digest| digest.0).map_err(wanted)
    }
);

text_type!(
    /// An alternative name of a certificate: a DNS name, a URI such as a SPIFFE identity, or an address for mail.
    /// `DNS:`, `URI:`, `email:` or `IP:` before it says which, as OpenSSL writes it.
    AlternativeName(String), "alternative-name", ["app.example.com", "spiffe://example.org/app"], |text| {
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err("an alternative name such as app.example.com or spiffe://example.org/app".to_owned());
        }
        if ["URI:", "email:", "IP:"].iter().any(|kind| text.starts_with(kind)) {
            return Ok(text.to_owned());
        }
        let bare = text.strip_prefix("DNS:").unwrap_or(text);
        Ok(if text.contains("://") {
            format!("URI:{text}")
        } else if text.contains('@') {
            format!("email:{text}")
        } else {
            format!("DNS:{}", bare.to_ascii_lowercase())
        })
    }
);

/// The source of a key set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub enum KeySetSource {
    /// A file, read again when it changes.
    File(PathBuf),
    /// A URL, fetched again in the background.
    Url(String),
    /// The keys of an issuer, found by its metadata (OpenID Connect Discovery 1.0).
    Issuer(String),
}

text_type!(
    /// The source of a key set (JWKS, RFC 7517): `file:jwks.json` or `https://…`.
    KeySource(KeySetSource), "key-source", ["file:jwks.json", "https://id.example.com/jwks.json"], |text| {
        let wanted = || "file: and a path, or an http(s) URL".to_owned();
        if let Some(path) = text.strip_prefix("file:") {
            return if path.is_empty() { Err(wanted()) } else { Ok(KeySetSource::File(path.into())) };
        }
        let url = text.parse::<http::Uri>().map_err(|_| wanted())?;
        let fine = matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|h| !h.is_empty());
        if fine { Ok(KeySetSource::Url(text.to_owned())) } else { Err(wanted()) }
    }
);

text_type!(
    /// The URL of a server that the gateway calls: `https://id.example.com/introspect`.
    CallUrl(http::Uri), "call-url", ["https://id.example.com/introspect"], |text| {
        let wanted = || "an http(s) URL without a user and a fragment".to_owned();
        let url = text.parse::<http::Uri>().map_err(|_| wanted())?;
        let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let has_host = url.host().is_some_and(|host| !host.is_empty()) && !authority.contains('@');
        let fine = matches!(url.scheme_str(), Some("http" | "https")) && has_host && !text.contains('#');
        if fine { Ok(url) } else { Err(wanted()) }
    }
);

text_type!(
    /// The issuer of an OpenID provider, exactly as it is in its tokens: `https://id.example.com`.
    IssuerUrl(String), "issuer-url", ["https://id.example.com"], |text| {
        text.parse::<CallUrl>().map_err(|wanted| format!("{wanted}, as in tokens"))?;
        if text.contains('?') { Err("an http(s) URL without a query".to_owned()) } else { Ok(text.to_owned()) }
    }
);

impl CallUrl {
    /// Returns whether the call uses TLS.
    pub fn is_secure(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// Returns the URL without its path and query: what the calls depend on.
    pub fn origin(&self) -> String {
        let authority = self.0.authority().map_or("", http::uri::Authority::as_str);
        format!("{}://{authority}", self.0.scheme_str().unwrap_or_default())
    }
}

text_type!(
    /// Statuses: `200`, `200-299`, `2xx`, or several with commas.
    #[derive(PartialEq, Eq, Hash)]
    Statuses(Vec<(u16, u16)>), "statuses", ["200-399", "2xx,404"], |text| {
        let wanted = || "statuses such as 200, 200-299, 2xx or 2xx,404".to_owned();
        let one = |part: &str| -> Option<(u16, u16)> {
            let part = part.trim();
            if let Some(class) = part.strip_suffix("xx") {
                let class: u16 = class.parse().ok()?;
                return Some((class * 100, class * 100 + 99));
            }
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            Some((from.trim().parse().ok()?, to.trim().parse().ok()?))
        };
        let ranges: Option<Vec<_>> = text.split(',').map(one).collect();
        ranges.filter(|r| r.iter().all(|(a, b)| a <= b && *a >= 100 && *b <= 599)).ok_or_else(wanted)
    }
);

impl Statuses {
    /// Returns whether the status is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(from, to)| (*from..=*to).contains(&status))
    }
}

text_type!(
    /// A time as RFC 3339 has it: `2027-01-31T00:00:00Z`; seconds of Unix time.
    Timestamp(u64), "timestamp", ["2027-01-31T00:00:00Z"], |text| {
        let time = chrono::DateTime::parse_from_rfc3339(text).ok().and_then(|time| time.timestamp().try_into().ok());
        time.ok_or_else(|| "a time such as 2027-01-31T00:00:00Z".to_owned())
    }
);

text_type!(
    /// A name: letters, digits, `-`, `_` and `.`, at most 64.
    Name(String), "name", ["users"], |text| {
        let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || text.len() > 64 || !text.chars().all(fine) {
            return Err("a name of at most 64 letters, digits, -, _ and .".to_owned());
        }
        Ok(text.to_owned())
    }
);

/// A secret, which neither `Debug` nor an error shows.
#[derive(Clone)]
pub struct SecretText(String);

impl SecretText {
    /// Returns the secret itself, which must never be shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

text_type!(
    /// A secret, best as `${env:NAME}` or `${file:PATH}`.
    Secret(SecretText), "secret", ["${env:API_KEY}", "${file:/run/secrets/key}"], |text| {
        if text.is_empty() { Err("a secret that is not empty".to_owned()) } else { Ok(SecretText(text.to_owned())) }
    }
);

text_type!(
    /// The hash of a password, as `portcullis hash` makes it: argon2id (`$argon2id$…`), or bcrypt (`$2a$`, `$2b$`,
    /// `$2y$`).
    HashText(PasswordHash), "password-hash", ["$argon2id$v=19$m=19456,t=2,p=1$…"], str::parse
);

text_type!(
    /// The path of a file that is read when the configuration is loaded. Its content is a part of the configuration:
    /// a changed file is loaded by the next reload, and by `process.watch`.
    File(PathBuf), "file", ["tls/api.pem"], |text| {
        if text.is_empty() { Err("the path of a file".to_owned()) } else { Ok(text.into()) }
    }
);

text_type!(
    /// The path of a file that is read again whenever it changes, without a reload.
    FollowedFile(PathBuf), "followed-file", ["targets.yaml"], |text| {
        if text.is_empty() { Err("the path of a file".to_owned()) } else { Ok(text.into()) }
    }
);

text_type!(
    /// A path at which the gateway creates something, such as a log or a socket.
    FilePath(PathBuf), "path", ["access.log"], |text| {
        if text.is_empty() { Err("a path".to_owned()) } else { Ok(text.into()) }
    }
);

text_type!(
    /// The path of a folder, whose files are read when they are asked for.
    Folder(PathBuf), "folder", ["/srv/www"], |text| {
        if text.is_empty() { Err("the path of a folder".to_owned()) } else { Ok(text.into()) }
    }
);

text_type!(
    /// The name of a query parameter whose value is a credential: no log shows it.
    SecretParameter(String), "secret-parameter", ["access_token"], |text| {
        if text.is_empty() { Err("the name of a query parameter".to_owned()) } else { Ok(text.to_owned()) }
    }
);

macro_rules! as_path {
    ($($name:ident),*) => {
        $(impl AsRef<std::path::Path> for $name {
            fn as_ref(&self) -> &std::path::Path {
                &self.0
            }
        })*
    };
}

as_path!(File, FollowedFile, FilePath, Folder);

// The schema has the defaults of types that can be serialised in the form in which they are read.
impl serde::Serialize for Listen {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
