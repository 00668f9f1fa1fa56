//! The formats as regular expressions, for validators that know no formats of ours.

use super::admin_address::AdminListen;
use super::types::*;

/// What is not empty.
const ANY: &str = r"[\s\S]";

/// Returns an expression that each valid text of that format matches, and as few others as is simple. It is in the part
/// of ECMA-262 that Python and Rust read in the same way.
pub fn pattern_of(format: &str) -> Option<&'static str> {
    Some(match format {
        Duration::FORMAT => r"^\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*(ms|s|m|h|d)\s*$",
        Size::FORMAT => r"^\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*(B|KB|MB|GB|KiB|MiB|GiB)\s*$",
        RateText::FORMAT => r"^\s*[0-9]+\s*/\s*(([0-9]+\.?[0-9]*|\.[0-9]+)\s*(ms|s|m|h|d)|s|m|h|d)\s*$",
        QuotaText::FORMAT => r"^\s*[0-9]+\s*/\s*(hour|day|week|month)\s*$",
        Timestamp::FORMAT => {
            r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
        }
        Network::FORMAT => r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$",
        IpAddress::FORMAT => r"^[0-9A-Fa-f:.]+$",
        Networks::FORMAT => r"^(file:[\s\S]+|[0-9A-Fa-f:.]+(/[0-9]{1,3})?)$",
        Host::FORMAT => r"^(\*|(\*\.)?([A-Za-z0-9-]|[A-Za-z0-9_-][A-Za-z0-9._-]*[A-Za-z0-9_-])|\[[0-9A-Fa-f:.]+\])$",
        Path::FORMAT => r"^(~[\s\S]*|(/([^/?#:\s][^/?#\s]*|:[^/?#A-Za-z\s][^/?#\s]*|:)?)+)$",
        Pattern::FORMAT => r"^[\s\S]*$",
        Header::FORMAT => r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$",
        HeaderText::FORMAT => r"^[^\x00-\x08\x0a-\x1f\x7f]*$",
        MethodName::FORMAT => r"^[A-Z-]+$",
        Address::FORMAT => r"^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):0*[1-9][0-9]{0,4}$",
        Listen::FORMAT => r"^([0-9.]+|\[[0-9A-Fa-f:.]+(%[0-9]+)?\]):[0-9]{1,5}$",
        AdminListen::FORMAT => r"^(none|unix:[\s\S]+|([0-9.]+|\[[0-9A-Fa-f:.]+(%[0-9]+)?\]):[0-9]{1,5})$",
        Field::FORMAT => r"^(/[\s\S]*|\$[.\[][\s\S]+|[^$./\]][\s\S]*)$",
        Digest::FORMAT => r"^[0-9A-Fa-f]{64}$",
        KeySource::FORMAT => r"^(file:[\s\S]+|https?://[\s\S]+)$",
        Statuses::FORMAT => {
            r"^\s*([0-9]{3}(\s*-\s*[0-9]{3})?|[1-5]xx)\s*(,\s*([0-9]{3}(\s*-\s*[0-9]{3})?|[1-5]xx)\s*)*$"
        }
        Name::FORMAT => r"^[A-Za-z0-9._-]{1,64}$",
        HashText::FORMAT => r"^\$(argon2id|2[aby])\$",
        Secret::FORMAT | File::FORMAT | FollowedFile::FORMAT | FilePath::FORMAT | SecretParameter::FORMAT => ANY,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::check_format;
    use super::*;

    /// Texts of all formats, right and wrong ones.
    const TEXTS: &[&str] = &[
        "",
        " ",
        "5",
        "5s",
        "1.5m",
        ".5h",
        "5.d",
        " 10 ms ",
        "5x",
        "s",
        "1KiB",
        "10MB",
        "1mb",
        "2B",
        "10/s",
        "5/10s",
        "1/s ",
        "1 / 0.5h",
        "fast",
        "1000/day",
        "5 / month",
        "5/2day",
        "2027-01-31T00:00:00Z",
        "2027-01-31T00:00:00.5+01:00",
        "2027-01-31",
        "10.0.0.0/8",
        "2001:db8::/32",
        "192.0.2.7",
        "*",
        "*.example.com",
        "example.com",
        ".example.com",
        "a_b.c",
        "_",
        "_x",
        "a.",
        "[::1]",
        "a:80",
        "é.com",
        "/",
        "/a",
        "/a/",
        "/a/{id}",
        "/a/*",
        "/v1/users:batch",
        "/c/:id",
        "/c/:8",
        "/a?b",
        "a/b",
        "~^/v[0-9]",
        "~",
        "x-api-key",
        "X Y",
        "no-store",
        "a\tb",
        "a\nb",
        "GET",
        "get",
        "M-SEARCH",
        "10.0.0.11:9001",
        "users.internal:80",
        "[::1]:80",
        "10.0.0.1",
        "b:0",
        "0.0.0.0:8080",
        "[::]:8443",
        "localhost:1",
        ":80",
        "none",
        "off",
        "unix:/run/a.sock",
        "ssn",
        "a.b",
        "items.*.cost",
        "**.internal",
        "$.a",
        "/a/b",
        "a[*]",
        "$a",
        "$",
        ".a",
        "file:a.json",
        "https://id.example/keys",
        "keys.json",
        "200",
        "200-399",
        "2xx,404",
        "200, 201",
        "6xx",
        "99",
        "users",
        "my api",
        "$2b$12$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZ012345",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "e3b0",
    ];

    const FORMATS: &[&str] = &[
        "duration",
        "size",
        "rate",
        "quota",
        "timestamp",
        "network",
        "networks",
        "host-pattern",
        "path-pattern",
        "regular-expression",
        "header-name",
        "header-value",
        "method",
        "address",
        "listen-address",
        "admin-address",
        "field",
        "sha256",
        "key-source",
        "statuses",
        "name",
        "password-hash",
        "secret",
        "file",
        "followed-file",
        "path",
        "secret-parameter",
    ];

    /// A valid text is never rejected. Of the wrong ones some pass, which only the gateway knows.
    #[test]
    fn patterns_agree_with_the_parsers() {
        for format in FORMATS {
            let pattern = regex::Regex::new(pattern_of(format).expect("a pattern")).expect("an expression");
            for text in TEXTS {
                let is_valid = check_format(format, text).expect("a format").is_ok();
                assert!(!is_valid || pattern.is_match(text), "{format} rejects {text:?}");
                // Ranges of numbers and normal forms are not for patterns.
                let is_beyond =
                    matches!(
                        *format,
                        "regular-expression"
                            | "path-pattern"
                            | "field"
                            | "network"
                            | "networks"
                            | "listen-address"
                            | "password-hash"
                    ) || matches!((*format, *text), ("admin-address", "10.0.0.11:9001") | ("statuses", "6xx" | "99"));
                assert!(is_valid || is_beyond || !pattern.is_match(text), "{format} accepts {text:?}");
            }
        }
        for (format, wrong) in [("path-pattern", "/c/:id"), ("path-pattern", "a/b"), ("listen-address", ":80")] {
            assert!(
                !regex::Regex::new(pattern_of(format).expect("a pattern")).expect("fine").is_match(wrong),
                "{wrong}"
            );
        }
    }
}
