//! `health.active` of kind udp or dns.

use crate::config::{ActiveHealth, DnsRecordType, UdpProbeConfig};
use crate::notation::{Mistakes, Place};
use crate::upstreams::{DatagramProbe, DnsProbe, ProbeKind};

/// The longest name of the DNS as text (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// The longest request: it fits into a packet of any network in use.
const MAX_REQUEST: usize = 1_200;

/// Returns the probe for targets for datagrams, if there is one.
pub fn compile(active: &ActiveHealth, place: &Place, mistakes: &mut Mistakes) -> Option<ProbeKind> {
    let count = [active.path.is_some(), active.grpc.is_some(), active.udp.is_some(), active.dns.is_some()];
    let is_own = active.udp.is_some() || active.dns.is_some();
    if is_own && count.into_iter().filter(|is_set| *is_set).count() > 1 {
        mistakes.add(place, "expected at most one of path, grpc, udp and dns");
    }
    if let Some(dns) = &active.dns {
        let name = dns.name.trim_end_matches('.');
        let is_label =
            |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_graphic());
        if name.len() > MAX_NAME || !name.is_empty() && !name.split('.').all(is_label) {
            mistakes.add(&place.key("dns").key("name"), "expected a name such as example.com");
        }
        return Some(ProbeKind::Dns(DnsProbe { name: name.to_owned(), kind: record_type(dns.kind) }));
    }
    let udp = active.udp.as_ref()?;
    Some(ProbeKind::Udp(of_request(udp, &place.key("udp"), mistakes)))
}

fn of_request(udp: &UdpProbeConfig, place: &Place, mistakes: &mut Mistakes) -> DatagramProbe {
    let mut bytes = |text: &Option<String>, hex: &Option<String>, keys: [&'static str; 2]| match (text, hex) {
        (Some(_), Some(_)) => {
            mistakes.add(place, format!("expected at most one of {} and {}", keys[0], keys[1]));
            None
        }
        (Some(text), None) => Some(text.as_bytes().to_vec()),
        (None, Some(hex)) => {
            let bytes = from_hex(hex);
            if bytes.is_none() {
                mistakes.add(&place.key(keys[1]), "expected an even number of hexadecimal digits");
            }
            bytes
        }
        (None, None) => None,
    };
    let request = bytes(&udp.send, &udp.send_hex, ["send", "send_hex"]).unwrap_or_default();
    let expected = bytes(&udp.expect, &udp.expect_hex, ["expect", "expect_hex"]);
    if request.is_empty() && udp.send_hex.is_none() {
        mistakes.add(place, "expected send or send_hex: without a request there is no response");
    }
    if request.len() > MAX_REQUEST {
        mistakes.add(place, format!("expected at most {MAX_REQUEST} bytes to send"));
    }
    DatagramProbe { request, expected }
}

/// Returns the bytes of hexadecimal digits, among which there may be spaces.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .map(|c| Some(c.to_digit(16)? as u8))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Returns the number of a record type (RFC 1035, section 3.2.2; RFC 3596; RFC 2782).
fn record_type(kind: DnsRecordType) -> u16 {
    match kind {
        DnsRecordType::A => 1,
        DnsRecordType::Ns => 2,
        DnsRecordType::Cname => 5,
        DnsRecordType::Soa => 6,
        DnsRecordType::Ptr => 12,
        DnsRecordType::Mx => 15,
        DnsRecordType::Txt => 16,
        DnsRecordType::Aaaa => 28,
        DnsRecordType::Srv => 33,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_digits_may_be_apart() {
        assert_eq!(from_hex("00 ff1A").as_deref(), Some(&[0, 255, 26][..]));
        assert_eq!(from_hex(""), Some(Vec::new()));
        assert_eq!((from_hex("0"), from_hex("0g")), (None, None));
    }
}
