//! API tokens: how people and programs of a tenant open the REST interface.
//!
//! A token is `drt_TENANT.NAME.SECRET`: it says itself whose it is, so that it is found by its key alone. Its SHA-256 is
//! kept, as of the credentials of devices; see there why a fast hash is enough.

use drover_types::{API_TOKEN_PREFIX, ApiError, ErrorCode, TenantId, api_token_tenant, subdomain};
use subtle::ConstantTimeEq;

use super::credentials::digest;
use super::{Declared, Domain, Page, PageRequest};
use crate::object::{ApiToken, Kind, Object, ObjectKey, Role, Spec};

/// Most tokens of a tenant, those that have ended among them.
const PER_TENANT_MAX: usize = 1_000;
/// Longest name of who made a token, in bytes.
const CREATED_BY_BYTES_MAX: usize = 512;
/// Longest token that is looked at, in bytes: prefix, tenant, name and secret at their longest, with room to spare.
const TOKEN_BYTES_MAX: usize = 512;

/// A token as somebody wants it.
pub struct Wanted {
    pub tenant: TenantId,
    pub name: String,
    pub role: Role,
    /// Seconds until it ends; 0: it does not.
    pub duration_s: u64,
    /// Who wants it.
    pub created_by: String,
}

impl Domain {
    /// Makes a token; it is in the answer and nowhere else. `already_exists` if there is one of its name.
    pub async fn create_api_token(&self, wanted: Wanted) -> Result<(Object, String), ApiError> {
        let Wanted { tenant, name, role, duration_s, created_by } = wanted;
        subdomain("name", &name)?;
        if created_by.len() > CREATED_BY_BYTES_MAX {
            let error = ApiError::invalid("created_by", "is too long");
            return Err(error.over(CREATED_BY_BYTES_MAX, created_by.len()));
        }
        let expires_ms = self.ends_ms(duration_s)?;
        let token = format!("{API_TOKEN_PREFIX}{tenant}.{name}.{}", self.secret());
        let spec = ApiToken { role, expires_ms, created_by, digest: digest(token.as_bytes()) };
        let _alone = self.making_api_token.lock().await;
        let existing = self.store.page(Kind::ApiToken, &tenant, "", PER_TENANT_MAX).await?.len();
        if existing >= PER_TENANT_MAX {
            let error = ApiError::new(ErrorCode::ResourceExhausted, "the tenant has too many API tokens");
            return Err(error.over(PER_TENANT_MAX, existing + 1));
        }
        let labels = Default::default();
        let (spec, owner) = (Spec::ApiToken(spec), String::new());
        let made = self.create(Declared { tenant, name, labels, revision: 0, owner, spec }).await?;
        self.telemetry.api_token_made(&made.key());
        Ok((made, token))
    }

    /// API tokens in the order of their names.
    pub async fn list_api_tokens(&self, request: &PageRequest) -> Result<Page, ApiError> {
        self.page(Kind::ApiToken, request).await
    }

    /// Deletes a token: from now on nobody is let in with it.
    pub async fn delete_api_token(&self, tenant: &TenantId, name: &str) -> Result<(), ApiError> {
        let deleted = self.delete(ObjectKey::new(Kind::ApiToken, tenant, name)).await?;
        self.telemetry.api_token_deleted(&deleted.key());
        Ok(())
    }

    /// What is known of a token that somebody shows; `unauthenticated` if it is nobody's, or has ended. Whether it is
    /// the name or the secret that is wrong is not said.
    pub async fn verify_api_token(&self, token: &str) -> Result<Object, ApiError> {
        let _under_way = self.telemetry.authenticating(1);
        let outcome = self.find_api_token(token).await;
        self.telemetry.authenticated("api_token", outcome.as_ref().map(drop).map_err(|e| e.code));
        outcome
    }

    async fn find_api_token(&self, token: &str) -> Result<Object, ApiError> {
        let key = key_of(token).ok_or_else(unknown)?;
        let found = self.store.get(&key).await?.ok_or_else(unknown)?;
        let known = found.spec.api_token();
        if !bool::from(known.digest.ct_eq(&digest(token.as_bytes()))) {
            return Err(unknown());
        }
        if known.expires_ms.is_some_and(|ends| ends <= self.clock.now_ms()) {
            let message = format!("the API token {} of tenant {} has expired", key.name, key.tenant);
            return Err(ApiError::new(ErrorCode::Unauthenticated, message));
        }
        Ok(found)
    }
}

/// Whose token it says to be. A secret has no dot; a name may have some.
fn key_of(token: &str) -> Option<ObjectKey> {
    let (tenant, rest) = api_token_tenant(token).filter(|_| token.len() <= TOKEN_BYTES_MAX)?;
    let (name, _secret) = rest.rsplit_once('.')?;
    Some(ObjectKey::new(Kind::ApiToken, &TenantId::new(tenant).ok()?, name))
}

fn unknown() -> ApiError {
    ApiError::new(ErrorCode::Unauthenticated, "the API token is not one in force")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_whose_it_is_whatever_dots_its_name_has() {
        let key = |token: &str| key_of(token).map(|key| key.to_string());
        assert_eq!(key("drt_home.ci.s3cret").as_deref(), Some("api_token/home/ci"));
        assert_eq!(key("drt_home.ci.build.s3cret").as_deref(), Some("api_token/home/ci.build"));
        let longest = format!("drt_{}.{}.{}", "t".repeat(63), "n".repeat(253), "s".repeat(43));
        assert!(key(&longest).is_some());
        for nobodys in
            ["", "drt_", "drv_home.ci.s", "drt_home.s", "drt_HOME.ci.s", "drt_.ci.s", &"drt_a.b.c".repeat(60)]
        {
            assert_eq!(key(nobodys), None, "{nobodys}");
        }
    }
}
