use apache_avro::types::Value as Avro;
use apache_avro::{Decimal, Schema};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

use super::*;
use crate::schema::Language;
use crate::value::Fields;

/// A value with its schema, and what pointers into it should find.
#[derive(Clone, Debug)]
struct Sample {
    schema: Json,
    value: Avro,
    /// Below the value: pointer and the text of the scalar there.
    found: Vec<(String, String)>,
}

fn sample(schema: Json, value: Avro, text: impl ToString) -> Sample {
    Sample { schema, value, found: vec![(String::new(), text.to_string())] }
}

fn scalar() -> impl Strategy<Value = Sample> {
    prop_oneof![
        any::<bool>().prop_map(|b| sample(json!("boolean"), Avro::Boolean(b), b)),
        any::<i32>().prop_map(|n| sample(json!("int"), Avro::Int(n), n)),
        any::<i64>().prop_map(|n| sample(json!("long"), Avro::Long(n), n)),
        (-1e9_f32..1e9).prop_map(|n| sample(json!("float"), Avro::Float(n), n)),
        (-1e9..1e9).prop_map(|n| sample(json!("double"), Avro::Double(n), n)),
        "[a-zé😀 ]{0,20}".prop_map(|s| sample(json!("string"), Avro::String(s.clone()), s)),
        "[a-z]{0,20}".prop_map(|s| sample(json!("bytes"), Avro::Bytes(s.clone().into_bytes()), s)),
        any::<i64>().prop_map(|n| sample(
            json!({"type": "long", "logicalType": "timestamp-micros"}),
            Avro::TimestampMicros(n),
            n
        )),
        any::<i32>().prop_map(|n| sample(json!({"type": "int", "logicalType": "date"}), Avro::Date(n), n)),
        any::<i32>().prop_map(|n| {
            let schema = json!({"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 0});
            sample(schema, Avro::Decimal(Decimal::from(n.to_be_bytes().to_vec())), n)
        }),
        (any::<u64>(), 0_u32..3).prop_map(|(name, index)| {
            let schema = json!({"type": "enum", "name": format!("e{name}"), "symbols": ["A", "B", "C"]});
            let symbol = ["A", "B", "C"][index as usize].to_owned();
            sample(schema, Avro::Enum(index, symbol.clone()), symbol)
        }),
        (any::<u64>(), "[a-z]{7}").prop_map(|(name, s)| {
            let schema = json!({"type": "fixed", "name": format!("f{name}"), "size": 7});
            sample(schema, Avro::Fixed(7, s.clone().into_bytes()), s)
        }),
    ]
}

fn any_sample() -> impl Strategy<Value = Sample> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            record(inner.clone()),
            (inner.clone(), 0_usize..4).prop_map(|(item, count)| Sample {
                schema: json!({"type": "array", "items": item.schema}),
                value: Avro::Array(vec![item.value.clone(); count]),
                found: below(&item, (0..count).map(|index| index.to_string())),
            }),
            (inner.clone(), prop::collection::btree_set("[a-z/~]{1,4}", 0..3)).prop_map(|(value, names)| {
                Sample {
                    schema: json!({"type": "map", "values": value.schema}),
                    value: Avro::Map(names.iter().map(|name| (name.clone(), value.value.clone())).collect()),
                    found: below(&value, names.iter().map(|name| name.replace('~', "~0").replace('/', "~1"))),
                }
            }),
            (inner, any::<bool>()).prop_filter_map("a union in a union", |(variant, there)| {
                if variant.schema.is_array() {
                    return None;
                }
                let (index, value) = if there { (1, variant.value.clone()) } else { (0, Avro::Null) };
                let found =
                    if there { variant.found.clone() } else { vec![(String::new(), "null".to_owned())] };
                Some(Sample {
                    schema: json!(["null", variant.schema]),
                    value: Avro::Union(index, Box::new(value)),
                    found,
                })
            }),
        ]
    })
}

fn below(inner: &Sample, names: impl Iterator<Item = String>) -> Vec<(String, String)> {
    names
        .flat_map(|name| inner.found.iter().map(move |(rest, text)| (format!("/{name}{rest}"), text.clone())))
        .collect()
}

