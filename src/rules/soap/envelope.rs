//! Reads an envelope (SOAP 1.1, section 4; SOAP 1.2 part 1, section 5).

use quick_xml::NsReader;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{NamespaceResolver, ResolveResult};
use serde_json::Value;

use super::SoapVersion;
use super::fault::Fault;
use crate::rules::payload::XmlToJson;

/// The deepest nesting of elements that is read.
const MAX_DEPTH: usize = 60;

/// The most blocks of a header.
const MAX_BLOCKS: usize = 100;

/// An envelope.
#[derive(Debug)]
pub struct Envelope {
    /// The version.
    pub version: SoapVersion,
    /// What its body has.
    pub content: Content,
}

/// What the body of an envelope has.
#[derive(Debug)]
pub enum Content {
    /// Nothing.
    Empty,
    /// A fault.
    Fault(Fault),
    /// An element.
    Element {
        /// Its namespace; empty if it has none.
        namespace: String,
        /// Its name, without a prefix.
        name: String,
        /// What is in it.
        value: Value,
    },
}

/// The reason for which an envelope cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvelopeError {
    /// What kind it is of.
    pub kind: ErrorKind,
    /// The version, if it is known.
    pub version: Option<SoapVersion>,
    /// What is wrong. It repeats no value.
    pub text: String,
}

/// The kinds of errors, by the codes of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// It is malformed.
    Malformed,
    /// It is of another version.
    Version,
    /// It has a header that has to be understood, and is not.
    MustUnderstand,
}

/// Where an element is in the envelope.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    Nothing,
    Envelope,
    Header,
    Body,
}

