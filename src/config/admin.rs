//! `admin: ADDRESS`, which stands for `admin: {address: ADDRESS}`.

use schemars::{Schema, SchemaGenerator};

use super::tree::{MapKey, Node, Value, is_true};
use super::{AdminConfig, tree::Spot};
use crate::notation::AdminListen;

/// Replaces an address by the mapping that it stands for. `false` becomes one too: its check says what to write.
pub fn expand(tree: &mut Node) {
    let Value::Map(sections) = &mut tree.value else { return };
    let Some((_, admin)) = sections.iter_mut().find(|(key, _)| key.text == "admin") else { return };
    if matches!(admin.value, Value::Bool(word) if !is_true(word)) {
        admin.value = Value::Text("false".to_owned());
    }
    if matches!(admin.value, Value::Text(_)) {
        let spot = admin.spot;
        let address = std::mem::replace(admin, Node::new(spot, Value::Null));
        admin.value = Value::Map(vec![(key(spot), address)]);
    }
}

fn key(spot: Spot) -> MapKey {
    MapKey { spot, text: "address".to_owned() }
}

/// Returns the schema of the section: a mapping, or the address alone.
pub fn schema(generator: &mut SchemaGenerator) -> Schema {
    let (mapping, address) = (generator.subschema_for::<AdminConfig>(), generator.subschema_for::<AdminListen>());
    schemars::json_schema!({"anyOf": [mapping, address]})
}
