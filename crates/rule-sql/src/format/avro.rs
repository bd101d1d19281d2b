//! Avro: one datum in the binary encoding of its specification (1.12), without header or fingerprint before it.
//!
//! A small reader of our own: what there is has no bound on depth or on what few bytes may stand for (an array of a
//! million nulls is five bytes), and a payload is a stranger's. Logical types are the numbers and bytes that they are
//! written as; a value of a union stands for itself.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::{Budget, double, float, int, text};
use crate::error::EvalError;
use crate::json::keep_last;
use crate::value::Value;

/// Bytes of the longest varint: 64 bits, 7 in each.
const VARINT_BYTES_MAX: usize = 10;

/// A schema, its names resolved.
///
/// Compared and shown by its text: a named type stands once in memory however often it is used, but to go through all
/// uses takes time that doubles with each level of nesting.
#[derive(Clone)]
pub struct Avro {
    schema: Arc<Schema>,
    text: Arc<str>,
}

impl PartialEq for Avro {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Avro {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Avro").field(&self.text).finish()
    }
}

enum Schema {
    Null,
    Boolean,
    /// Both are written alike.
    Integer,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Enum(Vec<String>),
    Array(Arc<Schema>),
    Map(Arc<Schema>),
    Union(Vec<Arc<Schema>>),
    Record(Vec<(String, Arc<Schema>)>),
}

impl Avro {
    pub(super) fn compile(schema: &str) -> Result<Self, String> {
        let json: Json = serde_json::from_str(schema).map_err(|error| format!("schema is not JSON: {error}"))?;
        Ok(Self { schema: Names::default().schema(&json, "")?, text: schema.into() })
    }

    pub(super) fn decode(&self, bytes: &[u8], budget: Budget<'_, '_>) -> Result<Value<'static>, EvalError> {
        let mut reader = Reader { bytes, at: 0, budget };
        let value = reader.value(&self.schema, 0)?;
        match bytes.len() - reader.at {
            0 => Ok(value),
            more => Err(budget.malformed(format!("{more} bytes behind the datum"))),
        }
    }
}

/// Named types that are complete: one cannot contain itself.
#[derive(Default)]
struct Names(HashMap<String, Arc<Schema>>);

impl Names {
    fn schema(&mut self, json: &Json, namespace: &str) -> Result<Arc<Schema>, String> {
        let schema = match json {
            Json::String(name) => return self.named(name, namespace),
            Json::Array(branches) => {
                let branches = branches.iter().map(|branch| self.schema(branch, namespace));
                Schema::Union(branches.collect::<Result<_, _>>()?)
            }
            Json::Object(members) => match members.get("type") {
                Some(Json::String(kind)) => return self.complex(kind, json, namespace),
                Some(inner) => return self.schema(inner, namespace),
                None => return Err("a schema has no type".to_owned()),
            },
            Json::Null | Json::Bool(_) | Json::Number(_) => return Err(format!("{json} is no schema")),
        };
        Ok(Arc::new(schema))
    }

    fn named(&self, name: &str, namespace: &str) -> Result<Arc<Schema>, String> {
        let primitive = match name {
            "null" => Schema::Null,
            "boolean" => Schema::Boolean,
            "int" | "long" => Schema::Integer,
            "float" => Schema::Float,
            "double" => Schema::Double,
            "bytes" => Schema::Bytes,
            "string" => Schema::Text,
            _ => {
                let known = self.0.get(&full_name(name, namespace)).or_else(|| self.0.get(name));
                return known.cloned().ok_or_else(|| format!("type {name} is not known, or contains itself"));
            }
        };
        Ok(Arc::new(primitive))
    }

    fn complex(&mut self, kind: &str, json: &Json, namespace: &str) -> Result<Arc<Schema>, String> {
        let part = |name: &str| json.get(name).ok_or_else(|| format!("{kind} has no {name}"));
        match kind {
            "array" => Ok(Arc::new(Schema::Array(self.schema(part("items")?, namespace)?))),
            "map" => Ok(Arc::new(Schema::Map(self.schema(part("values")?, namespace)?))),
            "record" | "error" | "enum" | "fixed" => {
                let name = part("name")?.as_str().ok_or_else(|| format!("the name of {kind} is no text"))?;
                let within = json.get("namespace").and_then(Json::as_str).unwrap_or(namespace);
                let full = full_name(name, within);
                let within = full.rsplit_once('.').map_or("", |(namespace, _)| namespace);
                let schema = match kind {
                    "enum" => Schema::Enum(symbols(part("symbols")?)?),
                    "fixed" => {
                        let size = part("size")?.as_u64().and_then(|size| usize::try_from(size).ok());
                        Schema::Fixed(size.ok_or_else(|| format!("the size of {full} is no length"))?)
                    }
                    _ => Schema::Record(self.fields(part("fields")?, within)?),
                };
                let schema = Arc::new(schema);
                self.0.insert(full, schema.clone());
                Ok(schema)
            }
            name => self.named(name, namespace),
        }
    }

