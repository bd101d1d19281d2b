//! Admission: whether a Rule is let into the cluster. Only one that cannot compile is not: all else that is wrong with it its
//! status tells, and an object that is already there has to stay changeable.

use drover_types::ApiError;
use drover_types::object::RuleSpec;
use serde::Deserialize;
use serde_json::{Value, json};

use super::problem::told;

/// `AdmissionReview` of `admission.k8s.io/v1`, as far as it is looked at.
#[derive(Clone, Debug, Deserialize)]
pub struct Review {
    pub request: Request,
}

/// What is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub uid: String,
    /// Null of a deletion.
    #[serde(default)]
    pub object: Value,
    /// Null of a creation.
    #[serde(default)]
    pub old_object: Value,
}

/// Why the Rule is not let in; `None`: it is.
pub fn refusal(request: &Request) -> Option<ApiError> {
    let spec = &request.object["spec"];
    let is_going = !request.object["metadata"]["deletionTimestamp"].is_null();
    // Labels and finalizers of a Rule that came in while nobody was asked can still be changed.
    if is_going || *spec == request.old_object["spec"] {
        return None;
    }
    // A field that only a newer operator knows is no reason to refuse: its status will tell.
    let spec: RuleSpec = serde_json::from_value(spec.clone()).ok()?;
    drover_rule_sql::check(&spec).err()
}

/// The answer to the review `uid`.
pub fn answer(uid: &str, refusal: Option<&ApiError>) -> Value {
    let mut response = json!({"uid": uid, "allowed": refusal.is_none()});
    if let Some(error) = refusal {
        response["status"] = json!({"code": 422, "reason": "Invalid", "message": told(error)});
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(sql: &str) -> Value {
        json!({"metadata": {"name": "r"}, "spec": {"sql": sql, "actions": [{"kafka": {"topic": "home.t"}}]}})
    }

    fn told_of(object: Value, old: Value) -> Option<String> {
        refusal(&Request { uid: "u".into(), object, old_object: old }).map(|error| told(&error))
    }

    #[test]
    fn a_rule_that_does_not_compile_is_refused_with_line_and_column() {
        assert_eq!(told_of(rule("SELECT * FROM 'a'"), Value::Null), None);
        let refused = told_of(rule("SELECT FROM 'a'"), Value::Null).expect("refused");
        assert!(refused.starts_with("spec.sql: line 1, column "), "{refused}");
        let refused = told_of(rule("SELECT FROM 'a'"), rule("SELECT * FROM 'a'")).expect("refused");
        assert!(refused.starts_with("spec.sql: "), "{refused}");
    }

    #[test]
    fn what_is_there_stays_changeable_and_what_is_newer_is_let_in() {
        let bad = rule("SELECT FROM 'a'");
        let mut labelled = bad.clone();
        labelled["metadata"]["finalizers"] = json!(["drover.dev/registry"]);
        assert_eq!(told_of(labelled, bad.clone()), None);
        let mut going = bad.clone();
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(told_of(going, rule("SELECT * FROM 'a'")), None);
        let mut newer = bad;
        newer["spec"]["actions"] = json!([{"notify": {"channel": "ops"}}]);
        assert_eq!(told_of(newer, Value::Null), None);
    }

    #[test]
    fn the_answer_has_the_id_of_the_question() {
        assert_eq!(answer("u", None)["response"], json!({"uid": "u", "allowed": true}));
        let refused = answer("u", Some(&ApiError::invalid("spec.sql", "bad")));
        assert_eq!(refused["response"]["allowed"], false);
        assert_eq!(refused["response"]["status"]["message"], "spec.sql: bad");
    }
}
