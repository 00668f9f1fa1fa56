//! What tests and benches use of the crate beside the binary. Nothing else is public, so that rustc names what is unused.

use std::net::SocketAddr;
use std::path::Path;

pub use crate::clients::{Addresses, DnsError, Family, Resolver};
pub use crate::config::schema;
pub use crate::live::Buckets;
pub use crate::process::{Message, receive, send};
pub use crate::rules::balance::{Algorithm, Ask, Ewma, Loads, Seat, hash_key};
pub use crate::rules::frames::Frames;
pub use crate::rules::limits::Gcra;
pub use crate::rules::payload::{Coding, Decoder, Editor, Encoder, Fields, Level, MaskText, Masks, Renames, Step, Stripper};
pub use crate::rules::routing::{Entry, Predicates, Question, Router, Verdict};
pub use crate::tls::install_provider;

use crate::config::{Flat, Loaded, load_text};
use crate::live::Live;
use crate::process::{Options, Source, Started, start};

/// A gateway within the process of a test.
pub struct Gateway(Started);

impl Gateway {
    /// Starts a gateway with that configuration.
    ///
    /// # Errors
    /// Says what is wrong.
    pub async fn start(text: String) -> Result<Self, String> {
        let source = Source::Text { text, name: "c.yaml".to_owned(), base: ".".into() };
        start(Options { source, upgrade: false }).await.map(Self).map_err(|failure| failure.to_string())
    }

    /// Returns the address of its first listener.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.supervisor.addresses().first().map(|(_, address)| *address)
    }

    /// Ends it, once it has drained.
    pub async fn end(self) {
        self.0.supervisor.end();
        self.0.until_end().await;
    }
}

/// A configuration that was read.
pub struct Configuration(Loaded);

impl Configuration {
    /// Reads a configuration, whose relative paths begin at `base`.
    ///
    /// # Errors
    /// The errors in it, each with its place.
    pub fn read(text: &str, base: &Path) -> Result<Self, Vec<String>> {
        load_text(text, "c.yaml", base).map(Self).map_err(|mistakes| mistakes.lines())
    }

    /// Compiles it; the warnings.
    ///
    /// # Errors
    /// The errors in it, each with its place.
    pub fn compile(&self) -> Result<Vec<String>, Vec<String>> {
        let compiled = crate::compile::compile(&self.0, &Live::default());
        compiled.map(|snapshot| snapshot.warnings).map_err(|mistakes| mistakes.lines())
    }

    /// Returns how `diff` shows all of it.
    pub fn shown(&self) -> Vec<String> {
        let (none, flat, start) = (Flat::default(), self.0.flat(), self.0.at_start());
        let changes = none.changes(&flat, &none).into_iter().chain(none.changes(&none, &start));
        changes.map(|change| change.to_string()).collect()
    }
}
