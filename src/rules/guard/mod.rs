//! Recognition of attacks in the values of a request: SQL and script injection by the tokens that they have (the
//! algorithm of libinjection), everything else by expressions.

mod decode;
mod patterns;
#[cfg(test)]
mod samples_tests;

use std::borrow::Cow;
use std::sync::LazyLock;

pub use decode::canonical;
pub use patterns::{AttackKind, Paranoia};

use patterns::PatternSet;

/// The longest part of a value that is inspected; what is behind it is inspected as further parts, which overlap.
const MAX_PART: usize = 16 * 1024;

/// The overlap of two parts: no pattern needs more.
const OVERLAP: usize = 256;

/// A sign of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    /// The kind of attack.
    pub kind: AttackKind,
    /// The rule that has recognised it.
    pub rule: &'static str,
}

/// A set of kinds of attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttackKinds(u16);

impl AttackKinds {
    /// Returns the set of all kinds.
    pub fn all() -> Self {
        Self(u16::MAX)
    }

    /// Returns the set of these kinds.
    pub fn of(kinds: &[AttackKind]) -> Self {
        Self(kinds.iter().fold(0, |set, kind| set | 1 << *kind as u16))
    }

    /// Returns the set without those of another one.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Returns whether the kind is in the set.
    pub fn has(self, kind: AttackKind) -> bool {
        self.0 & 1 << kind as u16 != 0
    }
}

/// Inspects values at a level of paranoia.
#[derive(Debug)]
pub struct Inspector {
    patterns: PatternSet,
    paranoia: Paranoia,
}

impl Inspector {
    /// Returns the inspector for that level, whose expressions are compiled once.
    pub fn at(paranoia: Paranoia) -> &'static Self {
        static ONE: LazyLock<Inspector> = LazyLock::new(|| Inspector::new(Paranoia::One));
        static TWO: LazyLock<Inspector> = LazyLock::new(|| Inspector::new(Paranoia::Two));
        static THREE: LazyLock<Inspector> = LazyLock::new(|| Inspector::new(Paranoia::Three));
        match paranoia {
            Paranoia::One => &ONE,
            Paranoia::Two => &TWO,
            Paranoia::Three => &THREE,
        }
    }

    fn new(paranoia: Paranoia) -> Self {
        Self { patterns: PatternSet::of(paranoia), paranoia }
    }

    /// Returns a sign of an attack of one of these kinds in a value as the target will read it: `raw` is decoded
    /// first, once more than the target should, since attacks hide behind double encoding.
    pub fn inspect(&self, raw: &[u8], kinds: AttackKinds) -> Option<Sign> {
        if is_harmless(raw) {
            return None;
        }
        let value = canonical(raw);
        let mut from = 0;
        loop {
            let part = &value[from..value.len().min(from + MAX_PART)];
            if let Some(sign) = self.part(part, kinds) {
                return Some(sign);
            }
            if from + MAX_PART >= value.len() {
                return None;
            }
            from += MAX_PART - OVERLAP;
        }
    }

    /// Returns a sign in the value of a header that says what the client is.
    pub fn inspect_client(&self, value: &[u8], kinds: AttackKinds) -> Option<Sign> {
        if kinds.has(AttackKind::Scanner)
            && let Some(rule) = self.patterns.scanner(value)
        {
            return Some(Sign { kind: AttackKind::Scanner, rule });
        }
        // What programs put there often looks like code, so that injection is not looked for below the second level.
        let kinds = match self.paranoia {
            Paranoia::One => {
                kinds.without(AttackKinds::of(&[AttackKind::SqlInjection, AttackKind::CrossSiteScripting]))
            }
            _ => kinds,
        };
        self.inspect(value, kinds)
    }

    /// Returns a sign in the name of a member of a JSON document: operators of document stores stand there.
    pub fn inspect_name(&self, name: &str, kinds: AttackKinds) -> Option<Sign> {
        if kinds.has(AttackKind::SqlInjection) && patterns::STORE_OPERATORS.contains(&name) {
            return Some(Sign { kind: AttackKind::SqlInjection, rule: "nosql_operator" });
        }
        self.inspect(name.as_bytes(), kinds)
    }

    fn part(&self, value: &[u8], kinds: AttackKinds) -> Option<Sign> {
        if kinds.has(AttackKind::SqlInjection) && libinjectionrs::detect_sqli(value).is_injection() {
            return Some(Sign { kind: AttackKind::SqlInjection, rule: "sql_tokens" });
        }
        if kinds.has(AttackKind::CrossSiteScripting) && libinjectionrs::detect_xss(value).is_injection() {
            return Some(Sign { kind: AttackKind::CrossSiteScripting, rule: "markup_tokens" });
        }
        let lower: Cow<'_, [u8]> = match value.iter().any(u8::is_ascii_uppercase) {
            true => Cow::Owned(value.to_ascii_lowercase()),
            false => Cow::Borrowed(value),
        };
        self.patterns.find(&lower, kinds).map(|(kind, rule)| Sign { kind, rule })
    }
}

/// Returns whether a value can be no attack: most values are words and numbers, and cost no more than this.
fn is_harmless(value: &[u8]) -> bool {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b',' | b':' | b'@' | b'.');
    value.iter().all(is_word)
        // A hidden file, a parent folder, and a serialised object of Java in base64.
        && value.first() != Some(&b'.')
        && !value.starts_with(b"rO0AB")
        && memchr::memmem::find(value, b"..").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers_are_harmless_and_long_values_are_inspected_to_their_end() {
        for value in ["", "ada", "2026-11-28T10:00:00", "a.b-c_1", "ada@example", "1,2,3", "example.com:80"] {
            assert!(is_harmless(value.as_bytes()), "{value}");
        }
        for value in ["a b", "..", "a/b", "'", "%27", "a;b", "&#x", ".env", "a+b", "rO0ABXNy"] {
            assert!(!is_harmless(value.as_bytes()), "{value}");
        }
        let inspector = Inspector::at(Paranoia::One);
        let long = format!("{} ; cat /etc/passwd", "word ".repeat(10_000));
        assert!(inspector.inspect(long.as_bytes(), AttackKinds::all()).is_some());
        let other =
            AttackKinds::all().without(AttackKinds::of(&[AttackKind::CommandInjection, AttackKind::FileAccess]));
        assert_eq!(inspector.inspect(long.as_bytes(), other), None);
    }
}