fn record(inner: impl Strategy<Value = Sample>) -> impl Strategy<Value = Sample> {
    (any::<u64>(), prop::collection::vec(inner, 1..4)).prop_map(|(name, fields)| {
        let fields: Vec<_> = fields.into_iter().enumerate().map(|(i, f)| (format!("f{i}"), f)).collect();
        let schema =
            fields.iter().map(|(name, f)| json!({"name": name, "type": f.schema})).collect::<Vec<_>>();
        Sample {
            schema: json!({"type": "record", "name": format!("r{name}"), "fields": schema}),
            value: Avro::Record(fields.iter().map(|(name, f)| (name.clone(), f.value.clone())).collect()),
            found: fields.iter().flat_map(|(name, f)| below(f, std::iter::once(name.clone()))).collect(),
        }
    })
}

fn encoded(sample: &Sample) -> Option<Vec<u8>> {
    // The library refuses a schema in which a type comes twice.
    let schema = Schema::parse(&sample.schema).ok()?;
    Some(apache_avro::to_avro_datum(&schema, sample.value.clone()).unwrap())
}

fn text_of(schema: &Json) -> SchemaText {
    SchemaText::new(Language::Avro, schema.to_string())
}

/// The text of what each pointer finds.
fn read(schema: &Json, pointers: &[&str], payload: &[u8]) -> Result<Vec<Option<String>>, String> {
    let pointers_of_job = Pointers::new(pointers.iter().copied());
    let reader = Reader::new(&text_of(schema), &pointers_of_job)?;
    let mut found = Found::default();
    let symbols = reader.find(Cursor::new(payload, 0), &mut found)?;
    let fields = Fields { payload, document: "", symbols, found: &found };
    let text = |pointer: &&str| {
        let value = fields.value(pointers_of_job.slot(pointer))?;
        let mut room = String::new();
        Some(match value.key(&mut room) {
            Ok(key) => String::from_utf8_lossy(key).into_owned(),
            Err(_) => value.kind().to_owned(),
        })
    };
    Ok(pointers.iter().map(text).collect())
}

proptest! {
    #[test]
    fn every_scalar_is_found_where_the_library_wrote_it(sample in record(any_sample())) {
        let Some(payload) = encoded(&sample) else { return Ok(()) };
        let pointers: Vec<&str> = sample.found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        let expected: Vec<_> = sample.found.iter().map(|(_, text)| Some(text.clone())).collect();
        prop_assert_eq!(read(&sample.schema, &pointers, &payload), Ok(expected));
        // Nothing asked for: everything is passed over, to the last byte.
        prop_assert_eq!(read(&sample.schema, &["/none"], &payload), Ok(vec![None]));
    }

    #[test]
    fn a_payload_that_is_cut_or_goes_on_is_none(sample in record(any_sample()), cut in any::<prop::sample::Index>(), more in any::<u8>()) {
        let Some(mut payload) = encoded(&sample) else { return Ok(()) };
        let pointers: Vec<&str> = sample.found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        payload.push(more);
        prop_assert!(read(&sample.schema, &pointers, &payload).is_err());
        payload.pop();
        if !payload.is_empty() {
            payload.truncate(cut.index(payload.len()));
            prop_assert!(read(&sample.schema, &pointers, &payload).is_err());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(sample in record(any_sample()), payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let pointers: Vec<&str> = sample.found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        let _ = read(&sample.schema, &pointers, &payload);
    }
}

/// A list of nodes: a record that is in itself.
fn nodes() -> Json {
    json!({"type": "record", "name": "Node", "namespace": "a.b", "fields": [
        {"name": "n", "type": "int"},
        {"name": "next", "type": ["null", "Node"]},
    ]})
}

#[test]
fn a_type_may_be_in_itself() {
    // 1 → 2 → 3
    let payload = [2, 2, 4, 2, 6, 0];
    let found = read(&nodes(), &["/n", "/next/next/n", "/next/next/next/n"], &payload);
    assert_eq!(found, Ok(vec![Some("1".to_owned()), Some("3".to_owned()), None]));
    let deep = [2; 500];
    assert_eq!(
        read(&nodes(), &["/n"], &deep),
        Err("not an Avro record of its schema: it is nested too deeply".to_owned())
    );
}

#[test]
fn a_list_of_nothing_cannot_take_for_ever() {
    let schema = json!({"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": "null"}}]});
    // 2^40 nulls
    let payload = [0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 0];
    assert_eq!(
        read(&schema, &["/a/0"], &payload),
        Err("not an Avro record of its schema: a list has more items than the payload can hold".to_owned())
    );
}

