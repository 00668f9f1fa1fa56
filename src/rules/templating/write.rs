//! The output of a template, put together and bounded.

use std::io;

use super::OutputForm;
use super::format::{JSON, JSON_END, TEXT, TEXT_END};

/// The output so far.
pub(super) struct Written {
    form: OutputForm,
    out: String,
    most: usize,
    /// Whether the template's own JSON is within a text, and whether its next character is escaped.
    in_text: bool,
    escaped: bool,
    value: MarkedValue,
    too_long: bool,
}

/// The value that is being written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MarkedValue {
    /// It is the template's own text.
    None,
    Text,
    Json,
}

impl Written {
    pub(super) fn new(form: OutputForm, most: usize) -> Self {
        let out = String::new();
        Self { form, out, most, in_text: false, escaped: false, value: MarkedValue::None, too_long: false }
    }

    /// Returns the output.
    ///
    /// # Errors
    /// Returns an error where it should be JSON and is not.
    pub(super) fn finish(self) -> Result<String, String> {
        if self.form == OutputForm::Json
            && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&self.out)
        {
            return Err(format!("the output is not JSON: {error}"));
        }
        Ok(self.out)
    }

    fn push(&mut self, c: char) {
        match (self.value, c) {
            (MarkedValue::None, TEXT) => {
                self.value = MarkedValue::Text;
                self.out.extend((!self.in_text).then_some('"'));
            }
            (MarkedValue::Text, TEXT_END) => {
                self.value = MarkedValue::None;
                self.out.extend((!self.in_text).then_some('"'));
            }
            (MarkedValue::None, JSON) => self.value = MarkedValue::Json,
            (MarkedValue::Json, JSON_END) => self.value = MarkedValue::None,
            (MarkedValue::Json, '"' | '\\') if self.in_text => self.out.extend(['\\', c]),
            (MarkedValue::None, _) => {
                self.follow(c);
                self.out.push(c);
            }
            _ => self.out.push(c),
        }
    }

    /// Follows the template's own texts.
    fn follow(&mut self, c: char) {
        if self.in_text {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => self.in_text = false,
                _ => {}
            }
        } else if c == '"' {
            self.in_text = true;
        }
    }
}

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.out.len() + bytes.len() > self.most {
            self.too_long = true;
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the output is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData)?;
        if self.form == OutputForm::Json {
            text.chars().for_each(|c| self.push(c));
        } else {
            self.out.push_str(text);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