/// Reads an envelope, whose element in the body is converted to JSON. `understood` are the namespaces of headers that
/// need not be understood here, since they are for others.
///
/// # Errors
/// Returns why it cannot be read.
pub fn parse_envelope(body: &[u8], convert: &XmlToJson, understood: &[String]) -> Result<Envelope, EnvelopeError> {
    let malformed = |text: &str| EnvelopeError { kind: ErrorKind::Malformed, version: None, text: text.to_owned() };
    let text = std::str::from_utf8(body).map_err(|_| malformed("the envelope is not UTF-8"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut scan = Scan { version: None, within: Within::Nothing, depth: 0, blocks: 0, element: None, understood };
    let mut reader = NsReader::from_str(text);
    reader.config_mut().enable_all_checks(true);
    loop {
        let from = position(reader.buffer_position());
        let event = reader.read_event().map_err(|_| scan.error(ErrorKind::Malformed, "the envelope is not XML"))?;
        match event {
            Event::Start(start) => scan.open(&start, reader.resolver(), from)?,
            Event::Empty(start) => {
                scan.open(&start, reader.resolver(), from)?;
                scan.close(position(reader.buffer_position()));
            }
            Event::End(_) => scan.close(position(reader.buffer_position())),
            Event::DocType(_) => {
                return Err(scan.error(ErrorKind::Malformed, "a document type is not accepted"));
            }
            Event::Eof if scan.depth > 0 => {
                return Err(scan.error(ErrorKind::Malformed, "the envelope ends within an element"));
            }
            Event::Eof => break,
            _ => {}
        }
    }
    scan.finish(text, convert)
}

fn position(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

/// The state of reading.
struct Scan<'s> {
    version: Option<SoapVersion>,
    within: Within,
    depth: usize,
    blocks: usize,
    /// The namespace, the name and the place of the element in the body.
    element: Option<(String, String, usize, usize)>,
    understood: &'s [String],
}

impl Scan<'_> {
    fn error(&self, kind: ErrorKind, text: &str) -> EnvelopeError {
        EnvelopeError { kind, version: self.version, text: text.to_owned() }
    }

    fn open(&mut self, start: &BytesStart<'_>, resolver: &NamespaceResolver, from: usize) -> Result<(), EnvelopeError> {
        let (namespace, local) = resolver.resolve_element(start.name());
        let name = as_text(local.as_ref());
        let namespace = match &namespace {
            ResolveResult::Bound(namespace) => as_text(namespace.as_ref()),
            ResolveResult::Unbound => "",
            ResolveResult::Unknown(_) => return Err(self.error(ErrorKind::Malformed, "a prefix is not declared")),
        };
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(ErrorKind::Malformed, "elements are nested too deeply"));
        }
        let of_soap = self.version.is_some_and(|version| version.namespace() == namespace);
        match (self.depth, self.within) {
            (1, _) if name != "Envelope" || self.version.is_some() => {
                return Err(self.error(ErrorKind::Malformed, "the root element is not an Envelope"));
            }
            (1, _) => {
                self.version = SoapVersion::of_namespace(namespace);
                self.within = Within::Envelope;
                if self.version.is_none() {
                    return Err(self.error(ErrorKind::Version, "the envelope is of another version than 1.1 and 1.2"));
                }
            }
            (2, _) if of_soap && name == "Header" => self.within = Within::Header,
            (2, _) if of_soap && name == "Body" => self.within = Within::Body,
            (2, _) => return Err(self.error(ErrorKind::Malformed, "the envelope has an unknown element")),
            (3, Within::Header) => self.header(start, resolver, namespace)?,
            (3, Within::Body) if self.element.is_some() => {
                return Err(self.error(ErrorKind::Malformed, "the body has more than one element"));
            }
            (3, Within::Body) => self.element = Some((namespace.to_owned(), name.to_owned(), from, from)),
            _ => {}
        }
        Ok(())
    }

    /// Looks at a block of the header (SOAP 1.1, section 4.2.3).
    fn header(
        &mut self,
        start: &BytesStart<'_>,
        resolver: &NamespaceResolver,
        namespace: &str,
    ) -> Result<(), EnvelopeError> {
        self.blocks += 1;
        if self.blocks > MAX_BLOCKS {
            return Err(self.error(ErrorKind::Malformed, "the header has too many blocks"));
        }
        for attribute in start.attributes() {
            let attribute = attribute.map_err(|_| self.error(ErrorKind::Malformed, "an attribute is malformed"))?;
            let (of, local) = resolver.resolve_attribute(attribute.key);
            let is_soap = matches!(&of, ResolveResult::Bound(name)
                if SoapVersion::of_namespace(as_text(name.as_ref())).is_some());
            let is_set = matches!(as_text(attribute.value.as_ref()), "1" | "true");
            let is_understood = self.understood.iter().any(|known| known == namespace);
            if is_soap && as_text(local.as_ref()) == "mustUnderstand" && is_set && !is_understood {
                return Err(self.error(ErrorKind::MustUnderstand, "a header of the envelope is not understood"));
            }
        }
        Ok(())
    }

    fn close(&mut self, until: usize) {
        if self.depth == 3
            && self.within == Within::Body
            && let Some(element) = &mut self.element
            && element.3 == element.2
        {
            element.3 = until;
        }
        if self.depth == 2 {
            self.within = Within::Envelope;
        }
        self.depth = self.depth.saturating_sub(1);
    }

    fn finish(self, text: &str, convert: &XmlToJson) -> Result<Envelope, EnvelopeError> {
        let Some(version) = self.version else {
            return Err(self.error(ErrorKind::Malformed, "there is no envelope"));
        };
        let Some((namespace, name, from, until)) = &self.element else {
            return Ok(Envelope { version, content: Content::Empty });
        };
        let part = text.get(*from..*until).unwrap_or_default().trim_start();
        let converted = convert.convert(part.as_bytes()).map_err(|why| self.error(ErrorKind::Malformed, &why))?;
        let mut value: Value =
            serde_json::from_str(&converted).map_err(|_| self.error(ErrorKind::Malformed, "it cannot be converted"))?;
        let mut value =
            value.as_object_mut().and_then(|root| root.values_mut().next().map(Value::take)).unwrap_or_default();
        // The paths of lists may name the element itself, which is no list.
        if let Value::Array(items) = &mut value
            && let [only] = items.as_mut_slice()
        {
            value = only.take();
        }
        resolve_nil(&mut value);
        let content = if namespace == version.namespace() && name == "Fault" {
            Content::Fault(Fault::of(version, &value))
        } else {
            Content::Element { namespace: namespace.clone(), name: name.clone(), value }
        };
        Ok(Envelope { version, content })
    }
}

