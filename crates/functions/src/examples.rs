//! Whether a function does what its examples say.
//!
//! Outputs are compared as The Things Network compares them: as JSON values, numbers by their value, empty lists of
//! `warnings` and `errors` as if they were not there, and one normalized measurement as a list of it.

use std::borrow::Cow;

use drover_types::object::{FunctionExample, FunctionSpec};
use serde_json::Value;
use serde_json::value::to_raw_value;

use crate::pool::{CallError, Pool};

/// The routine whose `data` is a list of measurements, or the only one.
const NORMALIZE: &str = "normalizeUplink";

/// What became of one example.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Right,
    /// It answered this; `None`: what is no JSON.
    Wrong(Option<Value>),
    Failed(CallError),
}

/// Tries example after example, as their verdicts are asked for; at least the script itself, if there is none. Blocks.
pub fn examine(pool: &Pool, function: &FunctionSpec) -> Result<impl Iterator<Item = Verdict>, CallError> {
    if function.examples.is_empty() {
        // A script that does not run, or has no such routine, is told apart from a routine that wants an argument.
        let lookup =
            format!("{}\n;function drover_lookup() {{ return typeof {}; }}", function.source, function.routine);
        let found = pool.call(&lookup, "drover_lookup", &[])?;
        if found.as_deref() != Some("\"function\"") {
            return Err(CallError::Failed(format!("script has no function {}", function.routine)));
        }
    }
    Ok(function.examples.iter().map(|example| verdict(pool, function, example)))
}

fn verdict(pool: &Pool, function: &FunctionSpec, example: &FunctionExample) -> Verdict {
    let routine = example.routine.as_deref().unwrap_or(&function.routine);
    let input = to_raw_value(&example.input).expect("a JSON value can be written");
    let out = match pool.call(&function.source, routine, &[&input]) {
        Ok(out) => out.and_then(|out| serde_json::from_str::<Value>(&out).ok()),
        Err(error) => return Verdict::Failed(error),
    };
    match out {
        Some(out) if same(&listed(routine, &out), &listed(routine, &example.output)) => Verdict::Right,
        out => Verdict::Wrong(out),
    }
}

/// The output of a routine, with measurements in a list.
fn listed<'o>(routine: &str, output: &'o Value) -> Cow<'o, Value> {
    match output.get("data") {
        Some(only @ Value::Object(_)) if routine == NORMALIZE => {
            let mut listed = output.clone();
            listed["data"] = Value::Array(vec![only.clone()]);
            Cow::Owned(listed)
        }
        Some(_) | None => Cow::Borrowed(output),
    }
}

fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let told = |name: &str, value: &Value| {
                !(matches!(name, "warnings" | "errors") && value.as_array().is_some_and(Vec::is_empty))
            };
            let within = |these: &serde_json::Map<String, Value>, those: &serde_json::Map<String, Value>| {
                these
                    .iter()
                    .filter(|(name, value)| told(name, value))
                    .all(|(name, value)| those.get(name).is_some_and(|other| same(value, other)))
            };
            within(one, other) && within(other, one)
        }
        (one, other) => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn function(source: &str, examples: Value) -> FunctionSpec {
        serde_json::from_value(json!({"source": source, "examples": examples})).expect("a function")
    }

    #[test]
    fn examples_are_compared_as_values() {
        let examples = json!([
            {"input": 1, "output": {"data": 2.0}},
            {"input": 2, "output": {"data": 4, "errors": [], "more": null}},
            {"routine": "half", "input": 3, "output": 1.5},
            {"routine": "none", "input": 3, "output": null},
        ]);
        let source = "function main(x) { return {data: 2 * x, warnings: []}; } \
                      function half(x) { return x / 2; } function none() {}";
        let (pool, function) = (Pool::default(), function(source, examples));
        let verdicts: Vec<Verdict> = examine(&pool, &function).expect("runs").collect();
        let wrong = Verdict::Wrong(Some(json!({"data": 4, "warnings": []})));
        assert_eq!(verdicts, [Verdict::Right, wrong, Verdict::Right, Verdict::Wrong(None)]);
    }

    #[test]
    fn one_normalized_measurement_is_a_list_of_it() {
        let (input, listed) = (json!({"data": {"t": 1}}), json!({"data": [{"air": {"temperature": 1}}]}));
        let examples = json!([
            {"routine": "normalizeUplink", "input": input, "output": listed},
            {"routine": "other", "input": input, "output": listed},
        ]);
        let source = "function normalizeUplink(input) { return {data: {air: {temperature: input.data.t}}}; } \
                      const other = normalizeUplink; function main() {}";
        let (pool, function) = (Pool::default(), function(source, examples));
        let verdicts: Vec<Verdict> = examine(&pool, &function).expect("runs").collect();
        let alone = Verdict::Wrong(Some(json!({"data": {"air": {"temperature": 1}}})));
        assert_eq!(verdicts, [Verdict::Right, alone]);
    }

    #[test]
    fn without_examples_the_script_has_to_run_and_have_the_routine() {
        let examined =
            |source: &str| examine(&Pool::default(), &function(source, json!([]))).map(|verdicts| verdicts.count());
        assert_eq!(examined("const main = (x) => x.a.b; // end"), Ok(0));
        let missing = examined("function mian() {}").expect_err("refused").to_string();
        assert_eq!(missing, "script has no function main");
        assert!(examined("function (").expect_err("refused").to_string().starts_with("script: SyntaxError: "));
    }
}
