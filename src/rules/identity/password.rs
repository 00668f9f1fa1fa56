//! Hashes of passwords: argon2id (RFC 9106) as a PHC string, and bcrypt.

use std::fmt;
use std::str::FromStr;

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};

/// The maximum memory of one verification, in KiB.
const MAX_MEMORY: u32 = 256 << 10;

/// The maximum numbers of passes and of lanes of argon2id.
const MAX_PASSES: u32 = 32;
const MAX_LANES: u32 = 16;

/// The maximum cost of bcrypt: each step doubles the time, and this cost takes seconds.
const MAX_COST: u32 = 15;

/// The expected form of a hash, and how to make one.
const WANTED: &str = "the hash of a password, argon2id ($argon2id$…) or bcrypt ($2b$…), as `portcullis hash` and \
                      `htpasswd -nbBC 12 NAME PASSWORD` make it";

/// The hash of a password.
#[derive(Clone)]
pub struct PasswordHash {
    text: Box<str>,
    kind: HashKind,
}

#[derive(Clone)]
enum HashKind {
    Argon2id(Box<phc::PasswordHash>),
    Bcrypt,
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl FromStr for PasswordHash {
    type Err = String;

    /// Parses a hash whose costs are within bounds. An error repeats no part of the text, which may be a password.
    fn from_str(text: &str) -> Result<Self, String> {
        let kind = match text.strip_prefix('$').and_then(|rest| rest.split('$').next()) {
            Some("argon2id") => HashKind::Argon2id(Box::new(argon2id(text)?)),
            Some("2a" | "2b" | "2y") => bcrypt(text)?,
            Some("argon2i" | "argon2d") => return Err(format!("{WANTED}; of argon2 the variant argon2id")),
            Some("apr1" | "1" | "5" | "6" | "y") => return Err(format!("{WANTED}; htpasswd needs -B")),
            None if text.starts_with("{SHA}") => return Err(format!("{WANTED}; htpasswd needs -B")),
            Some(_) => return Err(WANTED.to_owned()),
            None => return Err(format!("{WANTED}, and not the password itself")),
        };
        Ok(Self { text: text.into(), kind })
    }
}

fn argon2id(text: &str) -> Result<phc::PasswordHash, String> {
    let hash = phc::PasswordHash::new(text).map_err(|_| WANTED.to_owned())?;
    let params = Params::try_from(&hash).map_err(|_| WANTED.to_owned())?;
    if hash.hash.is_none()
        || hash.salt.is_none()
        || hash.version.is_some_and(|version| version != u32::from(Version::V0x13))
    {
        return Err(format!("{WANTED}, of version 19 (0x13)"));
    }
    if params.m_cost() > MAX_MEMORY || params.t_cost() > MAX_PASSES || params.p_cost() > MAX_LANES {
        let memory = MAX_MEMORY >> 10;
        return Err(format!(
            "argon2id with at most {memory} MiB of memory (m={MAX_MEMORY}), {MAX_PASSES} passes and {MAX_LANES} \
            lanes: each \
             verification takes as much"
        ));
    }
    Ok(hash)
}

fn bcrypt(text: &str) -> Result<HashKind, String> {
    let parts: bcrypt::HashParts = text.parse().map_err(|_| WANTED.to_owned())?;
    if !(4..=MAX_COST).contains(&parts.get_cost()) {
        return Err(format!("bcrypt with a cost from 4 to {MAX_COST}: each verification takes as long"));
    }
    Ok(HashKind::Bcrypt)
}

impl PasswordHash {
    /// Returns the encoded hash: a secret, since passwords can be guessed from it.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// Returns whether this is the hash of `password`. The comparison takes constant time; the computation takes as
    /// long as the costs require. bcrypt uses only the first 72 bytes of a password.
    ///
    /// # Errors
    /// When no memory can be allocated.
    pub fn verify(&self, password: &[u8]) -> Result<bool, &'static str> {
        match &self.kind {
            HashKind::Argon2id(hash) => match Argon2::default().verify_password(password, hash.as_ref()) {
                Ok(()) => Ok(true),
                Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
                Err(_) => Err("a password cannot be verified: there is no memory for it"),
            },
            HashKind::Bcrypt => bcrypt::verify(password, &self.text).map_err(|_| "a password cannot be verified"),
        }
    }

    /// Returns the hash of a password: argon2id with 19 MiB and two passes, as OWASP recommends it.
    ///
    /// # Errors
    /// When no memory can be allocated.
    pub fn make(password: &[u8], salt: &[u8; 16]) -> Result<String, &'static str> {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default());
        let hash = argon2.hash_password_with_salt(password, salt).map_err(|_| "there is no memory for it")?;
        Ok(hash.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_of_other_programs_verify() {
        // Of the reference implementation: printf %s PASSWORD | argon2 somesalt -id -t 2 -k 256 -p 1
        let argon2id = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
        // Of OpenBSD's bcrypt, and of htpasswd -B.
        let bcrypt = "$2a$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.";
        for (hash, password) in [(argon2id, "password"), (bcrypt, "")] {
            let hash: PasswordHash = hash.parse().expect("a hash");
            assert_eq!((hash.verify(password.as_bytes()), hash.verify(b"passwore")), (Ok(true), Ok(false)));
            assert_eq!(format!("{hash:?}"), "(secret)");
        }
        let made = PasswordHash::make("pässword".as_bytes(), &[7; 16]).expect("a hash");
        assert!(made.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{made}");
        assert_eq!(made.parse::<PasswordHash>().expect("a hash").verify("pässword".as_bytes()), Ok(true));
    }

    #[test]
    fn what_is_no_hash_or_costs_too_much_is_rejected_and_not_repeated() {
        for (wrong, why) in [
            ("s3cret", "not the password itself"),
            ("s3cret$2b$", "not the password itself"),
            ("$apr1$s3cret$x", "htpasswd needs -B"),
            ("{SHA}s3cret", "htpasswd needs -B"),
            (
                "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
                "the variant argon2id",
            ),
            ("$argon2id$v=16$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "version 19"),
            ("$argon2id$v=19$m=262145,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "256 MiB"),
            ("$argon2id$v=19$m=256,t=33,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", "32 passes"),
            ("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ", "version 19"),
            ("$argon2id$s3cret", "the hash of a password"),
            ("$2b$16$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.", "from 4 to 15"),
            ("$2b$06$s3cret", "the hash of a password"),
            ("$2x$06$DCq7YPn5Rq63x1Lad4cll.TV4S6ytwfsfvkgY8jIucDrjc8deX1s.", "the hash of a password"),
            ("", "not the password itself"),
        ] {
            let error = wrong.parse::<PasswordHash>().expect_err(wrong);
            assert!(error.contains(why) && !error.contains("s3cret"), "{wrong}: {error}");
        }
    }
}
