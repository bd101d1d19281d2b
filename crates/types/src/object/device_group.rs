//! The declared shape of a group of devices.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::device_type::text;
use super::{DeviceSpec, LabelSelector};
use crate::limits::TYPES_PER_GROUP_MAX;
use crate::{ApiError, key, subdomain};

/// `spec` of a DeviceGroup. Its devices are those that its selector selects, that are of one of its types where it names some,
/// and that are in the group it is within.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceGroupSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// By the labels of devices; an empty one selects every device.
    #[serde(default)]
    pub selector: LabelSelector,
    /// Names of types; none: of any type, or of no type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// The group it is within.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
}

impl DeviceGroupSpec {
    /// Checks names and sizes; whether there is the group it is within is for the registry to say.
    pub fn check(&self) -> Result<(), ApiError> {
        text("spec.description", self.description.as_deref())?;
        self.selector.check("spec.selector")?;
        let types = self.types.len();
        if types > TYPES_PER_GROUP_MAX {
            return Err(ApiError::invalid("spec.types", "too many types").over(TYPES_PER_GROUP_MAX, types));
        }
        self.types.iter().try_for_each(|name| key("spec.types", name))?;
        self.parent.iter().try_for_each(|name| subdomain("spec.parent", name))
    }

    /// Whether a device is one of this group, as far as this group alone decides.
    pub fn selects(&self, labels: &BTreeMap<String, String>, device: &DeviceSpec) -> bool {
        let of_type = || device.device_type.as_ref().is_some_and(|name| self.types.contains(name));
        (self.types.is_empty() || of_type()) && self.selector.matches(labels)
    }

    /// Of its texts.
    pub fn bytes(&self) -> usize {
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let types = self.types.iter().map(String::len).sum::<usize>();
        length(&self.description) + length(&self.parent) + types + self.selector.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(json: serde_json::Value) -> DeviceGroupSpec {
        serde_json::from_value(json).expect("shape")
    }

    #[test]
    fn a_group_takes_devices_by_labels_and_by_type() {
        let lamp = DeviceSpec { device_type: Some("lamp".into()), ..DeviceSpec::default() };
        let untyped = DeviceSpec::default();
        let hall = BTreeMap::from([("room".to_owned(), "hall".to_owned())]);
        for (group, labels, device, expected) in [
            (json!({}), &hall, &untyped, true),
            (json!({"types": ["lamp", "fan"]}), &hall, &lamp, true),
            (json!({"types": ["fan"]}), &hall, &lamp, false),
            (json!({"types": ["fan"]}), &hall, &untyped, false),
            (json!({"types": ["lamp"], "selector": {"matchLabels": {"room": "hall"}}}), &hall, &lamp, true),
            (json!({"types": ["lamp"], "selector": {"matchLabels": {"room": "attic"}}}), &hall, &lamp, false),
            (json!({"types": ["lamp"], "selector": {"matchLabels": {"room": "hall"}}}), &hall, &untyped, false),
        ] {
            assert_eq!(spec(group.clone()).selects(labels, device), expected, "{group}");
        }
    }

    #[test]
    fn a_group_is_bounded_in_every_part() {
        let types = |count: usize| (0..count).map(|i| format!("t{i}")).collect::<Vec<_>>();
        let whole = json!({"description": "d", "types": types(TYPES_PER_GROUP_MAX), "parent": "house"});
        assert_eq!(spec(whole).check(), Ok(()));
        for (group, field) in [
            (json!({"description": "x".repeat(1_025)}), "spec.description"),
            (json!({"types": types(TYPES_PER_GROUP_MAX + 1)}), "spec.types"),
            (json!({"types": ["a b"]}), "spec.types"),
            (json!({"parent": "A"}), "spec.parent"),
            (json!({"selector": {"matchLabels": {"a b": "c"}}}), "spec.selector.matchLabels"),
        ] {
            let refused = spec(group.clone()).check().expect_err(&group.to_string());
            assert_eq!(refused.field.as_deref(), Some(field), "{group}");
        }
    }
}
