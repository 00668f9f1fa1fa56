//! Schemas: JSON Schema 2020-12, and the documents of OpenAPI 3.0 and 3.1 that use it.
//!
//! A schema is compiled once, when the configuration is loaded. On a request a valid value costs one pass over it; the
//! list of violations is made only for an invalid one, and repeats no value of it.

mod compiled;
mod diagnosis;
mod document;
mod instance;
pub mod openapi;
mod reading;
mod violation;

pub use compiled::CompiledSchema;
pub use document::{DocumentReader, FileReader, SchemaFault};
pub use instance::parse_json;
pub use violation::{Violation, ViolationPlace};
