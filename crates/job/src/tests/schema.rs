//! The committed schema, its agreement with the code, and the documentation of every key.

use crate::file::NOT_SUPPORTED_YET;
use crate::json_schema;
use serde_json::Value;
use std::collections::BTreeSet;

const COMMITTED: &str = include_str!("../../../../docs/job.schema.json");
const DOCUMENTATION: &str = include_str!("../../../../docs/job.md");

#[test]
fn the_committed_schema_is_the_generated_one() {
    assert!(
        json_schema() == COMMITTED,
        "docs/job.schema.json is out of date; run: cargo run -p tidegate-cli -- schema > docs/job.schema.json"
    );
}

#[test]
fn every_key_and_word_of_the_schema_is_documented() {
    for word in words() {
        let found =
            DOCUMENTATION.contains(&format!("`{word}`")) || DOCUMENTATION.contains(&format!(".{word}`"));
        assert!(found, "`{word}` is not in docs/job.md");
    }
}

#[test]
fn the_job_in_the_documentation_is_one() {
    let text = DOCUMENTATION.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    assert_eq!(super::job(text).name, "clicks");
}

#[test]
fn the_schema_offers_nothing_that_is_refused_and_allows_no_empty_value() {
    let offered: Vec<_> =
        words().into_iter().filter(|word| NOT_SUPPORTED_YET.contains(&word.as_str())).collect();
    assert_eq!(offered, Vec::<String>::new());
    assert!(!COMMITTED.contains("\"enum\": []"), "an enum without a documented variant");
    assert!(
        !COMMITTED.contains("\"null\""),
        "a key without a value is refused, so the schema must not allow null"
    );
}

/// The names of all properties and the values of all constants.
fn words() -> BTreeSet<String> {
    fn collect(value: &Value, words: &mut BTreeSet<String>) {
        if let Some(properties) = value.get("properties").and_then(Value::as_object) {
            words.extend(properties.keys().cloned());
        }
        words.extend(value.get("const").and_then(Value::as_str).map(str::to_owned));
        let listed = value.get("enum").and_then(Value::as_array).into_iter().flatten();
        words.extend(listed.filter_map(Value::as_str).map(str::to_owned));
        match value {
            Value::Object(fields) => fields.values().for_each(|value| collect(value, words)),
            Value::Array(items) => items.iter().for_each(|value| collect(value, words)),
            _ => {}
        }
    }
    let mut words = BTreeSet::new();
    collect(&serde_json::from_str(COMMITTED).unwrap(), &mut words);
    assert!(words.len() > 30, "{words:?}");
    words
}
