//! What tests and benches use of the crate beside the binary. Nothing else is public, so that rustc names what is
//! unused.

pub mod fuzz;

use std::net::SocketAddr;
use std::path::Path;

pub use crate::clients::{DnsError, Family, ResolvedAddresses, Resolver};
pub use crate::config::schema;
pub use crate::live::Buckets;
pub use crate::process::{Message, receive, send};
pub use crate::rules::balance::{Algorithm, Ewma, Loads, PickInput, Seat, hash_key};
pub use crate::rules::expressions::{Expression, Fact, FactKind, Facts, Members};
pub use crate::rules::frames::WebSocketFrames;
pub use crate::rules::identity::Networks;
pub use crate::rules::limits::{Window, WindowKind, Windows};
pub use crate::rules::payload::{
    Coding, CompressionLevel, Decoder, Editor, Encoder, Fields, Hashes, MaskText, Masks, Renames, SetPaths, SetValues,
    Step, Stripper,
};
pub use crate::rules::routing::{EntryOperation, Predicates, RequestFacts, RouteEntry, RouteMatch, Router};
pub use crate::rules::templating::{BodyTemplate, OutputForm, json_value};
pub use crate::tls::install_provider;

use crate::config::{Flat, Loaded, load_text};
use crate::live::Live;
use crate::process::{ConfigSource, Options, Started, start};
use crate::rules::schema::{CompiledSchema, DocumentReader, parse_json};

/// A gateway inside the process of a test.
pub struct TestGateway(Started);

impl TestGateway {
    /// Starts a gateway with that configuration.
    ///
    /// # Errors
    /// Returns what is wrong with the configuration.
    pub async fn start(text: String) -> Result<Self, String> {
        let source = ConfigSource::Text { text, name: "c.yaml".to_owned(), base: ".".into() };
        start(Options { source, upgrade: false }).await.map(Self).map_err(|failure| failure.to_string())
    }

    /// Returns the address of the first listener.
    pub fn address(&self) -> Option<SocketAddr> {
        self.0.supervisor.addresses().first().map(|(_, address)| *address)
    }

    /// Drains the gateway and ends it.
    pub async fn end(self) {
        self.0.supervisor.end();
        self.0.until_end().await;
    }
}

/// A JSON Schema for bodies.
pub struct BodySchema(CompiledSchema);

impl BodySchema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn new(schema: serde_json::Value) -> Result<Self, String> {
        let mut reader = DocumentReader::new(std::sync::Arc::new(|_| Err("no file is read".to_owned())), Vec::new());
        let file = reader.add_inline(Path::new("schema"), schema);
        CompiledSchema::standalone(reader, file).map(|(schema, _)| Self(schema)).map_err(|fault| fault.to_string())
    }

    /// Returns whether a body is JSON, and valid.
    pub fn accepts(&self, body: &[u8]) -> bool {
        parse_json(body).is_ok_and(|value| self.0.is_valid(&value))
    }
}

/// A configuration that has been read.
pub struct Configuration(Loaded);

impl Configuration {
    /// Reads a configuration; relative paths in it begin at `base`.
    ///
    /// # Errors
    /// Returns the errors in the configuration, each with its place.
    pub fn read(text: &str, base: &Path) -> Result<Self, Vec<String>> {
        load_text(text, "c.yaml", base).map(Self).map_err(|mistakes| mistakes.lines())
    }

    /// Compiles the configuration and returns the warnings.
    ///
    /// # Errors
    /// Returns the errors in the configuration, each with its place.
    pub fn compile(&self) -> Result<Vec<String>, Vec<String>> {
        let compiled = crate::compile::compile(&self.0, &Live::default());
        compiled
            .map(|snapshot| snapshot.warnings.iter().map(ToString::to_string).collect())
            .map_err(|mistakes| mistakes.lines())
    }

    /// Returns the whole configuration as `diff` shows it.
    pub fn shown(&self) -> Vec<String> {
        let (none, flat, start) = (Flat::default(), self.0.flat(), self.0.at_start());
        let changes = none.changes(&flat, &none).into_iter().chain(none.changes(&none, &start));
        changes.map(|change| change.to_string()).collect()
    }
}
