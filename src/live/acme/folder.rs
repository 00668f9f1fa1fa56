//! The state folder: the account's key, orders under way, certificates.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};

use crate::tls::{chain_and_key, read_text};

/// The largest file that is read.
const MAX_FILE: u64 = 1 << 20;

/// A folder that only the gateway's user may read.
#[derive(Debug)]
pub struct Folder(PathBuf);

/// An order under way.
#[derive(Serialize, Deserialize)]
pub struct SavedOrder {
    /// Its URL.
    pub url: String,
    /// The key of the certificate, in PEM.
    pub key: String,
}

impl Folder {
    /// Returns the folder at that path, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Creates the folder where it does not exist, and locks it; returns `None` if another process has the lock.
    ///
    /// # Errors
    /// When it can be neither created nor written to.
    pub fn lock(&self) -> Result<Option<Flock<File>>, String> {
        let wrong = |error: std::io::Error| format!("the folder {} cannot be used: {error}", self.0.display());
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0).map_err(wrong)?;
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(self.0.join("lock"));
        match Flock::lock(file.map_err(wrong)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(wrong(error.into())),
        }
    }

    fn path(&self, names: &[String], extension: &str) -> PathBuf {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, names.join(",").as_bytes());
        let tail = digest.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>();
        let first = names.first().map_or("", String::as_str);
        self.0.join(format!("{first}-{tail}.{extension}"))
    }

    /// Writes a file as a whole: after a crash there is the old one or the new one.
    fn write(path: &Path, content: &str) -> Result<(), String> {
        let wrong = |error: std::io::Error| format!("{} cannot be written: {error}", path.display());
        let new = path.with_extension("new");
        let mut file =
            OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new).map_err(wrong)?;
        file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).map_err(wrong)?;
        std::fs::rename(&new, path).map_err(wrong)?;
        let folder = path.parent().map_or(Ok(()), |folder| File::open(folder).and_then(|folder| folder.sync_all()));
        folder.map_err(wrong)
    }

    /// Returns the certificate of those names, if there is a usable one.
    pub fn certificate(&self, names: &[String]) -> Option<CertifiedKey> {
        let path = self.path(names, "pem");
        if !path.exists() {
            return None;
        }
        // Key and chain are in one file, so that they always belong together.
        match chain_and_key(&path, &path) {
            Ok(certified) => Some((*certified).clone()),
            Err(error) => {
                log::error!("ACME: {error}");
                None
            }
        }
    }

    /// Saves a certificate with its key, and forgets its order.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_certificate(&self, names: &[String], key: &str, chain: &str) -> Result<(), String> {
        Self::write(&self.path(names, "pem"), &format!("{}\n{chain}", key.trim_end()))?;
        self.forget_order(names);
        Ok(())
    }

    /// Returns the order of a certificate of those names that is under way.
    pub fn order(&self, names: &[String]) -> Option<SavedOrder> {
        serde_json::from_str(&read_text(&self.path(names, "order"), MAX_FILE).ok()?).ok()
    }

    /// Saves an order.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_order(&self, names: &[String], order: &SavedOrder) -> Result<(), String> {
        Self::write(&self.path(names, "order"), &serde_json::to_string(order).map_err(|e| e.to_string())?)
    }

    /// Forgets an order.
    pub fn forget_order(&self, names: &[String]) {
        let _ = std::fs::remove_file(self.path(names, "order"));
    }

    /// Returns the key of the account in PEM.
    ///
    /// # Errors
    /// When there is a file that cannot be read: another key would be another account.
    pub fn account_key(&self) -> Result<Option<String>, String> {
        let path = self.0.join("account.key");
        if !path.exists() {
            return Ok(None);
        }
        read_text(&path, MAX_FILE).map(Some).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Saves the key of the account.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_account_key(&self, pem: &str) -> Result<(), String> {
        Self::write(&self.0.join("account.key"), pem)
    }
}
