//! XML as JSON and back (XML 1.0, RFC 8259).
//!
//! A document becomes an object with its root element: `<a x="1"><b>c</b></a>` is `{"a":{"@x":"1","b":"c"}}`. An
//! attribute is a member with `@` before its name, text beside attributes or elements is `#text`, elements of one name
//! are an array, and an element without content is an empty text. All values are texts. Names keep their prefixes.
//! White space between elements, comments and processing instructions are left out; the order of elements of different
//! names is that of the first of each.
//!
//! A document type is rejected, and so no entities can be declared that would expand. Depth and attributes are bounded.

use std::fmt::Write as _;

use ahash::AHashMap;
use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::{BytesStart, Event};
use serde_json::value::RawValue;

use super::fields::{FieldPath, FieldState, Fields, RawMembers};

/// The deepest nesting of elements, or of objects and arrays that become elements.
const MAX_XML_DEPTH: usize = 50;

/// The most attributes of an element.
const MAX_ATTRIBUTES: usize = 256;

/// How XML becomes JSON.
#[derive(Debug, Default)]
pub struct XmlToJson {
    arrays: Fields,
    /// Whether an element without content is null.
    empty_is_null: bool,
    /// Whether prefixes of names, and the declarations of their namespaces, are left out.
    drops_prefixes: bool,
}

/// An element that has been read.
#[derive(Debug, Default)]
struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    /// The values of elements by name, as JSON.
    children: Vec<(String, Vec<String>)>,
    /// The place of each name among them.
    places: AHashMap<String, usize>,
    text: String,
    /// The state of the paths of arrays, and whether one ends at the element.
    state: FieldState,
    is_array: bool,
}

impl XmlToJson {
    /// Returns a conversion; the elements that `arrays` select are arrays even where there is one alone.
    ///
    /// # Errors
    /// When the paths have too many steps together.
    pub fn new(arrays: &[FieldPath], empty_is_null: bool, drops_prefixes: bool) -> Result<Self, String> {
        Ok(Self { arrays: Fields::new(arrays)?, empty_is_null, drops_prefixes })
    }

    /// Converts a document.
    ///
    /// # Errors
    /// Returns why it cannot be converted.
    pub fn convert(&self, document: &[u8]) -> Result<String, String> {
        let text = std::str::from_utf8(document).map_err(|_| "the document is not UTF-8".to_owned())?;
        let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
        reader.config_mut().enable_all_checks(true);
        let (mut open, mut root): (Vec<Element>, Option<String>) = (Vec::new(), None);
        loop {
            let place = reader.buffer_position();
            let wrong = |why: &str| format!("{why} at byte {place}");
            match reader.read_event().map_err(|error| wrong(&error.to_string()))? {
                Event::Start(start) if open.is_empty() && root.is_some() => {
                    return Err(wrong(&format!("a second root element {}", as_text(start.name().as_ref()))));
                }
                Event::Start(start) => self.open(&start, &mut open).map_err(|why| wrong(&why))?,
                Event::Empty(start) if !(open.is_empty() && root.is_some()) => {
                    self.open(&start, &mut open).map_err(|why| wrong(&why))?;
                    self.close(&mut open, &mut root);
                }
                Event::Empty(_) => return Err(wrong("a second root element")),
                Event::End(_) => self.close(&mut open, &mut root),
                Event::Text(text) => add_text(&mut open, &text.xml10_content()).map_err(wrong)?,
                Event::CData(text) => add_text(&mut open, &text.xml10_content()).map_err(wrong)?,
                Event::GeneralRef(reference) => {
                    let text = unescape(&format!("&{};", &*reference.into_inner())).map(String::from);
                    add_text(&mut open, &text.map_err(|_| wrong("an unknown entity"))?).map_err(wrong)?;
                }
                Event::Decl(declaration) => {
                    let is_utf8 =
                        |name: &str| ["utf-8", "utf8", "us-ascii"].iter().any(|n| n.eq_ignore_ascii_case(name));
                    if declaration.encoding().is_some_and(|name| !name.is_ok_and(|name| is_utf8(&name))) {
                        return Err(wrong("another encoding than UTF-8"));
                    }
                }
                Event::DocType(_) => return Err(wrong("a document type, which is not accepted")),
                Event::Comment(_) | Event::PI(_) => {}
                Event::Eof if open.is_empty() => break,
                Event::Eof => return Err(wrong("the document ends within an element")),
            }
        }
        root.ok_or_else(|| "the document has no element".to_owned())
    }

