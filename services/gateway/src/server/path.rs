//! What a path says: the tenant, and the names of objects.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use drover_host::http::Failure;
use drover_types::{ApiError, DeviceId, ErrorCode, TenantId};

use utoipa::IntoParams;

/// The parameter `device` of a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path, names("device"))]
pub struct DeviceParam(#[allow(dead_code, reason = "only documents")] String);

/// The parameter `policy` of a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path, names("policy"))]
pub struct PolicyParam(#[allow(dead_code, reason = "only documents")] String);

/// The parameter `rule` of a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path, names("rule"))]
pub struct RuleParam(#[allow(dead_code, reason = "only documents")] String);

/// The parameter `function` of a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path, names("function"))]
pub struct FunctionParam(#[allow(dead_code, reason = "only documents")] String);

/// The parameter `authority` of a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path, names("authority"))]
pub struct AuthorityParam(#[allow(dead_code, reason = "only documents")] String);

/// The parameter `type` of a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path, names("type"))]
pub struct TypeParam(#[allow(dead_code, reason = "only documents")] String);

/// The parameter `group` of a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path, names("group"))]
pub struct GroupParam(#[allow(dead_code, reason = "only documents")] String);

/// The parameters of a path; the short form of a path is about the default tenant.
pub struct At {
    pub tenant: TenantId,
    params: Vec<(String, String)>,
}

impl<S: Send + Sync> FromRequestParts<S> for At {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let raw = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|refused| ApiError::invalid("path", refused.body_text()))?;
        let params: Vec<_> = raw.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let tenant = match find(&params, "tenant") {
            Some(name) => TenantId::new(name).map_err(|error| ApiError::invalid("tenant", error.to_string()))?,
            None => TenantId::default_tenant(),
        };
        Ok(Self { tenant, params })
    }
}

impl At {
    /// The parameter `name`, which the route has.
    pub fn name(&self, name: &str) -> Result<&str, ApiError> {
        find(&self.params, name).ok_or_else(|| ApiError::new(ErrorCode::Internal, format!("path has no {name}")))
    }

    /// The parameter `device`, checked.
    pub fn device(&self) -> Result<DeviceId, ApiError> {
        DeviceId::new(self.name("device")?).map_err(|error| ApiError::invalid("device", error.to_string()))
    }
}

fn find<'a>(params: &'a [(String, String)], name: &str) -> Option<&'a str> {
    params.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}
