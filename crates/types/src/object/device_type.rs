//! The declared shape of a device type.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::{DESCRIPTION_BYTES_MAX, DEVICE_TYPE_BYTES_MAX, FIELDS_PER_TYPE_MAX};
use crate::{ApiError, key};

/// `spec` of a DeviceType: what devices of this type send. It describes, it does not enforce.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceTypeSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// By the names of the fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, TypeField>,
}

/// One field of what devices of a type send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TypeField {
    #[serde(rename = "type")]
    pub field_type: FieldType,
    /// `°C`, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// What the values of a field are, by the columns that the platform keeps them in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub enum FieldType {
    Double,
    Text,
    Bool,
}

impl DeviceTypeSpec {
    /// Checks names and sizes.
    pub fn check(&self) -> Result<(), ApiError> {
        text("spec.description", self.description.as_deref())?;
        let fields = self.fields.len();
        if fields > FIELDS_PER_TYPE_MAX {
            return Err(ApiError::invalid("spec.fields", "too many fields").over(FIELDS_PER_TYPE_MAX, fields));
        }
        if self.bytes() > DEVICE_TYPE_BYTES_MAX {
            let error = ApiError::invalid("spec", "texts are too long, in bytes");
            return Err(error.over(DEVICE_TYPE_BYTES_MAX, self.bytes()));
        }
        for (name, field) in &self.fields {
            key("spec.fields", name)?;
            text(&format!("spec.fields.{name}.unit"), field.unit.as_deref())?;
            text(&format!("spec.fields.{name}.description"), field.description.as_deref())?;
        }
        Ok(())
    }

    /// Of its texts.
    pub fn bytes(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let field =
            |(name, field): (&String, &TypeField)| name.len() + length(&field.unit) + length(&field.description);
        length(&self.description) + self.fields.iter().map(field).sum::<usize>()
    }
}

/// Refuses a description, or a unit, that is too long.
pub(super) fn text(field: &str, text: Option<&str>) -> Result<(), ApiError> {
    let bytes = text.map_or(0, str::len);
    if bytes > DESCRIPTION_BYTES_MAX {
        return Err(ApiError::invalid(field, "text is too long, in bytes").over(DESCRIPTION_BYTES_MAX, bytes));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(json: serde_json::Value) -> DeviceTypeSpec {
        serde_json::from_value(json).expect("shape")
    }

    fn refused(json: serde_json::Value) -> (Option<String>, Option<String>) {
        let error = spec(json).check().expect_err("refused");
        (error.field, error.limit)
    }

    fn fields(count: usize) -> serde_json::Value {
        (0..count).map(|i| (format!("f{i}"), json!({"type": "double"}))).collect::<serde_json::Map<_, _>>().into()
    }

    #[test]
    fn a_type_is_bounded_in_every_part() {
        let long = "x".repeat(DESCRIPTION_BYTES_MAX);
        let field = json!({"type": "text", "unit": long, "description": long});
        let whole = json!({"description": long, "fields": {"temperature.inside": field}});
        assert_eq!(spec(whole).check(), Ok(()));
        assert_eq!(spec(json!({})).check(), Ok(()), "a type may say nothing");
        assert_eq!(spec(json!({"fields": fields(FIELDS_PER_TYPE_MAX)})).check(), Ok(()));

        let field = json!({"type": "text", "description": long});
        let wordy: serde_json::Map<_, _> = (0..64).map(|i| (format!("f{i}"), field.clone())).collect();
        let refusal = refused(json!({"fields": wordy}));
        assert_eq!(refusal, (Some("spec".to_owned()), Some(DEVICE_TYPE_BYTES_MAX.to_string())));

        let longer = "x".repeat(DESCRIPTION_BYTES_MAX + 1);
        let limit = |limit: usize| Some(limit.to_string());
        let field_of = |field: &str| Some(field.to_owned());
        for (refusal, expected) in [
            (refused(json!({"description": longer})), (field_of("spec.description"), limit(DESCRIPTION_BYTES_MAX))),
            (
                refused(json!({"fields": {"a": {"type": "bool", "unit": longer}}})),
                (field_of("spec.fields.a.unit"), limit(DESCRIPTION_BYTES_MAX)),
            ),
            (
                refused(json!({"fields": {"a": {"type": "bool", "description": longer}}})),
                (field_of("spec.fields.a.description"), limit(DESCRIPTION_BYTES_MAX)),
            ),
            (
                refused(json!({"fields": fields(FIELDS_PER_TYPE_MAX + 1)})),
                (field_of("spec.fields"), limit(FIELDS_PER_TYPE_MAX)),
            ),
        ] {
            assert_eq!(refusal, expected);
        }
        for name in ["", "a b", "ä"] {
            assert_eq!(
                refused(json!({"fields": {name: {"type": "bool"}}})).0.as_deref(),
                Some("spec.fields"),
                "{name}"
            );
        }
    }

    #[test]
    fn a_type_of_field_that_is_none_is_refused() {
        for field in [json!({"type": "integer"}), json!({}), json!({"type": "text", "units": "m"})] {
            serde_json::from_value::<TypeField>(field.clone()).expect_err(&field.to_string());
        }
    }
}
