//! A cursor over a text of JSON (RFC 8259), which copies nothing but texts with escapes.

use std::borrow::Cow;

/// What is wrong with a text.
pub const MALFORMED: &str = "no valid JSON";

/// A token of JSON.
#[derive(Debug)]
pub enum Token<'j> {
    /// `{`.
    Object,
    /// `[`.
    List,
    /// A text.
    Text(Cow<'j, str>),
    /// A number as it is written.
    Number(&'j str),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// A cursor.
#[derive(Clone, Debug)]
pub struct Cursor<'j> {
    text: &'j str,
    at: usize,
}

impl<'j> Cursor<'j> {
    /// Returns a cursor at the beginning of a text.
    pub fn new(text: &'j str) -> Self {
        Self { text, at: 0 }
    }

    /// Skips spaces, and returns the next octet.
    pub fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    /// Skips that octet if it is the next.
    pub fn eat(&mut self, octet: u8) -> bool {
        let found = self.peek() == Some(octet);
        self.at += usize::from(found);
        found
    }

    /// Skips that octet.
    ///
    /// # Errors
    /// Fails where another is next.
    pub fn expect(&mut self, octet: u8) -> Result<(), &'static str> {
        if self.eat(octet) { Ok(()) } else { Err(MALFORMED) }
    }

    /// Returns whether an object or list that was opened has a next member, and skips the comma before it, or else its
    /// end.
    ///
    /// # Errors
    /// Fails where neither is next.
    pub fn has_next(&mut self, is_first: bool, end: u8) -> Result<bool, &'static str> {
        if self.eat(end) {
            return Ok(false);
        }
        if !is_first {
            self.expect(b',')?;
        }
        Ok(true)
    }

    /// Returns the name of the next member.
    ///
    /// # Errors
    /// Fails where there is none.
    pub fn name(&mut self) -> Result<Cow<'j, str>, &'static str> {
        if self.peek() != Some(b'"') {
            return Err(MALFORMED);
        }
        let name = self.string()?;
        self.expect(b':')?;
        Ok(name)
    }

    /// Returns the next token.
    ///
    /// # Errors
    /// Fails where there is none.
    pub fn token(&mut self) -> Result<Token<'j>, &'static str> {
        let word = |cursor: &mut Self, word: &str, token| {
            if !cursor.text.as_bytes()[cursor.at..].starts_with(word.as_bytes()) {
                return Err(MALFORMED);
            }
            cursor.at += word.len();
            Ok(token)
        };
        match self.peek() {
            Some(b'{') => word(self, "{", Token::Object),
            Some(b'[') => word(self, "[", Token::List),
            Some(b'"') => self.string().map(Token::Text),
            Some(b't') => word(self, "true", Token::Bool(true)),
            Some(b'f') => word(self, "false", Token::Bool(false)),
            Some(b'n') => word(self, "null", Token::Null),
            Some(b'-' | b'0'..=b'9') => self.number().map(Token::Number),
            _ => Err(MALFORMED),
        }
    }

    /// Skips a value, at most `depth` deep.
    ///
    /// # Errors
    /// Fails where there is none.
    pub fn skip(&mut self, depth: u32) -> Result<(), &'static str> {
        let Some(depth) = depth.checked_sub(1) else { return Err(TOO_DEEP) };
        match self.token()? {
            Token::Object => {
                let mut is_first = true;
                while self.has_next(is_first, b'}')? {
                    is_first = false;
                    self.name()?;
                    self.skip(depth)?;
                }
            }
            Token::List => {
                let mut is_first = true;
                while self.has_next(is_first, b']')? {
                    is_first = false;
                    self.skip(depth)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn number(&mut self) -> Result<&'j str, &'static str> {
        let bytes = &self.text.as_bytes()[self.at..];
        let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut end = usize::from(bytes.first() == Some(&b'-'));
        let whole = digits(end);
        if whole == 0 || whole > 1 && bytes[end] == b'0' {
            return Err(MALFORMED);
        }
        end += whole;
        if bytes.get(end) == Some(&b'.') {
            let fraction = digits(end + 1);
            if fraction == 0 {
                return Err(MALFORMED);
            }
            end += 1 + fraction;
        }
        if let Some(b'e' | b'E') = bytes.get(end) {
            end += 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(end);
            if exponent == 0 {
                return Err(MALFORMED);
            }
            end += exponent;
        }
        let number = &self.text[self.at..self.at + end];
        self.at += end;
        Ok(number)
    }

    /// Returns the text that begins at the cursor.
    fn string(&mut self) -> Result<Cow<'j, str>, &'static str> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut at = start;
        loop {
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Cow::Borrowed(&self.text[start..at]));
                }
                Some(b'\\') => break,
                Some(0x20..) => at += 1,
                _ => return Err(MALFORMED),
            }
        }
        let mut out = self.text[start..at].to_owned();
        loop {
            let run = bytes[at..].iter().take_while(|b| !matches!(b, b'"' | b'\\' | ..0x20)).count();
            out.push_str(&self.text[at..at + run]);
            at += run;
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Cow::Owned(out));
                }
                Some(b'\\') => {
                    let (c, length) = escape(&bytes[at + 1..]).ok_or(MALFORMED)?;
                    out.push(c);
                    at += 1 + length;
                }
                _ => return Err(MALFORMED),
            }
        }
    }
}

