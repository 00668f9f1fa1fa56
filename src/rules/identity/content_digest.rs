//! The digest of a message's content (RFC 9530).

use aws_lc_rs::digest::{Algorithm, SHA256, SHA512, digest};
use http::HeaderMap;
use sfv::{BareItem, Dictionary, Item, ListEntry, Parser};

/// The algorithms that prove that the content is unchanged; others of the registry do not.
const ALGORITHMS: [(&str, &Algorithm); 2] = [("sha-256", &SHA256), ("sha-512", &SHA512)];

/// Checks that `Content-Digest` has a digest by a secure algorithm, and that all such digests are those of `body`.
///
/// # Errors
/// Returns what is wrong; the text may be sent to the client.
pub fn check_content_digest(headers: &HeaderMap, body: &[u8]) -> Result<(), &'static str> {
    let mut joined = Vec::new();
    for value in headers.get_all("content-digest") {
        if !joined.is_empty() {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(value.as_bytes());
    }
    if joined.is_empty() {
        return Err("Content-Digest is missing");
    }
    let digests: Dictionary = Parser::new(&joined).parse().map_err(|_| "Content-Digest is malformed")?;
    let mut is_proven = false;
    for (name, algorithm) in ALGORITHMS {
        match digests.get(name) {
            None => {}
            Some(ListEntry::Item(Item { bare_item: BareItem::ByteSequence(bytes), .. })) => {
                if digest(algorithm, body).as_ref() != bytes.as_slice() {
                    return Err("Content-Digest is not that of the content");
                }
                is_proven = true;
            }
            Some(_) => return Err("Content-Digest is malformed"),
        }
    }
    if is_proven { Ok(()) } else { Err("Content-Digest has neither sha-256 nor sha-512") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_the_standard_and_wrong_ones() {
        let body = b"{\"hello\": \"world\"}";
        // RFC 9530, appendix D, and RFC 9421, appendix B.2.
        let sha256 = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
        let sha512 =
            "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:";
        let check = |values: &[&str], body: &[u8]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("content-digest", value.parse().expect("a value"));
            }
            check_content_digest(&headers, body)
        };
        assert_eq!(check(&[sha256], body), Ok(()));
        assert_eq!(check(&[sha512], body), Ok(()));
        assert_eq!(check(&[sha256, sha512], body), Ok(()));
        assert_eq!(check(&["md5=:AAAA:", sha512], body), Ok(()));
        let other = "Content-Digest is not that of the content";
        assert_eq!(check(&[sha256], b"{}"), Err(other));
        assert_eq!(check(&[sha256, "sha-512=:AAAA:"], body), Err(other));
        assert_eq!(check(&["sha-256=::"], b""), Err(other));
        assert_eq!(check(&[], b""), Err("Content-Digest is missing"));
        assert_eq!(check(&["md5=:AAAA:"], body), Err("Content-Digest has neither sha-256 nor sha-512"));
        for wrong in ["sha-256=1", "sha-256=(:AAAA:)", "sha-256", "=", ":AAAA:", "sha-256=:*:"] {
            assert_eq!(check(&[wrong], body), Err("Content-Digest is malformed"), "{wrong}");
        }
    }
}
