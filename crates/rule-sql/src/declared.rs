//! Whether a rule as it is declared can run: its statement, and the templates of its actions.

use drover_types::ApiError;
use drover_types::object::RuleSpec;

use crate::{CompiledRule, Rule};

/// Compiles all of a rule; the error names the field, and in the statement line and column. Whether the functions that it
/// calls exist is for who knows them ([`CompiledRule::user_functions`]).
pub fn check(spec: &RuleSpec) -> Result<CompiledRule, ApiError> {
    spec.check()?;
    let rule = Rule::compile_open(&spec.sql)?;
    // Sizes were checked with the shape.
    for (field, action) in spec.all_actions() {
        for template in action.templates() {
            rule.template(template.text).map_err(|error| error.in_field(template.name(&field)))?;
        }
    }
    Ok(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(spec: serde_json::Value) -> String {
        let spec: RuleSpec = serde_json::from_value(spec).expect("a spec");
        check(&spec).expect_err("refused").field.expect("a field")
    }

    #[test]
    fn every_part_that_does_not_compile_is_named() {
        let with = |sql: &str, action: serde_json::Value| serde_json::json!({"sql": sql, "actions": [action]});
        let kafka = |key: &str| serde_json::json!({"kafka": {"topic": "home.t", "key": key}});
        let good: RuleSpec =
            serde_json::from_value(with("SELECT my_own(x) AS y FROM 'a'", kafka("${y}"))).expect("a spec");
        assert_eq!(check(&good).expect("compiles").user_functions().len(), 1);
        let basic: RuleSpec = serde_json::from_value(with("SELECT * FROM ''", kafka("k"))).expect("a spec");
        assert!(check(&basic).is_ok(), "for messages by Basic Ingest alone");
        assert_eq!(refused(with("SELECT FROM 'a'", kafka("k"))), "spec.sql");
        assert_eq!(refused(with("SELECT * FROM 'a'", kafka("${"))), "spec.actions[0].kafka.key");
        assert_eq!(refused(with("SELECT * FROM 'a'", kafka(""))), "spec.actions[0].kafka.key");
        let republish = serde_json::json!({"republish": {"topic": "a/${"}});
        assert_eq!(refused(with("SELECT * FROM 'a'", republish)), "spec.actions[0].republish.topic");
    }
}
