//! An Avro schema as what has to be known to pass over its bytes.

use std::collections::HashMap;

use serde_json::Value;

use crate::schema::SchemaText;

/// All types of a schema; they refer to each other by position, so that a type may be in itself.
#[derive(Debug, Default)]
pub(super) struct Shapes {
    shapes: Vec<Shape>,
    named: HashMap<String, usize>,
    /// The symbols of all enums.
    pub(super) symbols: Vec<String>,
}

/// A type.
#[derive(Debug)]
pub(super) enum Shape {
    Null,
    Boolean,
    /// `int` and `long`, which are written alike.
    Number(Number),
    Float,
    Double,
    Bytes(Bits),
    Text,
    Fixed(usize, Bits),
    Enum {
        first: usize,
        count: usize,
    },
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<(String, usize)>),
}

/// What a number means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Plain,
    Date,
    Millis,
    Micros,
    Nanos,
}

/// What bytes mean.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bits {
    Plain,
    Decimal { scale: u32 },
    Uuid,
}

impl Shapes {
    /// The types of `schema`, and which of them it is.
    pub(super) fn parse(schema: &SchemaText) -> Result<(Self, usize), String> {
        let mut shapes = Self::default();
        for (name, text) in &schema.references {
            let json = json(text).map_err(|error| format!("the schema `{name}` it refers to: {error}"))?;
            shapes.add(&json, "")?;
        }
        let root = shapes.add(&json(&schema.text)?, "")?;
        Ok((shapes, root))
    }

    pub(super) fn get(&self, shape: usize) -> &Shape {
        self.shapes.get(shape).unwrap_or(&Shape::Null)
    }

    fn push(&mut self, shape: Shape) -> usize {
        self.shapes.push(shape);
        self.shapes.len() - 1
    }

    fn add(&mut self, json: &Value, namespace: &str) -> Result<usize, String> {
        match json {
            Value::String(name) => self.by_name(name, namespace, None),
            Value::Array(variants) => {
                let variants: Vec<_> =
                    variants.iter().map(|variant| self.add(variant, namespace)).collect::<Result<_, _>>()?;
                if variants.iter().any(|variant| matches!(self.get(*variant), Shape::Union(_))) {
                    return Err("a union stands directly in a union".to_owned());
                }
                Ok(self.push(Shape::Union(variants)))
            }
            Value::Object(fields) => match fields.get("type") {
                Some(Value::String(kind)) => self.complex(kind, json, namespace),
                Some(inner) => self.add(inner, namespace),
                None => Err("a type has no `type`".to_owned()),
            },
            _ => Err("a type is neither a name, a list nor an object".to_owned()),
        }
    }

    fn complex(&mut self, kind: &str, json: &Value, namespace: &str) -> Result<usize, String> {
        match kind {
            "record" | "error" => self.record(json, namespace),
            "enum" => {
                let (name, _) = named(json, namespace)?;
                let symbols = json.get("symbols").and_then(Value::as_array);
                let symbols = symbols.ok_or_else(|| format!("the enum `{name}` has no `symbols`"))?;
                let first = self.symbols.len();
                self.symbols.extend(symbols.iter().map(|symbol| symbol.as_str().unwrap_or("").to_owned()));
                let shape = self.push(Shape::Enum { first, count: symbols.len() });
                self.know(name, shape)
            }
            "fixed" => {
                let (name, _) = named(json, namespace)?;
                let size =
                    json.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or_else(|| format!("the fixed `{name}` has no `size`"))?;
                let bits = if size == 16 && logical(json) == "uuid" { Bits::Uuid } else { bits(json) };
                let shape = self.push(Shape::Fixed(size, bits));
                self.know(name, shape)
            }
            "array" => {
                let items = json.get("items").ok_or("an array has no `items`")?;
                let item = self.add(items, namespace)?;
                Ok(self.push(Shape::Array(item)))
            }
            "map" => {
                let values = json.get("values").ok_or("a map has no `values`")?;
                let value = self.add(values, namespace)?;
                Ok(self.push(Shape::Map(value)))
            }
            name => self.by_name(name, namespace, Some(json)),
        }
    }

