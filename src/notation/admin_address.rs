//! The address of the admin listener.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::text::text_type;

/// The address of the admin listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// There is no admin listener.
    None,
    /// A TCP socket.
    Tcp(SocketAddr),
    /// A Unix socket (unix(7)).
    Unix(PathBuf),
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Words for "no listener" that are not in the notation: YAML 1.1 reads some of them as booleans.
const OTHER_WORDS_FOR_NONE: &[&str] = &["off", "no", "false", "disabled", "disable", "never", "null", "~"];

/// Returns whether the text is a word for "no listener" that is not in the notation.
fn is_other_word_for_none(text: &str) -> bool {
    OTHER_WORDS_FOR_NONE.iter().any(|word| text.eq_ignore_ascii_case(word))
}

text_type!(
    /// The address of the admin listener: `127.0.0.1:9901`, `unix:/run/portcullis/admin.sock`, or `none`.
    AdminListen(AdminAddress), "admin-address", ["127.0.0.1:9901", "unix:/run/portcullis/admin.sock", "none"], |text| {
        let wanted = "an address and port such as 127.0.0.1:9901, unix: and the path of a socket, or none";
        match text.strip_prefix("unix:") {
            Some("") => Err(wanted.to_owned()),
            Some(path) => Ok(AdminAddress::Unix(path.into())),
            None if text == "none" => Ok(AdminAddress::None),
            None if is_other_word_for_none(text) => Err("none for a gateway without an admin listener".to_owned()),
            None => text.parse().map(AdminAddress::Tcp).map_err(|_| wanted.to_owned()),
        }
    }
);

// The schema has the default in the form in which it is read.
impl serde::Serialize for AdminListen {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in ["127.0.0.1:9901", "[::1]:0", "unix:/run/p/admin.sock", "unix:admin.sock", "none"] {
            assert_eq!(text.parse::<AdminListen>().expect("an address").0.to_string(), text);
        }
        for text in ["", "unix:", "/run/p/admin.sock", "9901", "off"] {
            assert!(text.parse::<AdminListen>().is_err(), "{text}");
        }
    }
}
