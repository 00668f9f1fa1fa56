//! A value of any form.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

/// A value of any form, such as a JSON Schema that stands in the configuration.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub struct FreeForm(pub serde_json::Value);

impl FreeForm {
    /// The keyword by which its schema says that nothing below is checked.
    pub const MARK: &str = "x-free-form";
}

impl JsonSchema for FreeForm {
    fn schema_name() -> Cow<'static, str> {
        "FreeForm".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let below = generator.subschema_for::<Self>();
        json_schema!({
            "description": "A value of any form.",
            "x-free-form": true,
            "additionalProperties": below,
            "items": below,
        })
    }
}
