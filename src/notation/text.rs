//! The machinery of types that are written as text, and the table of their formats.

use super::admin_address::AdminListen;
use super::types::*;

/// Checks `text` against the format of that name; `None` when there is no such format.
///
/// The formats are those that [`text_type`] types put into their schemas, so a walk over the schema finds every
/// invalid text and not just the first.
pub fn check_format(format: &str, text: &str) -> Option<Result<(), String>> {
    fn parses<T: std::str::FromStr<Err = String>>(text: &str) -> Result<(), String> {
        text.parse::<T>().map(drop)
    }
    Some(match format {
        Duration::FORMAT => parses::<Duration>(text),
        Size::FORMAT => parses::<Size>(text),
        RateText::FORMAT => parses::<RateText>(text),
        QuotaText::FORMAT => parses::<QuotaText>(text),
        ByteRate::FORMAT => parses::<ByteRate>(text),
        UtcOffset::FORMAT => parses::<UtcOffset>(text),
        Timestamp::FORMAT => parses::<Timestamp>(text),
        Network::FORMAT => parses::<Network>(text),
        Networks::FORMAT => parses::<Networks>(text),
        IpAddress::FORMAT => parses::<IpAddress>(text),
        Host::FORMAT => parses::<Host>(text),
        Path::FORMAT => parses::<Path>(text),
        Pattern::FORMAT => parses::<Pattern>(text),
        Header::FORMAT => parses::<Header>(text),
        HeaderText::FORMAT => parses::<HeaderText>(text),
        MethodName::FORMAT => parses::<MethodName>(text),
        Address::FORMAT => parses::<Address>(text),
        Listen::FORMAT => parses::<Listen>(text),
        AdminListen::FORMAT => parses::<AdminListen>(text),
        Field::FORMAT => parses::<Field>(text),
        Digest::FORMAT => parses::<Digest>(text),
        KeySource::FORMAT => parses::<KeySource>(text),
        CallUrl::FORMAT => parses::<CallUrl>(text),
        IssuerUrl::FORMAT => parses::<IssuerUrl>(text),
        Statuses::FORMAT => parses::<Statuses>(text),
        Name::FORMAT => parses::<Name>(text),
        Secret::FORMAT => parses::<Secret>(text),
        HashText::FORMAT => parses::<HashText>(text),
        File::FORMAT => parses::<File>(text),
        FollowedFile::FORMAT => parses::<FollowedFile>(text),
        FilePath::FORMAT => parses::<FilePath>(text),
        Folder::FORMAT => parses::<Folder>(text),
        SecretParameter::FORMAT => parses::<SecretParameter>(text),
        _ => return None,
    })
}

/// A fact about a text that follows from its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact<'t> {
    /// It is a secret, which is never shown.
    Secret,
    /// It is the path of a file that is read when the configuration is loaded: its content is a part of the
    /// configuration.
    File(&'t str),
    /// It is the path of a file that is read again whenever it changes.
    FollowedFile(&'t str),
    /// It is a path at which something is created; its content does not matter.
    Path(&'t str),
    /// It is the name of a query parameter whose values are secrets.
    SecretParameter(&'t str),
}

/// Returns the fact about a text of that format, if there is one.
pub fn fact_of<'t>(format: &str, text: &'t str) -> Option<Fact<'t>> {
    match format {
        // Where a digest belongs, the key itself may stand by mistake.
        Secret::FORMAT | HashText::FORMAT | Digest::FORMAT => Some(Fact::Secret),
        File::FORMAT => Some(Fact::File(text)),
        FollowedFile::FORMAT => Some(Fact::FollowedFile(text)),
        Networks::FORMAT => text.strip_prefix("file:").map(Fact::FollowedFile),
        FilePath::FORMAT => Some(Fact::Path(text)),
        AdminListen::FORMAT => text.strip_prefix("unix:").map(Fact::Path),
        SecretParameter::FORMAT => Some(Fact::SecretParameter(text)),
        KeySource::FORMAT => match text.strip_prefix("file:") {
            Some(path) => Some(Fact::FollowedFile(path)),
            // The query of a URL, and what stands before an @, may be credentials.
            None => text.contains(['?', '@']).then_some(Fact::Secret),
        },
        // The query of a URL may be a credential.
        CallUrl::FORMAT => text.contains('?').then_some(Fact::Secret),
        _ => None,
    }
}

/// Returns the normal form of a text of that format, where the format has one.
pub fn normal_form(format: &str, text: &str) -> Option<String> {
    match format {
        Listen::FORMAT => text.parse::<Listen>().ok().map(|listen| listen.0.to_string()),
        AdminListen::FORMAT => text.parse::<AdminListen>().ok().map(|listen| listen.0.to_string()),
        _ => None,
    }
}

/// Returns the regular expression in a text of that format, if it has one.
pub fn expression_of<'t>(format: &str, text: &'t str) -> Option<&'t str> {
    match format {
        Pattern::FORMAT => Some(text),
        Path::FORMAT => text.strip_prefix('~'),
        _ => None,
    }
}

/// Estimates how many bytes a regular expression takes once it is compiled, which the crate does not report; 0 for
/// one that does not compile.
pub fn expression_size(expression: &str) -> u64 {
    let fits = |most: &u64| regex::RegexBuilder::new(expression).size_limit(*most as usize).build().is_ok();
    [8 << 10, 64 << 10, 256 << 10, 1 << 20].into_iter().find(fits).unwrap_or(0)
}

/// Defines a type that is written as text: `text_type!(Doc, Name(Inner), "format", ["example"], parser)`.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident($inner:ty), $format:literal, [$($example:literal),*], $parse:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name(pub $inner);

        impl $name {
            /// The name of the format in the schema.
            pub const FORMAT: &'static str = $format;
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                let parse: fn(&str) -> Result<$inner, String> = $parse;
                parse(text).map(Self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(|wanted: String| serde::de::Error::custom(format!("expected {wanted}")))
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "format": $format, "examples": [$($example),*]})
            }
        }
    };
}

pub(super) use text_type;
