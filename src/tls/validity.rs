//! The validity of a certificate (RFC 5280, section 4.1.2.5), read without a parser that may panic.

use chrono::{DateTime, NaiveDateTime};
use rustls::sign::CertifiedKey;

/// Tags of DER (X.690).
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Returns from when to when a server's own certificate is valid, in seconds of Unix time. One that does not expire has
/// an end in the year 9999.
pub fn validity(certificate: &CertifiedKey) -> Option<(i64, i64)> {
    validity_of(certificate.cert.first()?)
}

fn validity_of(certificate: &[u8]) -> Option<(i64, i64)> {
    let (certificate, _) = value(certificate, SEQUENCE)?;
    let (mut fields, _) = value(certificate, SEQUENCE)?;
    if fields.first() == Some(&VERSION) {
        fields = element(fields)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (validity, _) = value(fields, SEQUENCE)?;
    let (tag, from, rest) = element(validity)?;
    let from = time(tag, from)?;
    let (tag, to, _) = element(rest)?;
    Some((from, time(tag, to)?))
}

fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let full = match tag {
        // Two digits: 50 and above are of the last century.
        UTC_TIME => format!("{}{text}", if text.get(..2)? >= "50" { "19" } else { "20" }),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let time = NaiveDateTime::parse_from_str(&full, "%Y%m%d%H%M%SZ").ok()?;
    Some(DateTime::<chrono::Utc>::from_naive_utc_and_offset(time, chrono::Utc).timestamp())
}

/// Returns the tag and the value of the first element, and what follows it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    Some((*tag, value, rest))
}

fn value(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|(tag, ..)| *tag == wanted).map(|(_, value, rest)| (value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(year: i32) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(["a.test".to_owned()]).expect("parameters");
        params.not_before = rcgen::date_time_ymd(2025, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 2, 3);
        params.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("a certificate").der().to_vec()
    }

    #[test]
    fn times_are_read_in_both_forms() {
        let from = 1_735_689_600;
        assert_eq!(validity_of(&certificate(2031)), Some((from, 1_927_843_200)));
        assert_eq!(validity_of(&certificate(2061)), Some((from, 2_874_614_400)));
        assert_eq!(time(GENERALIZED_TIME, b"99991231235959Z"), Some(253_402_300_799));
        assert_eq!(time(UTC_TIME, b"991231235959Z"), Some(946_684_799));
    }

    #[test]
    fn what_is_malformed_has_none() {
        let whole = certificate(2031);
        for length in 0..whole.len().min(400) {
            let _ = validity_of(&whole[..length]);
        }
        assert_eq!(validity_of(&whole[..40]), None);
        assert_eq!(validity_of(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
