//! The members of an object and the elements of an array, as they are written.

use serde_json::value::RawValue;

/// Returns the document without the white space around it, if it is one document of JSON.
pub fn is_json(text: &str) -> Option<&str> {
    serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get)
}

/// The members or elements of a valid document, in their order.
#[derive(Clone, Debug)]
pub struct Children<'j> {
    text: &'j str,
    at: usize,
    object: bool,
}

/// One member or element: its name as it is written between the quotes, empty in an array, and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child<'j> {
    /// The name.
    pub name: &'j str,
    /// The value.
    pub value: &'j str,
}

impl<'j> Children<'j> {
    /// Returns the members of an object.
    pub fn of_object(text: &'j str) -> Option<Self> {
        text.starts_with('{').then_some(Self { text, at: 1, object: true })
    }

    /// Returns the elements of an array.
    pub fn of_array(text: &'j str) -> Option<Self> {
        text.starts_with('[').then_some(Self { text, at: 1, object: false })
    }

    /// Skips white space, and the signs that stand between names and values.
    fn skip(&mut self) -> Option<u8> {
        let rest = self.text.as_bytes().get(self.at..)?;
        let blank = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b':');
        let count = rest.iter().position(|byte| !blank(byte))?;
        self.at += count;
        rest.get(count).copied()
    }

    fn take(&mut self, length: usize) -> Option<&'j str> {
        let taken = self.text.get(self.at..self.at + length)?;
        self.at += length;
        Some(taken)
    }
}

impl<'j> Iterator for Children<'j> {
    type Item = Child<'j>;

    fn next(&mut self) -> Option<Child<'j>> {
        if matches!(self.skip()?, b'}' | b']') {
            return None;
        }
        let mut name = "";
        if self.object {
            let length = text_length(&self.text.as_bytes()[self.at..])?;
            name = self.take(length)?.get(1..length - 1)?;
            self.skip()?;
        }
        let length = value_length(&self.text.as_bytes()[self.at..])?;
        Some(Child { name, value: self.take(length)? })
    }
}

/// Returns the length of the string at the start of a text, with its quotes.
fn text_length(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr::memchr2(b'"', b'\\', text.get(at..)?)?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// Returns the length of the value at the start of a text.
fn value_length(text: &[u8]) -> Option<usize> {
    let first = *text.first()?;
    if first == b'"' {
        return text_length(text);
    }
    if !matches!(first, b'{' | b'[') {
        let is_end = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b'}' | b']');
        return Some(text.iter().position(is_end).unwrap_or(text.len()));
    }
    let (mut at, mut depth) = (0, 0_usize);
    loop {
        match *text.get(at)? {
            b'"' => {
                at += text_length(&text[at..])?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 1 => return Some(at + 1),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z{}\\[\\],:\"\\\\ \u{e9}]{0,8}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 30, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec(("[a-c\"\\\\ ]{0,3}", inner), 0..4).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        #[test]
        fn children_are_those_of_the_parser(value in value(), pretty: bool) {
            let write = if pretty { serde_json::to_string_pretty } else { serde_json::to_string };
            let text = write(&value).expect("JSON");
            let read = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
            match &value {
                Value::Object(members) => {
                    let got: Vec<(String, Value)> = Children::of_object(&text).expect("an object")
                        .map(|child| {
                            let name = serde_json::from_str(&format!("\"{}\"", child.name)).expect("a name");
                            (name, read(child.value))
                        })
                        .collect();
                    let wanted: Vec<_> = members.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
                    prop_assert_eq!(got, wanted);
                }
                Value::Array(items) => {
                    let got: Vec<Value> =
                        Children::of_array(&text).expect("an array").map(|child| read(child.value)).collect();
                    prop_assert_eq!(&got, items);
                }
                _ => prop_assert!(Children::of_object(&text).is_none() && Children::of_array(&text).is_none()),
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]{}:,\"\\\\ a1\u{e9}]{0,40}") {
            for start in ["{", "["] {
                let text = format!("{start}{text}");
                let children = Children::of_object(&text).or_else(|| Children::of_array(&text)).expect("a container");
                prop_assert!(children.count() <= text.len());
            }
        }
    }

    #[test]
    fn a_document_is_one_document() {
        assert_eq!(is_json(" {\"a\":1.00} \n"), Some("{\"a\":1.00}"));
        for text in ["", "{", "<a>", "1 2", "{\"a\":nul}", "'a'"] {
            assert_eq!(is_json(text), None, "{text}");
        }
    }
}
