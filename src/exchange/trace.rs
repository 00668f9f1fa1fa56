//! W3C Trace Context: `traceparent: 00-<32 hex>-<16 hex>-<2 hex>`.

use http::HeaderValue;

/// A request's place in a distributed trace. The gateway is a span of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The id of the whole trace.
    pub trace_id: u128,
    /// The id of the gateway's span.
    pub span_id: u64,
    /// The flags that came; `sampled` for a trace that begins here, since its id is in the access log.
    pub flags: u8,
    /// Whether the trace came with the request; if not, a `tracestate` is not to be forwarded.
    pub continued: bool,
}

impl Trace {
    /// Continues the trace of a valid `traceparent`, or starts one.
    pub fn continue_or_start(came: Option<&[u8]>) -> Self {
        let span_id = fastrand::u64(1..);
        match came.and_then(parse) {
            Some((trace_id, flags)) => Self { trace_id, span_id, flags, continued: true },
            None => Self { trace_id: fastrand::u128(1..), span_id, flags: 1, continued: false },
        }
    }

    /// The `traceparent` for the target.
    pub fn header(&self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        for (pair, byte) in text[3..35].chunks_exact_mut(2).zip(self.trace_id.to_be_bytes()) {
            pair.copy_from_slice(&hex(byte));
        }
        for (pair, byte) in text[36..52].chunks_exact_mut(2).zip(self.span_id.to_be_bytes()) {
            pair.copy_from_slice(&hex(byte));
        }
        text[53..].copy_from_slice(&hex(self.flags));
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// Two lower-case digits.
pub(super) fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

/// The trace id and the flags (section 3.2.2); versions above 00 may carry more behind a dash.
fn parse(text: &[u8]) -> Option<(u128, u8)> {
    let text = std::str::from_utf8(text).ok()?;
    let lower = |t: &str| t.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let mut parts = text.splitn(4, '-');
    let (version, trace, span, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let flags = rest.get(..2)?;
    let tail_fine = rest.len() == 2 || (version != "00" && rest.as_bytes().get(2) == Some(&b'-'));
    let lengths = version.len() == 2 && trace.len() == 32 && span.len() == 16;
    if !lengths || !tail_fine || version == "ff" || ![version, trace, span, flags].iter().all(|t| lower(t)) {
        return None;
    }
    let trace_id = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
    u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
    Some((trace_id, u8::from_str_radix(flags, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continues_a_valid_trace_and_restarts_any_other() {
        let came = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::continue_or_start(Some(came));
        assert!(trace.continued);
        let header = trace.header();
        let text = header.to_str().expect("ascii");
        assert!(text.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && text.ends_with("-01"));
        assert!(!text.contains("00f067aa0ba902b7"));
        for wrong in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf9-00f067aa0ba902b7-01",
        ] {
            assert!(!Trace::continue_or_start(Some(wrong.as_bytes())).continued, "{wrong}");
        }
        assert!(Trace::continue_or_start(Some(b"01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x")).continued);
    }
}
