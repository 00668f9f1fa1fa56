//! Faults (SOAP 1.1, section 4.4; SOAP 1.2 part 1, section 5.4).

use serde_json::Value;

use super::SoapVersion;

/// A fault.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// The code without its prefix: `Client`, `Server`; `Sender`, `Receiver` of 1.2.
    pub code: String,
    /// The codes below it, without their prefixes.
    pub subcodes: Vec<String>,
    /// The text.
    pub text: String,
    /// Who it is of.
    pub actor: Option<String>,
    /// The detail.
    pub detail: Option<Value>,
}

/// The most codes below a code.
const MAX_SUBCODES: usize = 8;

impl Fault {
    /// Returns the fault of an element of that version.
    pub fn of(version: SoapVersion, value: &Value) -> Self {
        match version {
            SoapVersion::V11 => {
                // `Client.Authentication` is one of `Client`.
                let code = local(&text(value.get("faultcode")));
                let mut parts = code.split('.').map(str::to_owned);
                Self {
                    code: parts.next().unwrap_or_default(),
                    subcodes: parts.take(MAX_SUBCODES).collect(),
                    text: text(value.get("faultstring")),
                    actor: value.get("faultactor").map(|actor| text(Some(actor))),
                    detail: value.get("detail").cloned(),
                }
            }
            SoapVersion::V12 => {
                let code = value.get("Code");
                let mut subcodes = Vec::new();
                let mut below = code.and_then(|code| code.get("Subcode"));
                while let Some(subcode) = below.filter(|_| subcodes.len() < MAX_SUBCODES) {
                    subcodes.push(local(&text(subcode.get("Value"))));
                    below = subcode.get("Subcode");
                }
                let reason = value.get("Reason").and_then(|reason| reason.get("Text"));
                Self {
                    code: local(&text(code.and_then(|code| code.get("Value")))),
                    subcodes,
                    text: text(reason.map(|reason| reason.as_array().and_then(|all| all.first()).unwrap_or(reason))),
                    actor: value.get("Node").map(|node| text(Some(node))),
                    detail: value.get("Detail").cloned(),
                }
            }
        }
    }

    /// Returns whether the client is at fault.
    pub fn is_of_client(&self) -> bool {
        matches!(self.code.as_str(), "Client" | "Sender" | "VersionMismatch" | "MustUnderstand" | "DataEncodingUnknown")
    }

    /// Returns all codes, with dots between them.
    pub fn codes(&self) -> String {
        let mut all = self.code.clone();
        self.subcodes.iter().for_each(|code| all.extend([".", code.as_str()]));
        all
    }
}

fn text(value: Option<&Value>) -> String {
    let value = value.map(|value| value.get("#text").unwrap_or(value));
    value.and_then(Value::as_str).unwrap_or_default().trim().to_owned()
}

fn local(code: &str) -> String {
    code.rsplit(':').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn faults_of_both_versions_are_read() {
        let old = json!({"faultcode": "s:Client.Auth", "faultstring": "no", "detail": {"a": "1"}});
        let fault = Fault::of(SoapVersion::V11, &old);
        assert_eq!((fault.codes().as_str(), fault.text.as_str(), fault.is_of_client()), ("Client.Auth", "no", true));
        let new = json!({
            "Code": {"Value": "e:Receiver", "Subcode": {"Value": "m:Busy"}},
            "Reason": {"Text": [{"@lang": "en", "#text": "busy"}, {"@lang": "de", "#text": "besetzt"}]},
        });
        let fault = Fault::of(SoapVersion::V12, &new);
        assert_eq!(
            (fault.codes().as_str(), fault.text.as_str(), fault.is_of_client()),
            ("Receiver.Busy", "busy", false)
        );
        assert_eq!(Fault::of(SoapVersion::V12, &Value::Null), Fault::default());
    }
}