    fn fields(&mut self, fields: &Json, namespace: &str) -> Result<Vec<(String, Arc<Schema>)>, String> {
        let fields = fields.as_array().ok_or("fields are no array")?;
        let mut known = Vec::with_capacity(fields.len());
        for field in fields {
            let name = field.get("name").and_then(Json::as_str).ok_or("a field has no name")?;
            let of = field.get("type").ok_or_else(|| format!("field {name} has no type"))?;
            known.push((name.to_owned(), self.schema(of, namespace)?));
        }
        Ok(known)
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn symbols(json: &Json) -> Result<Vec<String>, String> {
    let symbols = json.as_array().map(|symbols| symbols.iter().map(|symbol| symbol.as_str().map(str::to_owned)));
    symbols.and_then(Iterator::collect).ok_or_else(|| "symbols are no array of texts".to_owned())
}

struct Reader<'b, 'm, 'p> {
    bytes: &'b [u8],
    at: usize,
    budget: Budget<'m, 'p>,
}

impl<'b> Reader<'b, '_, '_> {
    fn value(&mut self, schema: &Schema, depth: usize) -> Result<Value<'static>, EvalError> {
        self.budget.charge(0, depth)?;
        Ok(match schema {
            Schema::Null => Value::Null,
            Schema::Boolean => match self.take(1)?[0] {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                other => return Err(self.malformed(format!("{other} is no boolean"))),
            },
            Schema::Integer => int(self.long()?),
            Schema::Float => float(f32::from_le_bytes(self.array()?)),
            Schema::Double => double(f64::from_le_bytes(self.array()?)),
            Schema::Bytes => {
                let length = self.length()?;
                self.base64(length)?
            }
            Schema::Fixed(length) => self.base64(*length)?,
            Schema::Text => text(self.text()?),
            Schema::Enum(symbols) => text(self.choice(symbols)?.as_str()),
            Schema::Union(branches) => {
                let branch = self.choice(branches)?;
                self.value(branch, depth + 1)?
            }
            Schema::Array(of) => {
                let mut values = Vec::new();
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        values.push(self.value(of, depth + 1)?);
                    }
                }
                Value::Array(values)
            }
            Schema::Map(of) => {
                let mut members = Vec::new();
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        let key = self.text()?.to_owned();
                        members.push((key.into(), self.value(of, depth + 1)?));
                    }
                }
                keep_last(&mut members);
                Value::Object(members)
            }
            Schema::Record(fields) => {
                let mut members = Vec::new();
                for (name, of) in fields {
                    self.budget.charge(name.len(), depth)?;
                    members.push((name.clone().into(), self.value(of, depth + 1)?));
                }
                keep_last(&mut members);
                Value::Object(members)
            }
        })
    }

    /// Values of the next block; `None`: there is none any more.
    fn block(&mut self) -> Result<Option<u64>, EvalError> {
        let count = self.long()?;
        if count < 0 {
            // Then the block's bytes follow, for who passes over it.
            self.long()?;
        }
        Ok(Some(count.unsigned_abs()).filter(|count| *count > 0))
    }

    /// One of several, by its number.
    fn choice<'c, T>(&mut self, of: &'c [T]) -> Result<&'c T, EvalError> {
        let number = self.long()?;
        let chosen = usize::try_from(number).ok().and_then(|number| of.get(number));
        chosen.ok_or_else(|| self.malformed(format!("{number} is none of {} choices", of.len())))
    }

    fn base64(&mut self, length: usize) -> Result<Value<'static>, EvalError> {
        let encoded = STANDARD.encode(self.take(length)?);
        self.budget.charge(encoded.len(), 0)?;
        Ok(text(encoded))
    }

    fn text(&mut self) -> Result<&'b str, EvalError> {
        let length = self.length()?;
        self.budget.charge(length, 0)?;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed("a text is not UTF-8"))
    }

    fn length(&mut self) -> Result<usize, EvalError> {
        let length = self.long()?;
        usize::try_from(length).map_err(|_| self.malformed(format!("{length} is no length")))
    }

    /// A zigzag varint.
    fn long(&mut self) -> Result<i64, EvalError> {
        let mut bits = 0u64;
        for n in 0..VARINT_BYTES_MAX {
            let byte = self.take(1)?[0];
            bits |= u64::from(byte & 0x7f) << (7 * n);
            if byte & 0x80 == 0 {
                return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
        }
        Err(self.malformed("a number has more than 64 bits"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], EvalError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, count: usize) -> Result<&'b [u8], EvalError> {
        let Some(taken) = self.bytes[self.at..].get(..count) else { return Err(self.malformed("ends too early")) };
        self.at += count;
        Ok(taken)
    }

    fn malformed(&self, reason: impl Into<String>) -> EvalError {
        self.budget.malformed(format!("byte {}: {}", self.at, reason.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each level uses the one before twice: 2^64 uses in all.
    fn doubling(name: &str) -> String {
        let mut levels = vec![format!(r#"{{"name": "f0", "type": {{"type": "fixed", "name": "{name}", "size": 1}}}}"#)];
        let mut below = name.to_owned();
        for level in 1..=64 {
            let fields = format!(r#"[{{"name": "a", "type": "{below}"}}, {{"name": "b", "type": "{below}"}}]"#);
            below = format!("T{level}");
            let record = format!(r#"{{"type": "record", "name": "{below}", "fields": {fields}}}"#);
            levels.push(format!(r#"{{"name": "f{level}", "type": {record}}}"#));
        }
        format!(r#"{{"type": "record", "name": "All", "fields": [{}]}}"#, levels.join(", "))
    }

    #[test]
    fn schemas_that_use_a_type_more_often_than_anybody_can_count_are_compared_and_shown_at_once() {
        let compiled = |name: &str| Avro::compile(&doubling(name)).expect("a schema");
        assert_eq!(compiled("X"), compiled("X"));
        assert_ne!(compiled("X"), compiled("Y"));
    }
}
