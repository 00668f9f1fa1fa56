//! `proxy`: forwards to some targets without a configuration file.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::operator::{address, print_error};
use crate::notation::AdminAddress;
use crate::process::{self, ConfigSource, Options};
use crate::telemetry::say;

/// Forward to some targets without a configuration file
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  portcullis proxy --from :8080 --to 127.0.0.1:9000
  portcullis proxy --from :8443 --tls cert.pem key.pem --to 127.0.0.1:9000 --to 127.0.0.1:9001
  portcullis proxy --to https://example.com --print > portcullis.yaml")]
pub struct Proxy {
    /// The address that accepts requests; :PORT accepts them on all IPv4 addresses
    #[arg(long, value_name = "ADDRESS", default_value = ":8080", value_parser = listen)]
    pub from: SocketAddr,
    /// A target: HOST:PORT, :PORT on this machine, or a URL with http:// or https:// (repeatable)
    #[arg(long, value_name = "TARGET", required = true, value_parser = Target::parse)]
    pub to: Vec<Target>,
    /// Accept requests over TLS, with the certificate chain and the private key in these files
    #[arg(long, num_args = 2, value_names = ["CERT", "KEY"])]
    pub tls: Vec<PathBuf>,
    /// The Host header that the targets receive: keep (the client's), target (the target's own name) or a name.
    /// Default: keep, and target for https://
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// The admin listener, with /metrics and /readyz: ADDRESS:PORT, :PORT on 127.0.0.1, unix:PATH, or none. Default: a
    /// free port on 127.0.0.1, which is logged
    #[arg(long, value_name = "ADDRESS", value_parser = admin)]
    pub admin: Option<AdminAddress>,
    /// Print the configuration that these options stand for, and do not run it
    #[arg(long)]
    pub print: bool,
}

/// A target on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The host and the port.
    address: String,
    /// Whether it is reached over TLS.
    is_tls: bool,
}

impl Target {
    /// Parses a target.
    ///
    /// # Errors
    /// When the text is not a target.
    fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").map_or((None, text), |(scheme, rest)| (Some(scheme), rest));
        let is_tls = match scheme {
            None | Some("http") => false,
            Some("https") => true,
            Some(other) => return Err(format!("{other}:// is not supported: http:// and https:// are")),
        };
        let rest = rest.strip_suffix('/').filter(|_| scheme.is_some()).unwrap_or(rest);
        if rest.is_empty() || rest.contains(['/', '?', '#', '@', '\'', '"']) || rest.contains(char::is_whitespace) {
            return Err("expected a host and a port, such as 127.0.0.1:9000 or https://example.com".to_owned());
        }
        let address = match (rest.strip_prefix(':').unwrap_or(rest).parse::<u16>(), has_port(rest), scheme) {
            (Ok(port), ..) => format!("127.0.0.1:{port}"),
            (_, true, _) => rest.to_owned(),
            (_, false, Some(_)) => format!("{rest}:{}", if is_tls { 443 } else { 80 }),
            (_, false, None) => return Err(format!("the port is missing: {rest}:PORT")),
        };
        Ok(Self { address, is_tls })
    }
}

/// Returns whether a port follows the host, which may be an IPv6 address in brackets.
fn has_port(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'))
}

/// Parses an address to listen on, whose host may be left out.
fn listen(text: &str) -> Result<SocketAddr, String> {
    match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) => Ok(([0, 0, 0, 0], port).into()),
        Err(_) => match address(text) {
            Ok(AdminAddress::Tcp(address)) => Ok(address),
            _ => Err("expected an address such as :8080 or 127.0.0.1:8080".to_owned()),
        },
    }
}

/// Parses the address of the admin listener. Without a host it is one that only this machine reaches.
fn admin(text: &str) -> Result<AdminAddress, String> {
    if text == "none" {
        return Ok(AdminAddress::None);
    }
    match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) => Ok(AdminAddress::Tcp(([127, 0, 0, 1], port).into())),
        Err(_) => address(text).map_err(|_| {
            "expected an address such as :9901, 127.0.0.1:9901 or unix:/run/portcullis/admin.sock, or none".to_owned()
        }),
    }
}

