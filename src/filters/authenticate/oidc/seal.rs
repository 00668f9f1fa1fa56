//! Sealed texts: what a client keeps for the gateway, and can neither read nor change.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The keys of sealed texts. The first one seals, all of them open.
pub struct SealKeys(Vec<LessSafeKey>);

impl std::fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SealKeys(secret)")
    }
}

impl SealKeys {
    /// Derives a key from each secret for one purpose (HKDF, RFC 5869): keys of different purposes are unrelated.
    pub fn derive<'s>(secrets: impl Iterator<Item = &'s [u8]>, purpose: &[u8]) -> Option<Self> {
        let derive = |secret: &[u8]| {
            let mut key = [0; 32];
            let random = hkdf::Salt::new(hkdf::HKDF_SHA256, b"portcullis sealed cookies").extract(secret);
            random.expand(&[purpose], hkdf::HKDF_SHA256).ok()?.fill(&mut key).ok()?;
            Some(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).ok()?))
        };
        secrets.map(derive).collect::<Option<Vec<_>>>().map(Self)
    }

    /// Seals a text for one use, as base64url: nonce, ciphertext and tag.
    pub fn seal(&self, usage: &[u8], text: &[u8]) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = text.to_vec();
        let key = self.0.first()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(usage), &mut sealed).ok()?;
        Some(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// Opens a sealed text; `None` if it was changed, or sealed with another key or for another use.
    pub fn open(&self, usage: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        self.0.iter().find_map(|key| {
            let mut buffer = sealed.to_vec();
            let opened = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(usage), &mut buffer).ok()?;
            Some(opened.to_vec())
        })
    }
}

/// Returns a random text of 256 bits; `None` if the system has no random numbers.
pub fn random_text() -> Option<String> {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(secrets: &[&str], purpose: &str) -> SealKeys {
        SealKeys::derive(secrets.iter().map(|secret| secret.as_bytes()), purpose.as_bytes()).expect("keys")
    }

    #[test]
    fn only_the_same_keys_and_the_same_use_open_what_is_unchanged() {
        let ours = keys(&["a"], "p");
        let sealed = ours.seal(b"use", b"text").expect("sealed");
        assert_eq!(ours.open(b"use", sealed.as_bytes()).as_deref(), Some(&b"text"[..]));
        assert_ne!(ours.seal(b"use", b"text").as_deref(), Some(sealed.as_str()), "each has its own nonce");
        assert!(ours.open(b"other", sealed.as_bytes()).is_none());
        assert!(keys(&["b"], "p").open(b"use", sealed.as_bytes()).is_none());
        assert!(keys(&["a"], "q").open(b"use", sealed.as_bytes()).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(ours.open(b"use", &changed).is_none(), "{at}");
        }
        for wrong in ["", "a", "!", &sealed[1..], &sealed[..20]] {
            assert!(ours.open(b"use", wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn an_earlier_key_still_opens() {
        let sealed = keys(&["old"], "p").seal(b"", b"text").expect("sealed");
        let both = keys(&["new", "old"], "p");
        assert!(both.open(b"", sealed.as_bytes()).is_some());
        let sealed = both.seal(b"", b"text").expect("sealed");
        assert!(keys(&["old"], "p").open(b"", sealed.as_bytes()).is_none(), "the first one seals");
    }
}