/// Replaces elements with `xsi:nil` by null.
fn resolve_nil(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if members.get("@nil").and_then(Value::as_str).is_some_and(|nil| matches!(nil, "true" | "1")) {
                *value = Value::Null;
                return;
            }
            members.values_mut().for_each(resolve_nil);
        }
        Value::Array(items) => items.iter_mut().for_each(resolve_nil),
        _ => {}
    }
}

fn as_text(text: &(impl AsRef<[u8]> + ?Sized)) -> &str {
    std::str::from_utf8(text.as_ref()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Result<Envelope, EnvelopeError> {
        let arrays = ["*.list.item".parse().expect("a path")];
        let convert = XmlToJson::new(&arrays, false, true).expect("a conversion");
        parse_envelope(text.as_bytes(), &convert, &["urn:known".to_owned()])
    }

    fn wrapped(version: SoapVersion, header: &str, body: &str) -> String {
        format!(
            "<?xml version='1.0'?><s:Envelope xmlns:s='{}' xmlns:k='urn:known' xmlns:u='urn:unknown'>{header}\
             <s:Body>{body}</s:Body></s:Envelope>",
            version.namespace()
        )
    }

    #[test]
    fn the_element_of_the_body_is_json() {
        let text = wrapped(
            SoapVersion::V12,
            "<s:Header><u:a/><k:b s:mustUnderstand='true'/></s:Header>",
            "\n <m:Add xmlns:m='urn:m' xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance'><m:a>1</m:a>\
             <m:list><m:item>x</m:item></m:list><m:n xsi:nil='true'/></m:Add>\n",
        );
        let envelope = parse(&text).expect("an envelope");
        assert_eq!(envelope.version, SoapVersion::V12);
        let Content::Element { namespace, name, value } = envelope.content else { panic!("no element") };
        assert_eq!((namespace.as_str(), name.as_str()), ("urn:m", "Add"));
        assert_eq!((&value["a"], &value["list"], &value["n"]), (&json!("1"), &json!({"item": ["x"]}), &Value::Null));
        let empty = parse(&wrapped(SoapVersion::V11, "", "")).expect("an envelope");
        assert!(matches!(empty.content, Content::Empty));
        assert!(matches!(parse(&wrapped(SoapVersion::V11, "", "<a/>")).expect("one").content, Content::Element { .. }));
    }

    #[test]
    fn other_envelopes_are_errors() {
        let kind = |text: &str| parse(text).map(|_| ()).map_err(|error| error.kind);
        let v11 = |header: &str, body: &str| wrapped(SoapVersion::V11, header, body);
        let unknown = "<s:Header><u:a s:mustUnderstand='1'/></s:Header>";
        assert_eq!(kind(&v11(unknown, "<a/>")), Err(ErrorKind::MustUnderstand));
        assert_eq!(kind("<Envelope xmlns='urn:other'/>"), Err(ErrorKind::Version));
        let bomb =
            format!("<!DOCTYPE a [<!ENTITY b 'c'>]>{}", v11("", "<a>&b;</a>").replace("<?xml version='1.0'?>", ""));
        let deep = format!("{}{}", "<a>".repeat(70), "</a>".repeat(70));
        for text in [
            "",
            "{}",
            "<a/>",
            "<s:Envelope/>",
            &bomb,
            &v11("", &deep),
            &v11("", "<a/><b/>"),
            &v11("", "<x:a/>"),
            &v11("", "<a>&unknown;</a>"),
            &v11("", "<a>\u{1}</a>"),
            &v11("<s:Other/>", "<a/>"),
            &v11("", "<a>").replace("</s:Body></s:Envelope>", ""),
        ] {
            assert_eq!(kind(text), Err(ErrorKind::Malformed), "{text}");
        }
    }
}
