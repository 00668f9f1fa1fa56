//! The whole way of a request and of a response, over a file with every kind of field.

use prost_reflect::{DescriptorPool, DynamicMessage};
use protox::Compiler;
use protox::file::{File, FileResolver, GoogleFileResolver};

use super::{Api, ApiScope, JsonStyle, bundled_proto};

struct Sample(&'static str);

impl FileResolver for Sample {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match (name, bundled_proto(name)) {
            ("sample.proto", _) => File::from_source(name, self.0),
            (_, Some(text)) => File::from_source(name, text),
            (_, None) => GoogleFileResolver::new().open_file(name),
        }
    }
}

/// Returns the descriptors of a file.
pub(super) fn pool(text: &'static str) -> DescriptorPool {
    let mut compiler = Compiler::with_file_resolver(Sample(text));
    for name in ["sample.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"] {
        compiler.open_file(name).unwrap_or_else(|error| panic!("{error:?}"));
    }
    compiler.descriptor_pool()
}

pub(super) fn api_of(text: &'static str) -> Result<Api, Vec<String>> {
    Api::new(&pool(text), &ApiScope { files: &["sample.proto".to_owned()], services: &[], unruled: false })
}

pub(super) const KINDS: &str = include_str!("samples/kinds.proto");

pub(super) fn kinds() -> Api {
    api_of(KINDS).expect("an API")
}

/// Without defaults.
pub(super) const SPARSE: JsonStyle = JsonStyle { defaults: false, proto_names: false, enum_numbers: false };

/// Returns the JSON of an encoded message, as another library has it.
pub(super) fn oracle(pool: &DescriptorPool, name: &str, bytes: &[u8]) -> serde_json::Value {
    let message = pool.get_message_by_name(name).expect("a message");
    let message = DynamicMessage::decode(message, bytes).expect("an encoding");
    serde_json::to_value(&message).expect("JSON")
}
