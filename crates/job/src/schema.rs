//! The JSON Schema of the job file, made from the types of `file`.

use crate::file::{JobFile, Pointer, RanksText, TimeEntry, UnitWord};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;

/// The JSON Schema of the job file, as committed in `docs/job.schema.json`.
#[must_use]
pub fn json_schema() -> String {
    let mut schema = schemars::schema_for!(JobFile);
    without_null(&mut schema);
    format!("{:#}\n", schema.as_value())
}

/// An optional key may be left out; it may not be empty, as the schema of an `Option` would have it.
fn without_null(schema: &mut Schema) {
    if let Some(serde_json::Value::Array(types)) = schema.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".to_owned(), only);
        }
    }
    if let Some(serde_json::Value::Array(choices)) = schema.get_mut("anyOf") {
        choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
        if let [serde_json::Value::Object(only)] = choices.as_slice() {
            let only = only.clone();
            schema.remove("anyOf");
            for (key, value) in only {
                schema.insert(key, value);
            }
        }
    }
    schemars::transform::transform_subschemas(&mut without_null, schema);
}

impl JsonSchema for TimeEntry {
    fn schema_name() -> Cow<'static, str> {
        "TimeEntry".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let unit = generator.subschema_for::<UnitWord>();
        let pointer = generator.subschema_for::<Pointer>();
        json_schema!({
            "description": "A place where the event time may be: the record timestamp, a header, or a field of the payload.",
            "oneOf": [
                { "const": "record_timestamp" },
                {
                    "type": "object",
                    "properties": { "header": { "type": "string", "description": "Name of a header." }, "unit": unit.clone() },
                    "required": ["header"],
                    "additionalProperties": false,
                },
                {
                    "type": "object",
                    "properties": { "field": pointer, "unit": unit },
                    "required": ["field"],
                    "additionalProperties": false,
                },
            ],
        })
    }
}

impl JsonSchema for RanksText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "RanksText".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let rank = json_schema!({ "type": "number", "minimum": 0, "maximum": 1 });
        json_schema!({ "oneOf": [rank, { "type": "array", "items": rank, "minItems": 1, "maxItems": 20 }] })
    }
}
