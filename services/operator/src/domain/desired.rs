//! The wanted state of a device: what of it its shadow lacks.

use serde_json::{Map, Value};

/// The part of `wanted` that `there` has not; empty: nothing has to be sent. Objects are compared field by field, since
/// a shadow merges them; everything else as a whole.
pub fn missing(wanted: &Map<String, Value>, there: &Map<String, Value>) -> Map<String, Value> {
    let mut missing = Map::new();
    for (field, value) in wanted {
        match (value, there.get(field)) {
            // A field that is wanted as null is one that is not to be there.
            (Value::Null, None) => {}
            (value, Some(found)) if value == found => {}
            (Value::Object(value), Some(Value::Object(found))) => {
                let inner = self::missing(value, found);
                if !inner.is_empty() {
                    missing.insert(field.clone(), Value::Object(inner));
                }
            }
            // An object without a field is not kept by a shadow: sending it again would change nothing.
            (Value::Object(value), None) if value.is_empty() => {}
            (value, _) => drop(missing.insert(field.clone(), value.clone())),
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn only_what_differs_is_sent() {
        for (wanted, there, expected) in [
            (json!({"a": 1}), json!({}), json!({"a": 1})),
            (json!({"a": 1}), json!({"a": 1, "b": 2}), json!({})),
            (json!({"a": {"x": 1, "y": 2}}), json!({"a": {"x": 1, "y": 3}}), json!({"a": {"y": 2}})),
            (json!({"a": [1]}), json!({"a": [1, 2]}), json!({"a": [1]})),
            (json!({"a": null}), json!({}), json!({})),
            (json!({"a": null}), json!({"a": 1}), json!({"a": null})),
            (json!({"a": {}}), json!({}), json!({})),
        ] {
            assert_eq!(Value::Object(missing(&map(wanted.clone()), &map(there))), expected, "{wanted}");
        }
    }
}
