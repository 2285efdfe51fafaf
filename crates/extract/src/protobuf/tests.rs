use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MapKey, MessageDescriptor, ReflectMessage, Value as Any,
};

use super::*;
use crate::schema::Language;
use crate::value::Fields;

const PROTO: &str = r#"
syntax = "proto3";
package shop.v1;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

message Click {
  string user_id = 1;
  int64 big = 2;
  sint32 small = 3;
  uint64 most = 4;
  fixed32 f32 = 5;
  sfixed64 s64 = 6;
  float ratio = 7;
  double amount = 8;
  bool paid = 9;
  bytes raw = 10;
  Kind kind = 11;
  optional int32 maybe = 12;
  Place place = 13;
  repeated int32 packed = 14;
  repeated string tags = 15;
  map<string, Place> places = 16;
  map<int32, int64> counts = 17;
  oneof how { string card = 18; Place cash = 19; int32 points = 20; }
  google.protobuf.Timestamp at = 21;
  google.protobuf.Int64Value wrapped = 22;
  repeated Place stops = 23;
  string unasked = 24;
  enum Kind { UNKNOWN = 0; VIEW = 1; BUY = 7; }
  message Place { string city = 1; int32 zip = 2; Place in = 3; }
}
"#;

const POINTERS: [&str; 29] = [
    "/userId",
    "/big",
    "/small",
    "/most",
    "/f32",
    "/s64",
    "/ratio",
    "/amount",
    "/paid",
    "/raw",
    "/kind",
    "/maybe",
    "/place",
    "/place/city",
    "/place/in/zip",
    "/packed/1",
    "/tags/0",
    "/tags/2",
    "/places/home/city",
    "/counts/-7",
    "/card",
    "/cash/city",
    "/points",
    "/at",
    "/wrapped",
    "/stops/1/zip",
    "/stops/0/in/city",
    "/packed",
    "/place/zip",
];

fn schema(text: &str) -> SchemaText {
    SchemaText::new(Language::Protobuf, text)
}

fn click() -> MessageDescriptor {
    let pool: DescriptorPool = descriptor::compile(&schema(PROTO)).unwrap().parent_pool().clone();
    pool.get_message_by_name("shop.v1.Click").unwrap()
}

/// The text of what each pointer finds.
fn read(payload: &[u8]) -> Result<Vec<Option<String>>, String> {
    let pointers = Pointers::new(POINTERS.into_iter());
    let reader = Reader::of_one(&schema(PROTO), Some("shop.v1.Click"), &pointers).unwrap();
    assert_eq!(reader.known(), [true; POINTERS.len()]);
    let mut found = Found::default();
    let symbols = reader.find(Cursor::new(payload, 0), false, &mut found)?;
    let fields = Fields { payload, document: "", symbols, found: &found };
    Ok(POINTERS.iter().map(|pointer| text(&fields, pointers.slot(pointer))).collect())
}

fn text(fields: &Fields<'_>, slot: crate::pointers::Slot) -> Option<String> {
    let value = fields.value(slot)?;
    let mut room = String::new();
    Some(match value.key(&mut room) {
        Ok(key) => String::from_utf8_lossy(key).into_owned(),
        Err(_) => format!("{value:?}"),
    })
}

/// What the library finds there.
fn expected(message: &DynamicMessage, pointer: &str) -> Option<String> {
    let mut value = Any::Message(message.clone());
    for token in pointer.split('/').skip(1) {
        value = match &value {
            Any::Message(message) => {
                let descriptor = message.descriptor();
                let field = descriptor
                    .get_field_by_name(token)
                    .or_else(|| descriptor.get_field_by_json_name(token))?;
                let there = message.has_field(&field);
                if !there && (field.supports_presence() || field.is_list() || field.is_map()) {
                    return None;
                }
                let value = message.get_field(&field).into_owned();
                match (&value, field.kind()) {
                    (Any::EnumNumber(number), prost_reflect::Kind::Enum(names)) => {
                        match names.get_value(*number) {
                            Some(name) => Any::String(name.name().to_owned()),
                            None => Any::I32(*number),
                        }
                    }
                    _ => value,
                }
            }
            Any::List(items) => items.get(token.parse::<usize>().ok()?)?.clone(),
            Any::Map(entries) => {
                let key = token.parse().map_or(MapKey::String(token.to_owned()), MapKey::I32);
                entries.get(&key)?.clone()
            }
            _ => return None,
        };
    }
    Some(match value {
        Any::Bool(value) => value.to_string(),
        Any::I32(value) => value.to_string(),
        Any::I64(value) => value.to_string(),
        Any::U32(value) => value.to_string(),
        Any::U64(value) => value.to_string(),
        Any::F32(value) => value.to_string(),
        Any::F64(value) => value.to_string(),
        Any::String(value) => value,
        Any::Bytes(value) => String::from_utf8_lossy(&value).into_owned(),
        Any::EnumNumber(value) => value.to_string(),
        Any::List(_) => "Array".to_owned(),
        Any::Map(_) => "Object".to_owned(),
        Any::Message(message) => match message.descriptor().full_name() {
            "google.protobuf.Timestamp" => {
                let (seconds, nanos) = (message.get_field_by_number(1)?, message.get_field_by_number(2)?);
                format!("Instant {{ seconds: {}, nanos: {} }}", seconds.as_i64()?, nanos.as_i32()?)
            }
            "google.protobuf.Int64Value" => message.get_field_by_number(1)?.as_i64()?.to_string(),
            _ => "Object".to_owned(),
        },
    })
}

