//! `spec` of a Function: JavaScript, and examples of what it answers.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ApiError;
use crate::limits::{EXAMPLES_BYTES_MAX, EXAMPLES_PER_FUNCTION_MAX, FUNCTION_SOURCE_BYTES_MAX, ROUTINE_BYTES_MAX};

/// `spec` of a Function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FunctionSpec {
    /// A classic script in JavaScript, as The Things Network has them: no modules, no I/O.
    pub source: String,
    /// The function of the script that is called; `main` where absent.
    #[serde(default = "main")]
    pub routine: String,
    /// What it answers; a function that answers otherwise is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<FunctionExample>,
}

/// One call and its result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FunctionExample {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Another function of the script than that of the spec: `encodeDownlink`, for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routine: Option<String>,
    /// The one argument, any JSON.
    pub input: Value,
    /// What it returns, any JSON.
    pub output: Value,
}

fn main() -> String {
    "main".to_owned()
}

impl FunctionSpec {
    /// Checks names and sizes; whether the script runs is for an engine to say.
    pub fn check(&self) -> Result<(), ApiError> {
        let bytes = self.source.len();
        if bytes == 0 || bytes > FUNCTION_SOURCE_BYTES_MAX {
            let message = format!("a script has 1 to {FUNCTION_SOURCE_BYTES_MAX} bytes");
            return Err(ApiError::invalid("spec.source", message).over(FUNCTION_SOURCE_BYTES_MAX, bytes));
        }
        routine("spec.routine", &self.routine)?;
        let examples = self.examples.len();
        if examples > EXAMPLES_PER_FUNCTION_MAX {
            let refused = ApiError::invalid("spec.examples", "too many examples");
            return Err(refused.over(EXAMPLES_PER_FUNCTION_MAX, examples));
        }
        for (i, example) in self.examples.iter().enumerate() {
            if let Some(name) = &example.routine {
                routine(&format!("spec.examples[{i}].routine"), name)?;
            }
        }
        let bytes = self.examples.iter().map(FunctionExample::bytes).sum::<usize>();
        if bytes > EXAMPLES_BYTES_MAX {
            return Err(ApiError::invalid("spec.examples", "examples are too long").over(EXAMPLES_BYTES_MAX, bytes));
        }
        Ok(())
    }

    /// Of script and examples.
    pub fn bytes(&self) -> usize {
        self.source.len() + self.examples.iter().map(FunctionExample::bytes).sum::<usize>()
    }
}

impl FunctionExample {
    fn bytes(&self) -> usize {
        let description = self.description.as_ref().map_or(0, String::len);
        description + self.input.to_string().len() + self.output.to_string().len()
    }
}

/// A name of JavaScript, of ASCII letters.
fn routine(field: &str, name: &str) -> Result<(), ApiError> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$');
    let fits = (1..=ROUTINE_BYTES_MAX).contains(&name.len()) && !name.as_bytes()[0].is_ascii_digit();
    if fits && name.bytes().all(legal) {
        return Ok(());
    }
    let message = format!("a routine is named by 1 to {ROUTINE_BYTES_MAX} of A-Z, a-z, 0-9, _ and $, no digit first");
    Err(ApiError::invalid(field, message).over(ROUTINE_BYTES_MAX, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(spec: Value) -> (Option<String>, Option<String>) {
        let spec: FunctionSpec = serde_json::from_value(spec).expect("shape");
        let error = spec.check().expect_err("refused");
        (error.field, error.limit)
    }

    #[test]
    fn a_function_is_bounded_in_every_part() {
        let example = json!({"input": null, "output": [1, "a"]});
        let whole = json!({"source": "x".repeat(FUNCTION_SOURCE_BYTES_MAX), "examples": vec![example.clone(); 100]});
        let spec: FunctionSpec = serde_json::from_value(whole).expect("shape");
        assert_eq!((spec.check(), spec.routine.as_str()), (Ok(()), "main"));

        let field = |spec| refused(spec).0.expect("a field");
        assert_eq!(field(json!({"source": ""})), "spec.source");
        let long = refused(json!({"source": "x".repeat(FUNCTION_SOURCE_BYTES_MAX + 1)}));
        assert_eq!(long.1, Some(FUNCTION_SOURCE_BYTES_MAX.to_string()));
        assert_eq!(field(json!({"source": "x", "examples": vec![example; 101]})), "spec.examples");
        let long = json!({"input": "x".repeat(EXAMPLES_BYTES_MAX), "output": 1});
        assert_eq!(field(json!({"source": "x", "examples": [long]})), "spec.examples");
        for name in ["", "a.b", "1a", "a b", &"a".repeat(ROUTINE_BYTES_MAX + 1)] {
            assert_eq!(field(json!({"source": "x", "routine": name})), "spec.routine", "{name}");
            let example = json!({"input": 1, "output": 1, "routine": name});
            assert_eq!(field(json!({"source": "x", "examples": [example]})), "spec.examples[0].routine", "{name}");
        }
    }
}
