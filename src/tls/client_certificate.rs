//! The facts about a client's certificate, read once for each connection.

use std::fmt::Write;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

use crate::exchange::PeerCertificate;

/// The most alternative names that are kept of a certificate.
const MAX_NAMES: usize = 100;

/// Returns the facts about a client certificate that has been verified; `None` when it cannot be parsed.
pub fn peer_certificate(chain: &[CertificateDer<'_>]) -> Option<PeerCertificate> {
    let der = chain.first()?;
    let (_, parsed) = X509Certificate::from_der(der).ok()?;
    let mut fingerprint = [0; 32];
    fingerprint.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref());
    let common_name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|extension| &extension.value.general_names).filter_map(alternative_name);
    Some(PeerCertificate {
        subject: distinguished_name(parsed.subject()),
        common_name: common_name.filter(|name| is_plain(name)).map(str::to_owned),
        issuer: distinguished_name(parsed.issuer()),
        names: names.take(MAX_NAMES).collect(),
        serial: hexadecimal(parsed.raw_serial()),
        fingerprint,
        fingerprint_text: hexadecimal(&fingerprint),
        not_after: parsed.validity().not_after.timestamp(),
        der: der.to_vec().into(),
        intermediates: chain[1..].iter().map(|one| one.to_vec().into()).collect(),
    })
}

/// Returns bytes in lower-case hexadecimal digits.
fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns whether a text may stand in a header and a log line.
fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

fn alternative_name(name: &GeneralName<'_>) -> Option<Box<str>> {
    let text = match name {
        GeneralName::DNSName(name) if is_plain(name) => format!("DNS:{}", name.to_ascii_lowercase()),
        GeneralName::RFC822Name(name) if is_plain(name) => format!("email:{name}"),
        GeneralName::URI(name) if is_plain(name) => format!("URI:{name}"),
        GeneralName::IPAddress(octets) => {
            let v4 = <[u8; 4]>::try_from(*octets).ok().map(IpAddr::from);
            let address = v4.or_else(|| <[u8; 16]>::try_from(*octets).ok().map(IpAddr::from))?;
            format!("IP:{address}")
        }
        _ => return None,
    };
    Some(text.into())
}

/// Returns a name as text (RFC 4514): the last part first, with what has a meaning there escaped.
fn distinguished_name(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for part in parts.iter().rev() {
        for (place, attribute) in part.iter().enumerate() {
            if !text.is_empty() {
                text.push(if place == 0 { ',' } else { '+' });
            }
            let oid = attribute.attr_type().to_id_string();
            let value = attribute.as_str().ok();
            match (keyword(&oid), value) {
                (Some(keyword), Some(value)) => {
                    text.push_str(keyword);
                    text.push('=');
                    escape(value, &mut text);
                }
                // RFC 4514, section 2.4: the encoded value in hexadecimal digits.
                _ => {
                    let _ = write!(text, "{oid}=#{}", hexadecimal(attribute.as_slice()));
                }
            }
        }
    }
    text
}

/// Returns the keyword of an attribute (RFC 4514, section 3, and those that certificates have beside these).
fn keyword(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.42" => "GN",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// Appends a value with its special characters escaped (RFC 4514, section 2.4).
fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (place, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            '#' if place == 0 => text.push_str("\\#"),
            ' ' if place == 0 || place == last => text.push_str("\\ "),
            control if control.is_control() => {
                let mut octets = [0; 4];
                for octet in control.encode_utf8(&mut octets).bytes() {
                    let _ = write!(text, "\\{octet:02X}");
                }
            }
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(common_name: &str, names: Vec<rcgen::SanType>) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "Example, Inc.");
        params.distinguished_name.push(rcgen::DnType::CommonName, common_name);
        params.subject_alt_names = names;
        params.serial_number = Some(vec![1, 0xab].into());
        params.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("a certificate").der().clone()
    }

    #[test]
    fn the_facts_of_a_certificate() {
        let uri = rcgen::SanType::URI("spiffe://example.org/a".try_into().expect("a URI"));
        let dns = rcgen::SanType::DnsName("A.example".try_into().expect("a name"));
        let facts = peer_certificate(&[certificate("client one", vec![dns, uri])]).expect("a certificate");
        assert_eq!(facts.subject, "CN=client one,O=Example\\, Inc.");
        assert_eq!(facts.common_name.as_deref(), Some("client one"));
        assert_eq!(facts.serial, "01ab");
        assert_eq!(facts.names_text(), "DNS:a.example, URI:spiffe://example.org/a");
        assert_eq!(facts.fingerprint_text.len(), 64);
    }

    #[test]
    fn a_value_cannot_pretend_to_be_a_further_part() {
        let facts = peer_certificate(&[certificate("a,O=admins\r\nx: y", vec![])]).expect("a certificate");
        assert_eq!(facts.subject, "CN=a\\,O=admins\\0D\\0Ax: y,O=Example\\, Inc.");
        assert_eq!(facts.common_name, None);
        assert_eq!(peer_certificate(&[CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])]), None);
        assert_eq!(peer_certificate(&[]), None);
    }
}
