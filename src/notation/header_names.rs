//! The names of header fields whose values are secrets.

/// Fields whose values are credentials (RFC 9110, sections 11.6.2 and 11.7.2; RFC 6265), and those that APIs use for
/// keys.
const CREDENTIALS: [&str; 7] =
    ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "apikey", "x-auth-token"];

/// Returns whether the values of a header field of that name are credentials, which are never shown.
pub fn carries_credentials(name: &str) -> bool {
    CREDENTIALS.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// Words in the name of a field or a parameter that mark its value as a secret.
const SECRET_WORDS: [&str; 9] = ["token", "key", "secret", "pass", "auth", "sig", "code", "session", "credential"];

/// Returns whether a name, in any case, has a word in it that marks its value as a secret.
pub fn is_named_like_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}
