//! Random secrets of a process, which its successors take over.

use std::sync::Arc;

use aws_lc_rs::rand;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::heritable::{HandoverPart, Heritable};
use crate::tls::{SavedTicketKeys, TicketKeys};

/// The random secrets.
pub struct Secrets {
    sticky: Mutex<[u8; 32]>,
    /// The keys of TLS session tickets.
    pub tickets: Arc<TicketKeys>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(secret)")
    }
}

impl Default for Secrets {
    fn default() -> Self {
        let mut sticky = [0; 32];
        // If the system's generator fails nothing else works either; a key of zeros still hides addresses from all
        // who do not know that.
        let _ = rand::fill(&mut sticky);
        Self { sticky: Mutex::new(sticky), tickets: Arc::default() }
    }
}

impl Secrets {
    /// Returns the key of sticky sessions for which the configuration has none.
    pub fn sticky(&self) -> [u8; 32] {
        *self.sticky.lock()
    }
}

#[derive(Serialize, Deserialize)]
struct SavedSecrets {
    sticky: [u8; 32],
    tickets: SavedTicketKeys,
}

impl Heritable for Secrets {
    fn kind(&self) -> &'static str {
        "secrets"
    }

    fn version(&self) -> u32 {
        1
    }

    fn save(&self, part: HandoverPart) -> serde_json::Result<Option<Vec<u8>>> {
        // Once the successor serves it makes its own.
        let wanted = part != HandoverPart::Late;
        wanted
            .then(|| serde_json::to_vec(&SavedSecrets { sticky: self.sticky(), tickets: self.tickets.give() }))
            .transpose()
    }

    fn restore(&self, form: &[u8]) -> serde_json::Result<usize> {
        let given: SavedSecrets = serde_json::from_slice(form)?;
        *self.sticky.lock() = given.sticky;
        self.tickets.take(given.tickets);
        Ok(2)
    }
}
