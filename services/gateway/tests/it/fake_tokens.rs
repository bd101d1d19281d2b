//! API tokens in memory, behind the real gRPC code.

use std::sync::{Arc, Mutex};

use drover_proto::registry::v1::api_tokens_server::ApiTokens;
use drover_proto::registry::v1::*;
use drover_proto::to_status;
use drover_proto::types::v1::{ApiToken, Meta};
use drover_types::{ApiError, ErrorCode};
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

/// Tokens are `drt_TENANT.NAME.x`.
#[derive(Clone, Default)]
pub struct FakeApiTokens(Arc<Mutex<Vec<ApiToken>>>);

fn text(token: &ApiToken) -> String {
    let meta = token.meta.as_ref().unwrap();
    format!("drt_{}.{}.x", meta.tenant, meta.name)
}

impl FakeApiTokens {
    /// Deletes a token as another gateway would.
    pub fn delete_elsewhere(&self, token: &str) {
        self.0.lock().unwrap().retain(|known| text(known) != token);
    }
}

#[tonic::async_trait]
impl ApiTokens for FakeApiTokens {
    async fn create_api_token(&self, request: Request<CreateApiTokenRequest>) -> Answer<CreateApiTokenResponse> {
        let wanted = request.into_inner();
        let role = wanted.role;
        let meta = Meta { tenant: wanted.tenant, name: wanted.name, created_ms: 1_000, ..Meta::default() };
        let expires_ms = wanted.duration_s * 1_000;
        let made = ApiToken { meta: Some(meta), role, expires_ms, created_by: wanted.created_by, digest: vec![] };
        self.0.lock().unwrap().push(made.clone());
        Ok(Response::new(CreateApiTokenResponse { token: text(&made), api_token: Some(made) }))
    }

    async fn list_api_tokens(&self, request: Request<ListApiTokensRequest>) -> Answer<ListApiTokensResponse> {
        let tenant = request.into_inner().tenant;
        let mut api_tokens = self.0.lock().unwrap().clone();
        api_tokens.retain(|token| token.meta.as_ref().is_some_and(|meta| meta.tenant == tenant));
        Ok(Response::new(ListApiTokensResponse { api_tokens, next_page_token: String::new() }))
    }

    async fn delete_api_token(&self, request: Request<DeleteApiTokenRequest>) -> Answer<DeleteApiTokenResponse> {
        let DeleteApiTokenRequest { tenant, name } = request.into_inner();
        self.delete_elsewhere(&format!("drt_{tenant}.{name}.x"));
        Ok(Response::new(DeleteApiTokenResponse {}))
    }

    async fn verify_api_token(&self, request: Request<VerifyApiTokenRequest>) -> Answer<VerifyApiTokenResponse> {
        let shown = request.into_inner().token;
        let found = self.0.lock().unwrap().iter().find(|token| text(token) == shown).cloned();
        let unknown = || to_status(&ApiError::new(ErrorCode::Unauthenticated, "the API token is not one in force"));
        Ok(Response::new(VerifyApiTokenResponse { api_token: Some(found.ok_or_else(unknown)?) }))
    }
}
