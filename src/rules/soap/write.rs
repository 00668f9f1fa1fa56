//! Writes envelopes and faults.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::SoapVersion;
use crate::rules::payload::JsonToXml;

/// The namespace of the attributes of XML Schema for instances, by the prefix `xsi`.
pub const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// How the element of a body is named.
#[derive(Clone, Debug)]
pub struct Naming {
    /// The name of the element.
    pub element: String,
    /// Its namespace; empty for none.
    pub namespace: String,
    /// Whether the elements within it are in the namespace as well (`elementFormDefault="qualified"`).
    pub qualified: bool,
}

/// The prefixes that names of members may have, with their namespaces.
#[derive(Clone, Copy, Debug)]
pub struct NameRules<'r>(pub &'r [(String, String)]);

/// Returns the envelope with a value as its element.
///
/// # Errors
/// Returns why the value cannot be the content of an element.
pub fn envelope(
    version: SoapVersion,
    naming: &Naming,
    prefixes: NameRules<'_>,
    value: &Value,
) -> Result<String, String> {
    prefixes.check(value)?;
    let Naming { element, namespace, qualified } = naming;
    let (name, attribute) = match (namespace.is_empty(), qualified) {
        (true, _) => (element.clone(), None),
        (false, true) => (element.clone(), Some("@xmlns")),
        (false, false) => (format!("op:{element}"), Some("@xmlns:op")),
    };
    let mut root = Map::new();
    if let Some(attribute) = attribute {
        root.insert(attribute.to_owned(), namespace.clone().into());
    }
    let mut has_nil = false;
    match value {
        Value::Object(members) => root.extend(with_nil(members, &mut has_nil)),
        Value::Null => {}
        Value::Array(_) => return Err("a list has no names for its elements".to_owned()),
        scalar => _ = root.insert("#text".to_owned(), scalar.clone()),
    }
    let convert = JsonToXml::new(Some(name))?;
    let document = convert.convert(Value::from(root).to_string().as_bytes())?;
    let content = document.split_once("?>").map_or(document.as_str(), |(_, content)| content);
    let mut out = begin(version);
    // Before the body, so that all prefixes are declared on the envelope.
    out.pop();
    for (prefix, namespace) in prefixes.0 {
        let _ = write!(out, " xmlns:{prefix}=\"{}\"", escaped(namespace));
    }
    if has_nil && !prefixes.0.iter().any(|(prefix, _)| prefix == "xsi") {
        let _ = write!(out, " xmlns:xsi=\"{XSI}\"");
    }
    out.extend(["><soap:Body>", content, "</soap:Body></soap:Envelope>"]);
    Ok(out)
}

/// Returns members in which null is an element with `xsi:nil` (XML Schema part 1, section 2.6.2): one without content
/// would be the empty text.
fn with_nil(members: &Map<String, Value>, has_nil: &mut bool) -> Map<String, Value> {
    fn of(value: &Value, has_nil: &mut bool) -> Value {
        match value {
            Value::Null => {
                *has_nil = true;
                Value::from(Map::from_iter([("@xsi:nil".to_owned(), true.into())]))
            }
            Value::Object(members) => with_nil(members, has_nil).into(),
            Value::Array(items) => items.iter().map(|item| of(item, has_nil)).collect(),
            scalar => scalar.clone(),
        }
    }
    let member = |(name, value): (&String, &Value)| {
        // Attributes and texts have no elements.
        let value = if name.starts_with(['@', '#']) { value.clone() } else { of(value, has_nil) };
        (name.clone(), value)
    };
    members.iter().map(member).collect()
}

impl NameRules<'_> {
    /// Checks that members do not change namespaces, and use no prefixes but these.
    fn check(self, value: &Value) -> Result<(), String> {
        match value {
            Value::Object(members) => members.iter().try_for_each(|(name, value)| {
                let plain = name.strip_prefix('@').unwrap_or(name);
                if plain == "xmlns" || plain.starts_with("xmlns:") {
                    return Err("a member that would declare a namespace".to_owned());
                }
                let is_known = |prefix: &str| self.0.iter().any(|(known, _)| known == prefix) || prefix == "xml";
                if plain.split_once(':').is_some_and(|(prefix, _)| !is_known(prefix)) {
                    return Err("a member with a prefix that is not known".to_owned());
                }
                self.check(value)
            }),
            Value::Array(items) => items.iter().try_for_each(|item| self.check(item)),
            _ => Ok(()),
        }
    }
}

fn begin(version: SoapVersion) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><soap:Envelope xmlns:soap=\"{}\">", version.namespace())
}

/// Returns the envelope with a fault. `code` is that of 1.1: `Client`, `Server`, `VersionMismatch`, `MustUnderstand`.
pub fn fault_envelope(version: SoapVersion, code: &str, text: &str, problem: &[(&str, String)]) -> String {
    let mut out = begin(version);
    let text = escaped(text);
    let mut detail = String::new();
    if !problem.is_empty() {
        // RFC 9457, appendix B.
        detail.push_str("<problem xmlns=\"urn:ietf:rfc:7807\">");
        for (name, value) in problem {
            let _ = write!(detail, "<{name}>{}</{name}>", escaped(value));
        }
        detail.push_str("</problem>");
    }
    match version {
        SoapVersion::V11 => {
            let _ = write!(
                out,
                "<soap:Body><soap:Fault><faultcode>soap:{code}</faultcode><faultstring>{text}</faultstring>"
            );
            if !detail.is_empty() {
                let _ = write!(out, "<detail>{detail}</detail>");
            }
        }
        SoapVersion::V12 => {
            let code = match code {
                "Client" => "Sender",
                "Server" => "Receiver",
                other => other,
            };
            let _ = write!(
                out,
                "<soap:Body><soap:Fault><soap:Code><soap:Value>soap:{code}</soap:Value></soap:Code>\
                 <soap:Reason><soap:Text xml:lang=\"en\">{text}</soap:Text></soap:Reason>"
            );
            if !detail.is_empty() {
                let _ = write!(out, "<soap:Detail>{detail}</soap:Detail>");
            }
        }
    }
    out.push_str("</soap:Fault></soap:Body></soap:Envelope>");
    out
}

