//! Functions: JavaScript that rules and adapters call. One that does not do what its examples say is refused when it is
//! written.

use drover_functions::{CallError, Verdict, examine};
use drover_types::limits::FUNCTIONS_PER_TENANT_MAX;
use drover_types::object::FunctionSpec;
use drover_types::{ApiError, ErrorCode, TenantId};
use serde_json::Value;

use super::{Declared, Domain, Page, PageRequest, checks};
use crate::object::{Kind, Object, ObjectKey};

/// Longest result told in a refusal, in characters.
const TOLD_CHARS_MAX: usize = 300;

impl Domain {
    /// Creates or replaces a function.
    pub async fn put_function(&self, function: Declared) -> Result<Object, ApiError> {
        checks::function_name(&function.name)?;
        checks::labels(&function.labels)?;
        let wanted = function.spec.function().clone();
        wanted.check()?;
        let pool = self.functions.clone();
        let examining = tokio::task::spawn_blocking(move || examined(examine(&pool, &wanted), &wanted));
        examining.await.map_err(|panic| ApiError::new(ErrorCode::Internal, panic.to_string()))??;
        let key = ObjectKey::new(Kind::Function, &function.tenant, &function.name);
        let _alone = self.writing_function.lock().await;
        self.current_or_room(&key, FUNCTIONS_PER_TENANT_MAX, "functions").await?;
        self.put(function).await
    }

    /// A function.
    pub async fn get_function(&self, tenant: &TenantId, name: &str) -> Result<Object, ApiError> {
        self.get(ObjectKey::new(Kind::Function, tenant, name)).await
    }

    /// Functions in the order of their names.
    pub async fn list_functions(&self, request: &PageRequest) -> Result<Page, ApiError> {
        self.page_of_large(Kind::Function, request).await
    }

    /// Deletes a function; what calls it goes on, and fails.
    pub async fn delete_function(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError> {
        self.delete(ObjectKey::new(Kind::Function, tenant, name)).await.map(drop)
    }
}

/// Up to the first example that is not right.
fn examined(
    verdicts: Result<impl Iterator<Item = Verdict>, CallError>,
    function: &FunctionSpec,
) -> Result<(), ApiError> {
    let verdicts = verdicts.map_err(|error| refused("spec.source", error))?;
    for ((i, verdict), example) in verdicts.enumerate().zip(&function.examples) {
        let field = format!("spec.examples[{i}]");
        match verdict {
            Verdict::Right => {}
            Verdict::Failed(error) => return Err(refused(&field, error)),
            Verdict::Wrong(output) => {
                let output = output.as_ref().map_or_else(|| "nothing".to_owned(), told);
                let message = format!("answered {output}, expected {}", told(&example.output));
                return Err(ApiError::invalid(field, message));
            }
        }
    }
    Ok(())
}

fn told(value: &Value) -> String {
    value.to_string().chars().take(TOLD_CHARS_MAX).collect()
}

fn refused(field: &str, error: CallError) -> ApiError {
    match error {
        CallError::Failed(message) | CallError::Slow(message) => ApiError::invalid(field, message),
        CallError::Busy | CallError::Unavailable(_) => ApiError::new(ErrorCode::Unavailable, error.to_string()),
    }
}