    fn open(&self, start: &BytesStart<'_>, open: &mut Vec<Element>) -> Result<(), String> {
        if open.len() == MAX_XML_DEPTH {
            return Err(format!("elements are nested deeper than {MAX_XML_DEPTH}"));
        }
        let qualified = start.name();
        let name = self.name(as_text(qualified.as_ref()));
        let above = open.last().map_or_else(|| self.arrays.start(), |element| element.state);
        let (state, end) = self.arrays.enter(above, name.as_bytes());
        let mut element = Element { name: name.to_owned(), state, is_array: end.is_some(), ..Element::default() };
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|error| error.to_string())?;
            let key = as_text(attribute.key.as_ref());
            if self.drops_prefixes && (key == "xmlns" || key.starts_with("xmlns:")) {
                continue;
            }
            if element.attributes.len() == MAX_ATTRIBUTES {
                return Err(format!("more than {MAX_ATTRIBUTES} attributes"));
            }
            let value = as_text(attribute.value.as_ref()).replace(['\t', '\n', '\r'], " ");
            let value = unescape(&value).map_err(|error| error.to_string())?;
            check_characters(&value)?;
            element.attributes.push((self.name(key).to_owned(), value.into_owned()));
        }
        open.push(element);
        Ok(())
    }

    fn name<'n>(&self, name: &'n str) -> &'n str {
        let local = name.split_once(':').map(|(_, local)| local).filter(|_| self.drops_prefixes);
        local.unwrap_or(name)
    }

    /// Closes the innermost element, whose value goes to the one around it.
    fn close(&self, open: &mut Vec<Element>, root: &mut Option<String>) {
        let Some(element) = open.pop() else { return };
        let value = self.value(&element);
        let Some(above) = open.last_mut() else {
            let value = if element.is_array { format!("[{value}]") } else { value };
            *root = Some(format!("{{{}:{value}}}", quoted(&element.name)));
            return;
        };
        // An array of one is told from a lone value by the value itself: the empty text stands for the bracket.
        let place = *above.places.entry(element.name.clone()).or_insert_with(|| {
            above.children.push((element.name.clone(), Vec::new()));
            above.children.len() - 1
        });
        let values = &mut above.children[place].1;
        if element.is_array && values.is_empty() {
            values.push(String::new());
        }
        values.push(value);
    }

    fn value(&self, element: &Element) -> String {
        let is_leaf = element.attributes.is_empty() && element.children.is_empty();
        if is_leaf {
            return match element.text.is_empty() {
                true if self.empty_is_null => "null".to_owned(),
                _ => quoted(&element.text),
            };
        }
        let mut members: Vec<String> = element
            .attributes
            .iter()
            .map(|(name, value)| format!("{}:{}", quoted(&format!("@{name}")), quoted(value)))
            .collect();
        // White space between elements is layout.
        let is_layout = !element.children.is_empty() && element.text.trim_ascii().is_empty();
        if !element.text.is_empty() && !is_layout {
            members.push(format!("\"#text\":{}", quoted(&element.text)));
        }
        for (name, values) in &element.children {
            let value = match values.as_slice() {
                [one] => one.clone(),
                [first, rest @ ..] if first.is_empty() => format!("[{}]", rest.join(",")),
                many => format!("[{}]", many.join(",")),
            };
            members.push(format!("{}:{value}", quoted(name)));
        }
        format!("{{{}}}", members.join(","))
    }
}

/// Adds text to the innermost element; between a document's parts it is white space.
fn add_text(open: &mut [Element], text: &str) -> Result<(), &'static str> {
    check_characters(text)?;
    match open.last_mut() {
        Some(element) => element.text.push_str(text),
        None if text.trim_ascii().is_empty() => {}
        None => return Err("text outside of the root element"),
    }
    Ok(())
}

/// Rejects characters that XML 1.0 forbids (section 2.2).
fn check_characters(text: &str) -> Result<(), &'static str> {
    let is_wrong = |c: char| (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{fffe}' | '\u{ffff}');
    if text.contains(is_wrong) { Err("a character that XML 1.0 forbids") } else { Ok(()) }
}

