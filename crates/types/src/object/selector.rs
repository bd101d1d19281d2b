//! Which labels are meant: Kubernetes' `LabelSelector`, as an object and as a text.

mod parse;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::{LABEL_BYTES_MAX, SELECTOR_BYTES_MAX, SELECTOR_REQUIREMENTS_MAX, SELECTOR_VALUES_MAX};
use crate::{ApiError, key};

/// All of it has to hold; an empty selector selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels with their values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// What has to hold of one label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelRequirement {
    pub key: String,
    pub operator: LabelOperator,
    /// Of `In` and `NotIn`, one at least; the others have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// How a label is looked at, by the names that Kubernetes gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum LabelOperator {
    In,
    /// Also where there is no such label.
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is selected.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Checks keys, values and sizes; `field` is where it stands.
    pub fn check(&self, field: &str) -> Result<(), ApiError> {
        let requirements = self.match_labels.len() + self.match_expressions.len();
        if requirements > SELECTOR_REQUIREMENTS_MAX {
            return Err(ApiError::invalid(field, "too many requirements").over(SELECTOR_REQUIREMENTS_MAX, requirements));
        }
        if self.bytes() > SELECTOR_BYTES_MAX {
            return Err(ApiError::invalid(field, "selector is too long").over(SELECTOR_BYTES_MAX, self.bytes()));
        }
        let labels = format!("{field}.matchLabels");
        for (name, text) in &self.match_labels {
            key(&labels, name)?;
            value(&labels, text)?;
        }
        let expressions = self.match_expressions.iter().enumerate();
        expressions
            .map(|(i, requirement)| (format!("{field}.matchExpressions[{i}]"), requirement))
            .try_for_each(|(field, requirement)| requirement.check(&field))
    }

    /// Of keys and values.
    pub fn bytes(&self) -> usize {
        let labels = self.match_labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        let expressions = self.match_expressions.iter();
        labels + expressions.map(|it| it.key.len() + it.values.iter().map(String::len).sum::<usize>()).sum::<usize>()
    }
}

impl LabelRequirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => found.is_some_and(|value| self.values.contains(value)),
            LabelOperator::NotIn => found.is_none_or(|value| !self.values.contains(value)),
            LabelOperator::Exists => found.is_some(),
            LabelOperator::DoesNotExist => found.is_none(),
        }
    }

    fn check(&self, field: &str) -> Result<(), ApiError> {
        key(&format!("{field}.key"), &self.key)?;
        let (field, values) = (format!("{field}.values"), self.values.len());
        match self.operator {
            LabelOperator::In | LabelOperator::NotIn if values == 0 => {
                return Err(ApiError::invalid(field, "In and NotIn have values"));
            }
            LabelOperator::Exists | LabelOperator::DoesNotExist if values > 0 => {
                return Err(ApiError::invalid(field, "Exists and DoesNotExist have no values").over(0, values));
            }
            LabelOperator::In | LabelOperator::NotIn | LabelOperator::Exists | LabelOperator::DoesNotExist => {}
        }
        if values > SELECTOR_VALUES_MAX {
            return Err(ApiError::invalid(field, "too many values").over(SELECTOR_VALUES_MAX, values));
        }
        self.values.iter().try_for_each(|text| value(&field, text))
    }
}

/// A value that a label can have.
fn value(field: &str, text: &str) -> Result<(), ApiError> {
    if text.len() > LABEL_BYTES_MAX {
        return Err(ApiError::invalid(field, "value is too long").over(LABEL_BYTES_MAX, text.len()));
    }
    if text.contains(char::is_control) {
        return Err(ApiError::invalid(field, "value contains a control character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