fn place() -> impl Strategy<Value = DynamicMessage> {
    let flat = ("[a-z]{0,3}", -2_i32..3);
    (flat.clone(), prop::option::of(flat)).prop_map(|((city, zip), inner)| {
        let of = |city: String, zip: i32| {
            let mut place =
                DynamicMessage::new(click().child_messages().find(|m| m.name() == "Place").unwrap());
            place.set_field_by_name("city", Any::String(city));
            place.set_field_by_name("zip", Any::I32(zip));
            place
        };
        let mut place = of(city, zip);
        if let Some((city, zip)) = inner {
            place.set_field_by_name("in", Any::Message(of(city, zip)));
        }
        place
    })
}

/// One field of a click with a value.
fn field() -> impl Strategy<Value = (&'static str, Any)> {
    let text = |name: &'static str| "[a-zé]{0,4}".prop_map(move |s| (name, Any::String(s)));
    let message = |name: &'static str, fields: Vec<(u32, Any)>| {
        let descriptor = click().get_field_by_name(name).unwrap().kind().as_message().unwrap().clone();
        let mut message = DynamicMessage::new(descriptor);
        for (number, value) in fields {
            message.set_field_by_number(number, value);
        }
        (name, Any::Message(message))
    };
    prop_oneof![
        text("user_id"),
        text("card"),
        text("unasked"),
        any::<i64>().prop_map(|n| ("big", Any::I64(n))),
        any::<i32>().prop_map(|n| ("small", Any::I32(n))),
        any::<u64>().prop_map(|n| ("most", Any::U64(n))),
        any::<u32>().prop_map(|n| ("f32", Any::U32(n))),
        any::<i64>().prop_map(|n| ("s64", Any::I64(n))),
        (-1e9_f32..1e9).prop_map(|n| ("ratio", Any::F32(n))),
        (-1e9..1e9).prop_map(|n| ("amount", Any::F64(n))),
        any::<bool>().prop_map(|b| ("paid", Any::Bool(b))),
        "[a-z]{0,4}".prop_map(|s| ("raw", Any::Bytes(s.into_bytes().into()))),
        (-2_i32..9).prop_map(|n| ("kind", Any::EnumNumber(n))),
        any::<i32>().prop_map(|n| ("maybe", Any::I32(n))),
        any::<i32>().prop_map(|n| ("points", Any::I32(n))),
        place().prop_map(|p| ("place", Any::Message(p))),
        place().prop_map(|p| ("cash", Any::Message(p))),
        prop::collection::vec(any::<i32>(), 0..4)
            .prop_map(|v| ("packed", Any::List(v.into_iter().map(Any::I32).collect()))),
        prop::collection::vec("[a-z]{0,2}", 0..4)
            .prop_map(|v| ("tags", Any::List(v.into_iter().map(Any::String).collect()))),
        prop::collection::vec(place(), 0..3)
            .prop_map(|v| ("stops", Any::List(v.into_iter().map(Any::Message).collect()))),
        (prop::sample::select(vec!["home", "work"]), place()).prop_map(|(k, p)| (
            "places",
            Any::Map([(MapKey::String(k.to_owned()), Any::Message(p))].into())
        )),
        (-8_i32..-6, any::<i64>())
            .prop_map(|(k, n)| ("counts", Any::Map([(MapKey::I32(k), Any::I64(n))].into()))),
        (any::<i64>(), any::<i32>())
            .prop_map(move |(s, n)| message("at", vec![(1, Any::I64(s)), (2, Any::I32(n))])),
        any::<i64>().prop_map(move |n| message("wrapped", vec![(1, Any::I64(n))])),
    ]
}

