//! The time that a client of gRPC waits.

use std::time::Duration;

/// Parses the value of `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Timeout").
pub fn parse_timeout(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    let digits = std::str::from_utf8(digits).ok().filter(|d| d.len() <= 8 && d.bytes().all(|b| b.is_ascii_digit()))?;
    let count: u64 = digits.parse().ok()?;
    let nanos: u64 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    Some(Duration::from_nanos(count.saturating_mul(nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_a_unit() {
        assert_eq!(parse_timeout(b"100m"), Some(Duration::from_millis(100)));
        assert_eq!(parse_timeout(b"1H"), Some(Duration::from_secs(3600)));
        assert_eq!(parse_timeout(b"5n"), Some(Duration::from_nanos(5)));
        assert_eq!(parse_timeout(b"99999999H"), Some(Duration::from_nanos(u64::MAX)));
        for wrong in [&b"123456789S"[..], b"", b"S", b"1", b"1s", b"+1S", b"-1S", b" 1S"] {
            assert_eq!(parse_timeout(wrong), None, "{}", String::from_utf8_lossy(wrong));
        }
    }
}
