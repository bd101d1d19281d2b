//! Device groups and their selectors.

use drover_types::ApiError;
use drover_types::object::{DeviceGroupSpec, LabelOperator, LabelRequirement, LabelSelector};

use super::device_type::given;
use super::wire;

impl TryFrom<&wire::LabelRequirement> for LabelRequirement {
    type Error = ApiError;

    fn try_from(requirement: &wire::LabelRequirement) -> Result<Self, ApiError> {
        let operator = match requirement.operator() {
            wire::LabelOperator::In => LabelOperator::In,
            wire::LabelOperator::NotIn => LabelOperator::NotIn,
            wire::LabelOperator::Exists => LabelOperator::Exists,
            wire::LabelOperator::DoesNotExist => LabelOperator::DoesNotExist,
            wire::LabelOperator::Unspecified => {
                return Err(ApiError::invalid("selector.match_expressions.operator", "is not a known operator"));
            }
        };
        Ok(Self { key: requirement.key.clone(), operator, values: requirement.values.clone() })
    }
}

impl From<LabelRequirement> for wire::LabelRequirement {
    fn from(requirement: LabelRequirement) -> Self {
        let operator = match requirement.operator {
            LabelOperator::In => wire::LabelOperator::In,
            LabelOperator::NotIn => wire::LabelOperator::NotIn,
            LabelOperator::Exists => wire::LabelOperator::Exists,
            LabelOperator::DoesNotExist => wire::LabelOperator::DoesNotExist,
        };
        Self { key: requirement.key, operator: operator.into(), values: requirement.values }
    }
}

impl TryFrom<&wire::LabelSelector> for LabelSelector {
    type Error = ApiError;

    fn try_from(selector: &wire::LabelSelector) -> Result<Self, ApiError> {
        let expressions = selector.match_expressions.iter().map(LabelRequirement::try_from);
        Ok(Self {
            match_labels: selector.match_labels.clone().into_iter().collect(),
            match_expressions: expressions.collect::<Result<_, _>>()?,
        })
    }
}

impl From<LabelSelector> for wire::LabelSelector {
    fn from(selector: LabelSelector) -> Self {
        Self {
            match_labels: selector.match_labels.into_iter().collect(),
            match_expressions: selector.match_expressions.into_iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<&wire::DeviceGroup> for DeviceGroupSpec {
    type Error = ApiError;

    fn try_from(group: &wire::DeviceGroup) -> Result<Self, ApiError> {
        Ok(Self {
            description: given(&group.description),
            selector: group.selector.as_ref().map(LabelSelector::try_from).transpose()?.unwrap_or_default(),
            types: group.types.clone(),
            parent: given(&group.parent),
        })
    }
}

impl wire::DeviceGroup {
    /// The wire form of a spec.
    pub fn of(meta: wire::Meta, spec: DeviceGroupSpec) -> Self {
        Self {
            meta: Some(meta),
            description: spec.description.unwrap_or_default(),
            selector: Some(spec.selector.into()),
            types: spec.types,
            parent: spec.parent.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_survives_the_wire() {
        let requirement = |operator, values: &[&str]| LabelRequirement {
            key: "k".into(),
            operator,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let match_expressions = vec![
            requirement(LabelOperator::In, &["a", "b"]),
            requirement(LabelOperator::NotIn, &["c"]),
            requirement(LabelOperator::Exists, &[]),
            requirement(LabelOperator::DoesNotExist, &[]),
        ];
        let match_labels = [("room".to_owned(), "hall".to_owned())].into();
        let spec = DeviceGroupSpec {
            description: Some("d".into()),
            selector: LabelSelector { match_labels, match_expressions },
            types: vec!["lamp".into()],
            parent: Some("house".into()),
        };
        for spec in [spec, DeviceGroupSpec::default()] {
            let wire = wire::DeviceGroup::of(wire::Meta::default(), spec.clone());
            assert_eq!(DeviceGroupSpec::try_from(&wire), Ok(spec));
        }
    }

    #[test]
    fn a_requirement_without_an_operator_is_refused() {
        let refused = LabelRequirement::try_from(&wire::LabelRequirement::default()).expect_err("refused");
        assert_eq!(refused.field.as_deref(), Some("selector.match_expressions.operator"));
    }
}