#[test]
fn blocks_may_carry_their_size() {
    let schema = json!({"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": "int"}}]});
    // Two blocks: 2 items in 2 bytes, then 1 item.
    let payload = [3, 4, 2, 4, 2, 6, 0];
    assert_eq!(read(&schema, &["/a/1", "/a/2"], &payload), Ok(vec![Some("2".into()), Some("3".into())]));
}

#[test]
fn a_uuid_is_text_whether_it_is_written_as_text_or_in_sixteen_bytes() {
    // The Avro library reads the second one as if it had a length before it.
    let schema = json!({"type": "record", "name": "R", "fields": [
        {"name": "a", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "b", "type": {"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"}},
    ]});
    let text = "550e8400-e29b-41d4-a716-446655440000";
    let bytes = [0x55, 0x0e, 0x84, 0, 0xe2, 0x9b, 0x41, 0xd4, 0xa7, 0x16, 0x44, 0x66, 0x55, 0x44, 0, 0];
    let payload = [&[72][..], text.as_bytes(), &bytes].concat();
    assert_eq!(read(&schema, &["/a", "/b"], &payload), Ok(vec![Some(text.into()), Some(text.into())]));
}

#[test]
fn types_are_found_in_the_schemas_it_refers_to() {
    let pointers = Pointers::new(["/at/city"].into_iter());
    let mut schema = SchemaText::new(
        Language::Avro,
        r#"{"type":"record","name":"shop.Order","fields":[{"name":"at","type":"shop.Place"}]}"#,
    );
    assert_eq!(Reader::new(&schema, &pointers).unwrap_err(), "nothing is called `shop.Place`");
    let place =
        r#"{"type":"record","name":"Place","namespace":"shop","fields":[{"name":"city","type":"string"}]}"#;
    schema.references.push(("place".to_owned(), place.to_owned()));
    let reader = Reader::new(&schema, &pointers).unwrap();
    let mut found = Found::default();
    reader.find(Cursor::new(&[4, b'X', b'Y'], 0), &mut found).unwrap();
    assert!(found.get(0).is_some());
}

#[test]
fn what_is_no_schema_is_refused() {
    for (text, why) in [
        ("{", "not JSON: EOF while parsing an object at line 1 column 1"),
        ("7", "a type is neither a name, a list nor an object"),
        ("{}", "a type has no `type`"),
        (r#""thing""#, "nothing is called `thing`"),
        (r#"{"type":"record","name":"R"}"#, "the record `R` has no `fields`"),
        (
            r#"{"type":"record","name":"R","fields":[{"name":"a"}]}"#,
            "a field of the record `R` has no `name` or no `type`",
        ),
        (r#"{"type":"fixed","name":"F"}"#, "the fixed `F` has no `size`"),
        (r#"{"type":"enum","name":"E"}"#, "the enum `E` has no `symbols`"),
        (r#"{"type":"array"}"#, "an array has no `items`"),
        (r#"{"type":"map"}"#, "a map has no `values`"),
        (r#"{"type":"enum"}"#, "a record, enum or fixed has no `name`"),
        (r#"["null",["int"]]"#, "a union stands directly in a union"),
        (
            r#"[{"type":"fixed","name":"F","size":1},{"type":"fixed","name":"F","size":1}]"#,
            "two types are called `F`",
        ),
    ] {
        let schema = SchemaText::new(Language::Avro, text);
        let pointers = Pointers::new(std::iter::empty());
        assert_eq!(Reader::new(&schema, &pointers).map(drop), Err(why.to_owned()), "{text}");
    }
}
