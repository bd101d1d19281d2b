//! Device types.

use drover_types::ApiError;
use drover_types::object::{DeviceTypeSpec, FieldType, TypeField};

use super::wire;

impl TryFrom<&wire::TypeField> for TypeField {
    type Error = ApiError;

    fn try_from(field: &wire::TypeField) -> Result<Self, ApiError> {
        let field_type = match field.r#type() {
            wire::FieldType::Double => FieldType::Double,
            wire::FieldType::Text => FieldType::Text,
            wire::FieldType::Bool => FieldType::Bool,
            wire::FieldType::Unspecified => return Err(ApiError::invalid("fields.type", "is not a known type")),
        };
        Ok(Self { field_type, unit: given(&field.unit), description: given(&field.description) })
    }
}

impl From<TypeField> for wire::TypeField {
    fn from(field: TypeField) -> Self {
        let field_type = match field.field_type {
            FieldType::Double => wire::FieldType::Double,
            FieldType::Text => wire::FieldType::Text,
            FieldType::Bool => wire::FieldType::Bool,
        };
        Self {
            r#type: field_type.into(),
            unit: field.unit.unwrap_or_default(),
            description: field.description.unwrap_or_default(),
        }
    }
}

impl TryFrom<&wire::DeviceType> for DeviceTypeSpec {
    type Error = ApiError;

    fn try_from(device_type: &wire::DeviceType) -> Result<Self, ApiError> {
        let field = |(name, field): (&String, &wire::TypeField)| Ok((name.clone(), TypeField::try_from(field)?));
        let fields = device_type.fields.iter().map(field).collect::<Result<_, ApiError>>()?;
        Ok(Self { description: given(&device_type.description), fields })
    }
}

impl wire::DeviceType {
    /// The wire form of a spec.
    pub fn of(meta: wire::Meta, spec: DeviceTypeSpec) -> Self {
        Self {
            meta: Some(meta),
            description: spec.description.unwrap_or_default(),
            fields: spec.fields.into_iter().map(|(name, field)| (name, field.into())).collect(),
        }
    }
}

pub(super) fn given(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_survives_the_wire() {
        let field = |field_type, unit: Option<&str>| TypeField {
            field_type,
            unit: unit.map(str::to_owned),
            description: Some("d".into()),
        };
        let fields = [
            ("temperature".to_owned(), field(FieldType::Double, Some("°C"))),
            ("name".to_owned(), field(FieldType::Text, None)),
            ("on".to_owned(), field(FieldType::Bool, None)),
        ];
        let spec = DeviceTypeSpec { description: None, fields: fields.into() };
        let wire = wire::DeviceType::of(wire::Meta::default(), spec.clone());
        assert_eq!(DeviceTypeSpec::try_from(&wire), Ok(spec));
    }

    #[test]
    fn a_field_without_a_type_is_refused() {
        let refused = TypeField::try_from(&wire::TypeField::default()).expect_err("refused");
        assert_eq!(refused.field.as_deref(), Some("fields.type"));
    }
}