fn as_text(text: &(impl AsRef<[u8]> + ?Sized)) -> &str {
    std::str::from_utf8(text.as_ref()).unwrap_or_default()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// How JSON becomes XML.
#[derive(Clone, Debug)]
pub struct JsonToXml {
    /// The name of the root element of a document that has no single member.
    root: Option<String>,
}

impl JsonToXml {
    /// Returns a conversion; with `root`, documents of any form become the content of such an element.
    ///
    /// # Errors
    /// When that is no name of an element.
    pub fn new(root: Option<String>) -> Result<Self, String> {
        if root.as_deref().is_some_and(|root| !is_name(root)) {
            return Err("expected the name of an element".to_owned());
        }
        Ok(Self { root })
    }

    /// Converts a document.
    ///
    /// # Errors
    /// Returns why it cannot be converted.
    pub fn convert(&self, document: &[u8]) -> Result<String, String> {
        let text = std::str::from_utf8(document).map_err(|_| "the document is not UTF-8".to_owned())?;
        let value: &RawValue = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>".to_owned();
        if let Some(root) = &self.root {
            write_elements(root, value, 0, &mut out)?;
            return Ok(out);
        }
        let members = serde_json::from_str::<RawMembers<'_>>(value.get());
        match members.as_ref().map(|members| members.0.as_slice()) {
            Ok([(name, value)]) if !value.get().starts_with('[') => write_elements(name, value, 0, &mut out)?,
            _ => return Err("the document is not an object with one member, the root element".to_owned()),
        }
        Ok(out)
    }
}

/// Writes an element, or one for each element of an array.
fn write_elements(name: &str, value: &RawValue, depth: usize, out: &mut String) -> Result<(), String> {
    if depth == MAX_XML_DEPTH {
        return Err(format!("the document is nested deeper than {MAX_XML_DEPTH}"));
    }
    if !is_name(name) {
        return Err("a name that cannot be the name of an element".to_owned());
    }
    let text = value.get();
    if text.starts_with('[') {
        if depth == 0 {
            return Err("an array has no root element".to_owned());
        }
        let items: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        return items.into_iter().try_for_each(|item| {
            if item.get().starts_with('[') {
                return Err("an array within an array has no name".to_owned());
            }
            write_elements(name, item, depth, out)
        });
    }
    let _ = write!(out, "<{name}");
    if text.starts_with('{') {
        let members: RawMembers<'_> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        for (member, value) in &members.0 {
            let Some(attribute) = member.strip_prefix('@') else { continue };
            if !is_name(attribute) {
                return Err("a name that cannot be the name of an attribute".to_owned());
            }
            let _ = write!(out, " {attribute}=\"");
            write_scalar(value, out)?;
            out.push('"');
        }
        out.push('>');
        for (member, value) in members.0.iter().filter(|(member, _)| !member.starts_with('@')) {
            match member.as_str() {
                "#text" => write_scalar(value, out)?,
                name => write_elements(name, value, depth + 1, out)?,
            }
        }
    } else {
        out.push('>');
        write_scalar(value, out)?;
    }
    let _ = write!(out, "</{name}>");
    Ok(())
}

/// Writes a text, number or truth value; `null` is empty.
fn write_scalar(value: &RawValue, out: &mut String) -> Result<(), String> {
    let text = match value.get() {
        "null" => return Ok(()),
        text if text.starts_with('"') => serde_json::from_str::<String>(text).map_err(|error| error.to_string())?,
        text if text.starts_with(['{', '[']) => return Err("an attribute or #text that is no scalar".to_owned()),
        text => text.to_owned(),
    };
    check_characters(&text)?;
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            '\t' => out.push_str("&#9;"),
            c => out.push(c),
        }
    }
    Ok(())
}

/// Returns whether a text is the name of an element or attribute (XML 1.0, section 2.3; Namespaces in XML 1.0).
fn is_name(text: &str) -> bool {
    let begins = |c: char| c.is_alphabetic() || c == '_';
    let continues = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    let is_part = |part: &str| part.starts_with(begins) && part.chars().all(continues);
    !text.is_empty() && text.split(':').count() <= 2 && text.split(':').all(is_part)
}

#[cfg(test)]
#[path = "xml_tests.rs"]
mod tests;