/// What is wrong with a value within too many others.
pub const TOO_DEEP: &str = "at most 100 values within each other";

/// Returns the character of an escape, and the length of what follows the backslash.
fn escape(bytes: &[u8]) -> Option<(char, usize)> {
    let hex = |at: usize| {
        let digits = bytes.get(at..at + 4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    Some(match bytes.first()? {
        b'u' => {
            let first = hex(1)?;
            if !(0xd800..0xdc00).contains(&first) {
                return Some((char::from_u32(first)?, 5));
            }
            let second = hex(7).filter(|second| bytes[5..7] == *b"\\u" && (0xdc00..0xe000).contains(second))?;
            return Some((char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))?, 11));
        }
        c @ (b'"' | b'\\' | b'/') => (char::from(*c), 1),
        b'b' => ('\u{8}', 1),
        b'f' => ('\u{c}', 1),
        b'n' => ('\n', 1),
        b'r' => ('\r', 1),
        b't' => ('\t', 1),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    /// Returns the value at the cursor.
    fn value(cursor: &mut Cursor<'_>) -> Result<Value, &'static str> {
        Ok(match cursor.token()? {
            Token::Null => Value::Null,
            Token::Bool(value) => value.into(),
            Token::Number(text) => serde_json::from_str(text).map_err(|_| MALFORMED)?,
            Token::Text(text) => text.into_owned().into(),
            Token::List => {
                let mut list = Vec::new();
                while cursor.has_next(list.is_empty(), b']')? {
                    list.push(value(cursor)?);
                }
                list.into()
            }
            Token::Object => {
                let (mut members, mut is_first) = (serde_json::Map::new(), true);
                while cursor.has_next(is_first, b'}')? {
                    is_first = false;
                    let name = cursor.name()?.into_owned();
                    members.insert(name, value(cursor)?);
                }
                members.into()
            }
        })
    }

    fn whole(text: &str) -> Result<Value, &'static str> {
        let mut cursor = Cursor::new(text);
        let value = value(&mut cursor)?;
        if cursor.peek().is_none() { Ok(value) } else { Err(MALFORMED) }
    }

    #[test]
    fn texts_are_read_as_serde_reads_them() {
        for text in [
            r#"{"a":[1,-0.5e+3,"\u00e9\ud83d\ude08\n\/",true,false,null],"b":{}} "#,
            "[]",
            "[1,]",
            "[,1]",
            "{\"a\" 1}",
            "{a:1}",
            "01",
            "1.",
            "-",
            "1e",
            "\"\u{1}\"",
            "\"\\ud800\"",
            "\"\\ud800\\n\"",
            "\"\\x\"",
            "\"",
            "nul",
            "tru",
            "{",
            "[1 2]",
            "{\"a\":1,}",
            "",
            "\"\\u12\"",
            "1 1",
            "\"\\udc00\"",
            "+1",
            "[[]",
            "\"é\\té\"",
        ] {
            assert_eq!(whole(text).ok(), serde_json::from_str(text).ok(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_as_serde_reads_it(text in r#"[\[\]{}:,"\\ue0-9.tn -]{0,24}"#) {
            // A number out of range of a double is a number still.
            let (own, serde) = (whole(&text).ok(), serde_json::from_str::<Value>(&text).ok());
            prop_assert_eq!(own, serde);
            let mut cursor = Cursor::new(&text);
            let skipped = cursor.skip(100).is_ok() && cursor.peek().is_none();
            prop_assert!(!skipped || whole(&text).is_ok() || text.contains(['e', '.']) );
        }
    }
}