    fn record(&mut self, json: &Value, namespace: &str) -> Result<usize, String> {
        let (name, namespace) = named(json, namespace)?;
        let fields = json.get("fields").and_then(Value::as_array);
        let fields = fields.ok_or_else(|| format!("the record `{name}` has no `fields`"))?;
        let shape = self.push(Shape::Null);
        self.know(name.clone(), shape)?;
        let mut known = Vec::with_capacity(fields.len());
        for field in fields {
            let (Some(field_name), Some(kind)) =
                (field.get("name").and_then(Value::as_str), field.get("type"))
            else {
                return Err(format!("a field of the record `{name}` has no `name` or no `type`"));
            };
            let kind = match kind {
                // `{"name": …, "type": "long", "logicalType": …}`: not what the standard says, and common.
                Value::String(_) if field.get("logicalType").is_some() => self.add(field, &namespace)?,
                kind => self.add(kind, &namespace)?,
            };
            known.push((field_name.to_owned(), kind));
        }
        if let Some(place) = self.shapes.get_mut(shape) {
            *place = Shape::Record(known);
        }
        Ok(shape)
    }

    /// A primitive type, with what an object around its name says, or a type that was defined before.
    fn by_name(&mut self, name: &str, namespace: &str, json: Option<&Value>) -> Result<usize, String> {
        let logical = json.map_or("", logical);
        let number = match logical {
            "date" => Number::Date,
            "timestamp-millis" | "local-timestamp-millis" => Number::Millis,
            "timestamp-micros" | "local-timestamp-micros" => Number::Micros,
            "timestamp-nanos" | "local-timestamp-nanos" => Number::Nanos,
            _ => Number::Plain,
        };
        let shape = match (name, number) {
            ("null", _) => Shape::Null,
            ("boolean", _) => Shape::Boolean,
            ("int", Number::Date) => Shape::Number(Number::Date),
            ("int", _) | ("long", Number::Date) => Shape::Number(Number::Plain),
            ("long", number) => Shape::Number(number),
            ("float", _) => Shape::Float,
            ("double", _) => Shape::Double,
            ("bytes", _) => Shape::Bytes(json.map_or(Bits::Plain, bits)),
            ("string", _) => Shape::Text,
            (name, _) => {
                let inside = full_name(name, namespace);
                let found = self.named.get(&inside).or_else(|| self.named.get(name));
                return found.copied().ok_or_else(|| format!("nothing is called `{inside}`"));
            }
        };
        Ok(self.push(shape))
    }

    fn know(&mut self, name: String, shape: usize) -> Result<usize, String> {
        match self.named.insert(name.clone(), shape) {
            None => Ok(shape),
            Some(_) => Err(format!("two types are called `{name}`")),
        }
    }
}

fn json(text: &str) -> Result<Value, String> {
    // A registry may hold the name of a primitive type, bare.
    serde_json::from_str(text).map_err(|error| format!("not JSON: {error}"))
}

fn logical(json: &Value) -> &str {
    json.get("logicalType").and_then(Value::as_str).unwrap_or("")
}

fn bits(json: &Value) -> Bits {
    if logical(json) != "decimal" {
        return Bits::Plain;
    }
    let scale = json.get("scale").map_or(Some(0), Value::as_u64);
    // As the standard says, a logical type that is not valid is none.
    scale.and_then(|scale| u32::try_from(scale).ok()).map_or(Bits::Plain, |scale| Bits::Decimal { scale })
}

/// The full name of a type, and its namespace.
fn named(json: &Value, namespace: &str) -> Result<(String, String), String> {
    let text = |key| json.get(key).and_then(Value::as_str);
    let name = text("name").ok_or("a record, enum or fixed has no `name`")?;
    let full = full_name(name, text("namespace").unwrap_or(namespace));
    let namespace = full.rsplit_once('.').map_or("", |(namespace, _)| namespace).to_owned();
    Ok((full, namespace))
}

fn full_name(name: &str, namespace: &str) -> String {
    if namespace.is_empty() || name.contains('.') { name.to_owned() } else { format!("{namespace}.{name}") }
}