/// Returns a text for an element or an attribute, without characters that XML 1.0 forbids.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            c if (c < ' ' && !matches!(c, '\t' | '\n' | '\r')) || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Content, parse_envelope};
    use super::*;
    use crate::rules::payload::XmlToJson;

    fn naming(qualified: bool) -> Naming {
        Naming { element: "Add".to_owned(), namespace: "urn:m".to_owned(), qualified }
    }

    #[test]
    fn values_become_envelopes() {
        let none = NameRules(&[]);
        let value = json!({"a": 1, "list": [{"b": "x<y"}, {"b": null}]});
        let text = envelope(SoapVersion::V11, &naming(true), none, &value).expect("an envelope");
        let expected = "<Add xmlns=\"urn:m\"><a>1</a><list><b>x&lt;y</b></list>\
                        <list><b xsi:nil=\"true\"></b></list></Add></soap:Body>";
        assert!(text.contains(expected), "{text}");
        assert!(text.contains(&format!(" xmlns:xsi=\"{XSI}\"><soap:Body>")), "{text}");
        let named = [("xsi".to_owned(), XSI.to_owned())];
        let value = json!({"a": null, "b": [null, 1], "c": {"@xsi:nil": "true"}});
        let text = envelope(SoapVersion::V11, &naming(true), NameRules(&named), &value).expect("an envelope");
        assert_eq!(text.matches("xmlns:xsi").count(), 1, "{text}");
        assert_eq!(text.matches("xsi:nil=\"true\"").count(), 3, "{text}");
        let convert = XmlToJson::new(&[], false, true).expect("a conversion");
        let read = parse_envelope(text.as_bytes(), &convert, &[]).expect("an envelope");
        let Content::Element { value, .. } = read.content else { panic!("no element") };
        assert_eq!((&value["a"], &value["b"], &value["c"]), (&json!(null), &json!([null, "1"]), &json!(null)));
        let text = envelope(SoapVersion::V12, &naming(false), none, &json!({"a": true})).expect("an envelope");
        assert!(text.contains("<op:Add xmlns:op=\"urn:m\"><a>true</a></op:Add>"), "{text}");
        let prefixes = [("p".to_owned(), "urn:p\"".to_owned())];
        let text = envelope(SoapVersion::V11, &naming(true), NameRules(&prefixes), &json!({"p:a": "1"})).expect("one");
        assert!(text.contains(" xmlns:p=\"urn:p&quot;\"><soap:Body>") && text.contains("<p:a>1</p:a>"), "{text}");
        for wrong in [json!({"@xmlns": "urn:x"}), json!({"a": {"@xmlns:y": "z"}}), json!({"q:a": 1}), json!([1])] {
            assert!(envelope(SoapVersion::V11, &naming(true), none, &wrong).is_err(), "{wrong}");
        }
        assert!(envelope(SoapVersion::V11, &naming(true), none, &json!({"a b": 1})).is_err());
    }

    #[test]
    fn faults_can_be_read() {
        let convert = XmlToJson::new(&[], false, true).expect("a conversion");
        for (version, code) in [(SoapVersion::V11, "Client"), (SoapVersion::V12, "Sender")] {
            let text = fault_envelope(version, "Client", "a < b", &[("status", "404".to_owned())]);
            let envelope = parse_envelope(text.as_bytes(), &convert, &[]).expect("an envelope");
            let Content::Fault(fault) = envelope.content else { panic!("no fault") };
            assert_eq!((fault.code.as_str(), fault.text.as_str()), (code, "a < b"));
            assert_eq!(fault.detail.expect("a detail")["problem"]["status"], "404");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again(
            name in "[A-Za-z_][A-Za-z0-9_.-]{0,5}",
            text in "\\PC{1,12}",
            list in 2_usize..4,
        ) {
            let value = json!({name.clone(): vec![text.clone(); list], "last": text});
            let convert = XmlToJson::new(&[], false, true).expect("a conversion");
            for version in [SoapVersion::V11, SoapVersion::V12] {
                let Ok(written) = envelope(version, &naming(true), NameRules(&[]), &value) else { continue };
                let read = parse_envelope(written.as_bytes(), &convert, &[]).expect("an envelope");
                let Content::Element { value: found, .. } = read.content else { panic!("no element") };
                proptest::prop_assert_eq!(&found[&name], &value[&name]);
                proptest::prop_assert_eq!(&found["last"], &value["last"]);
            }
        }

        #[test]
        fn any_text_is_an_envelope_or_an_error(text in "(<|>|/|s:|Envelope|Body|Fault|&|;|=|\"|'|\\PC){0,30}") {
            let convert = XmlToJson::new(&[], false, true).expect("a conversion");
            let start = format!("<s:Envelope xmlns:s='{}'><s:Body>{text}", SoapVersion::V11.namespace());
            for text in [text, format!("{start}</s:Body></s:Envelope>"), start] {
                let _ = parse_envelope(text.as_bytes(), &convert, &[]);
            }
        }
    }
}