proptest! {
    /// Fields in any order and as often as it may be: bytes one behind the other are messages that merge.
    #[test]
    fn finds_what_the_library_finds(fields in prop::collection::vec(field(), 0..12)) {
        let mut payload = Vec::new();
        for (name, value) in fields {
            let mut one = DynamicMessage::new(click());
            one.set_field_by_name(name, value);
            one.encode(&mut payload).unwrap();
        }
        let message = DynamicMessage::decode(click(), payload.as_slice()).unwrap();
        let expected: Vec<_> = POINTERS.iter().map(|pointer| expected(&message, pointer)).collect();
        prop_assert_eq!(read(&payload), Ok(expected));
    }

    #[test]
    fn no_bytes_make_it_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        // What it takes the library takes too; the library also looks into fields that nobody asked for.
        if DynamicMessage::decode(click(), payload.as_slice()).is_ok() {
            prop_assert!(read(&payload).is_ok());
        }
    }
}

#[test]
fn what_is_cut_or_of_another_type_is_no_message() {
    for (payload, why) in [
        (&[0x0a, 5, b'a'][..], "it ends within a field"),
        (&[0x08, 1], "a field is written as another type than its schema says"),
        (&[0x0a, 1, 0xff], "a text is not UTF-8"),
        (&[0x0f], "a field is written as another type than its schema says"),
        (&[0x0c], "a group ends that did not begin"),
        (&[0xff; 11], "a number has more bytes than its type allows"),
    ] {
        assert_eq!(read(payload), Err(format!("not a message of its schema: {why}")), "{payload:?}");
    }
    let deep: Vec<u8> = std::iter::repeat_n(0xfb, 200).chain(std::iter::repeat_n(0x01, 200)).collect();
    assert!(read(&deep).is_err());
}

#[test]
fn a_record_names_its_message_by_its_place() {
    let text = r#"syntax = "proto3"; message A { int32 n = 1; message B { int32 n = 1; } } message C { int32 n = 1; }"#;
    let pointers = Pointers::new(["/n"].into_iter());
    let reader = Reader::of_all(&schema(text), &pointers).unwrap();
    let mut found = Found::default();
    let mut read = |payload: &[u8]| reader.find(Cursor::new(payload, 0), true, &mut found).map(drop);
    assert_eq!(read(&[0, 8, 1]), Ok(()), "the first message, in short");
    assert_eq!(read(&[2, 0, 8, 1]), Ok(()));
    assert_eq!(read(&[4, 0, 0, 8, 1]), Ok(()), "B in A");
    assert_eq!(read(&[2, 2, 8, 1]), Ok(()), "C");
    assert_eq!(read(&[2, 4, 8, 1]), Err("the message that it names: its schema has none there".to_owned()));
    assert_eq!(read(&[]), Err("the message that it names: it ends within a field".to_owned()));
    assert_eq!(read(&[60, 0]), Err("the message that it names: it ends within a field".to_owned()));
}

#[test]
fn it_has_to_be_clear_which_message_it_is() {
    let pointers = Pointers::new(["/n"].into_iter());
    let of = |text: &str, message| Reader::of_one(&schema(text), message, &pointers).map(drop);
    let two = r#"syntax = "proto3"; package p; message A { int32 n = 1; } message B {}"#;
    assert_eq!(of(two, Some("p.A")), Ok(()));
    assert_eq!(
        of(two, None),
        Err("it has several messages: `p.A`, `p.B`; name one with `message`".to_owned())
    );
    assert_eq!(of(two, Some("A")), Err("there is no message `A`; it has `p.A`, `p.B`".to_owned()));
    assert_eq!(of(r#"syntax = "proto3";"#, None), Err("it has no message".to_owned()));
    assert!(
        of(r#"syntax = "proto3"; import "x.proto"; message A {}"#, None).unwrap_err().contains("x.proto")
    );
}

#[test]
fn one_field_is_spelt_in_one_way() {
    let pointers = Pointers::new(["/user_id", "/userId"].into_iter());
    let text = r#"syntax = "proto3"; message A { string user_id = 1; }"#;
    let error = Reader::of_one(&schema(text), None, &pointers).map(drop).unwrap_err();
    assert!(error.contains("are the same field; spell it in one way"), "{error}");
}
