//! Credentials of AWS: access keys, the shared credentials file, and the response of the Security Token Service.

use chrono::DateTime;
use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::Event;

/// An access key, with the token of its session if it is temporary.
#[derive(Clone, PartialEq, Eq)]
pub struct AwsKeys {
    /// The id of the key.
    pub id: String,
    secret: String,
    /// The token of the session.
    pub session_token: Option<String>,
}

impl std::fmt::Debug for AwsKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AwsKeys(secret)")
    }
}

impl AwsKeys {
    /// Returns a key with its secret.
    pub fn new(id: &str, secret: &str, session_token: Option<&str>) -> Self {
        Self { id: id.to_owned(), secret: secret.to_owned(), session_token: session_token.map(str::to_owned) }
    }

    /// Returns the secret itself, which must never be shown.
    pub fn secret(&self) -> &str {
        &self.secret
    }
}

/// Keys with the time at which they expire, in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemporaryKeys {
    /// The keys.
    pub keys: AwsKeys,
    /// When they expire; `None` for keys that do not.
    pub expires: Option<u64>,
}

/// Returns the keys of a profile in the text of a shared credentials file.
///
/// # Errors
/// Returns what is missing.
pub fn credentials_of_profile(text: &str, profile: &str) -> Result<AwsKeys, String> {
    let (mut id, mut secret, mut token) = (None, None, None);
    let (mut is_within, mut is_found) = (false, false);
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            // The file `config` has the prefix.
            let name = name.trim();
            is_within = name == profile || name.strip_prefix("profile ").is_some_and(|name| name.trim() == profile);
            is_found |= is_within;
        } else if let (true, Some((name, value))) = (is_within, line.split_once('=')) {
            let slot = match name.trim().to_ascii_lowercase().as_str() {
                "aws_access_key_id" => &mut id,
                "aws_secret_access_key" => &mut secret,
                "aws_session_token" => &mut token,
                _ => continue,
            };
            *slot = Some(value.trim()).filter(|value| !value.is_empty());
        }
    }
    match (id, secret) {
        (Some(id), Some(secret)) => Ok(AwsKeys::new(id, secret, token)),
        _ if !is_found => Err(format!("the credentials file has no profile \"{profile}\"")),
        _ => Err(format!("the profile \"{profile}\" has no aws_access_key_id and aws_secret_access_key")),
    }
}

/// Returns the keys in the response to `AssumeRoleWithWebIdentity`.
///
/// # Errors
/// Returns what is wrong with it; the text names no secret.
pub fn parse_assumed_role(body: &[u8]) -> Result<TemporaryKeys, String> {
    let text = std::str::from_utf8(body).map_err(|_| "the response is not UTF-8")?;
    let value = |name: &str| text_of_element(text, name).ok_or_else(|| format!("the response has no {name}"));
    let expires = value("Expiration")?;
    let expires = DateTime::parse_from_rfc3339(&expires).map_err(|_| "the time of its Expiration is malformed")?;
    Ok(TemporaryKeys {
        keys: AwsKeys::new(&value("AccessKeyId")?, &value("SecretAccessKey")?, Some(&value("SessionToken")?)),
        expires: u64::try_from(expires.timestamp()).ok(),
    })
}

/// Returns the text of the first element of that name.
fn text_of_element(document: &str, wanted: &str) -> Option<String> {
    let mut reader = Reader::from_str(document);
    let mut text: Option<String> = None;
    loop {
        match reader.read_event().ok()? {
            Event::Start(start) if start.local_name().as_ref() == wanted => text = Some(String::new()),
            Event::End(end) if end.local_name().as_ref() == wanted => break,
            Event::Text(part) => {
                if let Some(text) = &mut text {
                    text.push_str(&part.xml10_content());
                }
            }
            Event::GeneralRef(reference) => {
                if let Some(text) = &mut text {
                    text.push_str(&unescape(&format!("&{};", &*reference.into_inner())).ok()?);
                }
            }
            Event::DocType(_) | Event::Eof => return None,
            _ => {}
        }
    }
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# a comment\n[default]\naws_access_key_id = AK1\naws_secret_access_key=S=1\n\n[dev]\n\
        AWS_ACCESS_KEY_ID=AK2\naws_secret_access_key = S2\naws_session_token = T2\nregion = eu-west-1\n[empty]\n";

    #[test]
    fn a_profile_has_its_own_keys() {
        assert_eq!(credentials_of_profile(FILE, "default"), Ok(AwsKeys::new("AK1", "S=1", None)));
        assert_eq!(credentials_of_profile(FILE, "dev"), Ok(AwsKeys::new("AK2", "S2", Some("T2"))));
        assert!(credentials_of_profile(FILE, "empty").is_err_and(|text| text.contains("aws_access_key_id")));
        assert!(credentials_of_profile(FILE, "none").is_err_and(|text| text.contains("no profile \"none\"")));
        let shown = format!("{:?}", credentials_of_profile(FILE, "dev"));
        assert!(!shown.contains("S2") && !shown.contains("T2"), "{shown}");
    }

    #[test]
    fn the_response_of_the_token_service_is_read() {
        let text = "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
            <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIA1</AccessKeyId>\
            <SecretAccessKey>a&amp;b</SecretAccessKey><SessionToken>t</SessionToken>\
            <Expiration>2026-11-28T15:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
            </AssumeRoleWithWebIdentityResponse>";
        let parsed = parse_assumed_role(text.as_bytes()).expect("keys");
        assert_eq!(parsed.keys, AwsKeys::new("ASIA1", "a&b", Some("t")));
        assert_eq!(parsed.expires, Some(1_795_878_000));
        for wrong in ["", "<a/>", "{}", &text.replace("SessionToken", "Other"), &text.replace("2026", "x")] {
            assert!(parse_assumed_role(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