impl Proxy {
    /// Runs to the end, or prints the configuration.
    pub fn execute(self) -> u8 {
        if self.to.iter().any(|target| target.is_tls != self.to[0].is_tls) {
            return print_error("--to: either all targets have https://, or none has");
        }
        let text = self.configuration();
        if self.print {
            say!("{}", text.trim_end());
            return 0;
        }
        let source = ConfigSource::Text { text, name: "command line".to_owned(), base: PathBuf::from(".") };
        process::run(Options { source, upgrade: false })
    }

    /// Returns the configuration that the options stand for.
    fn configuration(&self) -> String {
        let mut text = format!("listeners:\n  - name: public\n    address: {}\n", quoted(self.from));
        if let [cert, key] = &self.tls[..] {
            let (cert, key) = (quoted(cert.display()), quoted(key.display()));
            let _ = write!(text, "    tls:\n      certificates:\n        - cert: {cert}\n          key: {key}\n");
        }
        text.push_str("admin:\n");
        let admin = self.admin.clone().unwrap_or_else(|| AdminAddress::Tcp(([127, 0, 0, 1], 0).into()));
        if matches!(admin, AdminAddress::Tcp(address) if address.port() == 0) {
            text.push_str("  # Port 0 takes a free one.\n");
        }
        let _ = writeln!(text, "  address: {}", quoted(admin));
        text.push_str("log:\n  access: {output: stdout, format: text}\nupstreams:\n  app:\n    targets:\n");
        for target in &self.to {
            let _ = writeln!(text, "      - {}", quoted(&target.address));
        }
        let is_tls = self.to.iter().any(|target| target.is_tls);
        if is_tls {
            text.push_str("    tls: {}\n");
        }
        if self.to.len() > 1 {
            text.push_str("    # A target that accepts no connection gets no requests.\n");
            text.push_str("    health: {active: {interval: 2s}}\n");
        }
        let host = self.host.as_deref().unwrap_or(if is_tls { "target" } else { "keep" });
        let _ = write!(
            text,
            "routes:\n  - name: all\n    action: {{forward: {{upstream: app, host: {}}}}}\n",
            quoted(host)
        );
        text
    }
}

/// Returns a text as a scalar of YAML, in quotes where it needs them.
fn quoted(text: impl std::fmt::Display) -> String {
    let text = text.to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "./:_-".contains(c);
    match text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/' || c == '.') && text.chars().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_parsed() {
        let parsed = |text: &str| Target::parse(text).map(|target| (target.address, target.is_tls));
        for (text, address, is_tls) in [
            ("127.0.0.1:9000", "127.0.0.1:9000", false),
            (":9000", "127.0.0.1:9000", false),
            ("9000", "127.0.0.1:9000", false),
            ("http://app", "app:80", false),
            ("http://app:81/", "app:81", false),
            ("https://example.com", "example.com:443", true),
            ("https://[::1]", "[::1]:443", true),
            ("[::1]:80", "[::1]:80", false),
        ] {
            assert_eq!(parsed(text), Ok((address.to_owned(), is_tls)), "{text}");
        }
        for text in
            ["app", "", "http://", "tcp://app:80", "http://app/path", "http://user@app", "a b:80", "[::1]", "a'b:1"]
        {
            assert!(parsed(text).is_err(), "{text}");
        }
    }

    #[test]
    fn admin_addresses_are_parsed() {
        for (text, parsed) in [
            (":9901", "127.0.0.1:9901"),
            ("9901", "127.0.0.1:9901"),
            ("[::1]:9901", "[::1]:9901"),
            ("unix:admin.sock", "unix:admin.sock"),
            ("none", "none"),
        ] {
            assert_eq!(admin(text).map(|address| address.to_string()), Ok(parsed.to_owned()), "{text}");
        }
        for text in ["", "unix:", ":99999", "127.0.0.1"] {
            assert!(admin(text).is_err(), "{text}");
        }
    }

    #[test]
    fn texts_are_quoted_where_yaml_needs_it() {
        for (text, written) in
            [("a.pem", "a.pem"), ("it's", "'it''s'"), ("[::]:80", "'[::]:80'"), ("a b", "'a b'"), ("-a", "'-a'")]
        {
            assert_eq!(quoted(text), written);
            assert_eq!(serde_yaml::from_str::<String>(&quoted(text)).expect("YAML"), text);
        }
    }
}
