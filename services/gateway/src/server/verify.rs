//! Who holds a token: the administrator by their own, everybody else by asking the registry.
//!
//! Answers are kept for a fraction of a second, so that a page of many requests asks once, and one that is no longer
//! true is not used for longer than P5 allows. What lasts (a stream) asks again as long as it lasts.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use drover_host::{AdminToken, Network, grpc};
use drover_proto::Field;
use drover_proto::registry::v1::VerifyApiTokenRequest;
use drover_proto::registry::v1::api_tokens_client::ApiTokensClient;
use drover_proto::types::v1 as wire;
use drover_types::{ApiError, ErrorCode, TenantId};
use tokio::time::Instant;

use super::backend::Backend;
use crate::domain::caller::{Caller, Role};

/// First characters of every API token.
const PREFIX: &str = "drt_";
/// How long an answer of the registry is used. With [`ASK_AGAIN`], and an answer on its way, well below a second.
const KEPT_FOR: Duration = Duration::from_millis(300);
/// How often the holder of something that lasts is verified again.
const ASK_AGAIN: Duration = Duration::from_millis(400);
/// Answers kept; when there are more, all are forgotten and asked for again.
const KEPT_MAX: usize = 1_024;
/// How long the registry may take to say whose a token is.
const DEADLINE: Duration = Duration::from_secs(5);

/// Tells who holds a token.
pub struct Verifier {
    administrator: AdminToken,
    pub api_tokens: Backend<ApiTokensClient<grpc::Client>>,
    kept: Mutex<HashMap<String, (Instant, Caller)>>,
}

/// The value of the `authorization` header that a request, or its session, was let in with.
#[derive(Clone)]
pub struct Authorization(pub String);

impl Verifier {
    /// Connects when first asked.
    pub fn new(network: &Network, administrator: AdminToken, deadline: Duration) -> Self {
        let client = ApiTokensClient::new(network.client("registry"));
        Self { administrator, api_tokens: Backend::new("registry", client, deadline), kept: Mutex::default() }
    }

    /// Who sends this `authorization`; `unauthenticated` if nobody does.
    pub async fn caller(&self, authorization: &str) -> Result<Caller, ApiError> {
        if self.administrator.authorizes(authorization) {
            return Ok(Caller::Administrator);
        }
        let token = bearer(authorization).filter(|token| token.starts_with(PREFIX)).ok_or_else(|| {
            let message = "the header Authorization is not `Bearer TOKEN` of a token in force";
            ApiError::new(ErrorCode::Unauthenticated, message)
        })?;
        if let Some(caller) = self.kept(token) {
            return Ok(caller);
        }
        let request = VerifyApiTokenRequest { token: token.to_owned() };
        let registry = self.api_tokens.hurried(DEADLINE);
        let asked = Instant::now();
        let answer = registry.call(async |mut client| client.verify_api_token(request).await).await?;
        let caller = Caller::try_from(answer.api_token.as_ref().required("api_token")?)?;
        self.keep(token, asked, &caller);
        Ok(caller)
    }

    /// Returns when nobody sends this `authorization` any more, and why. Nobody is turned out because the registry
    /// cannot be asked.
    pub async fn ended(&self, authorization: &str) -> ApiError {
        loop {
            tokio::time::sleep(ASK_AGAIN).await;
            match self.caller(authorization).await {
                // Their token is that of this process, and ends with it.
                Ok(Caller::Administrator) => std::future::pending().await,
                Ok(Caller::Token { .. }) => {}
                Err(error) if error.code == ErrorCode::Unauthenticated => return error,
                Err(error) => tracing::debug!(%error, "the holder of an API token cannot be verified yet"),
            }
        }
    }

    /// A token was deleted: what is known of its holder is not used any more.
    pub fn forget(&self, tenant: &TenantId, deleted: &str) {
        self.lock().retain(|_, (_, caller)| match caller {
            Caller::Administrator => true,
            Caller::Token { tenant: of, name, .. } => of != tenant || name != deleted,
        });
    }

    fn kept(&self, token: &str) -> Option<Caller> {
        self.lock().get(token).filter(|(since, _)| since.elapsed() < KEPT_FOR).map(|(_, caller)| caller.clone())
    }

    fn keep(&self, token: &str, asked: Instant, caller: &Caller) {
        let mut kept = self.lock();
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        kept.insert(token.to_owned(), (asked, caller.clone()));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, Caller)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The token of a header `Bearer TOKEN`.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl TryFrom<&wire::ApiToken> for Caller {
    type Error = ApiError;

    fn try_from(token: &wire::ApiToken) -> Result<Self, ApiError> {
        let meta = token.meta.as_ref().required("api_token.meta")?;
        let tenant = TenantId::new(&meta.tenant).map_err(|error| ApiError::invalid("tenant", error.to_string()))?;
        Ok(Self::Token { tenant, name: meta.name.clone(), role: role(token.role())? })
    }
}

/// A role as the registry sends it.
pub fn role(role: wire::ApiTokenRole) -> Result<Role, ApiError> {
    match role {
        wire::ApiTokenRole::Viewer => Ok(Role::Viewer),
        wire::ApiTokenRole::Editor => Ok(Role::Editor),
        wire::ApiTokenRole::Admin => Ok(Role::Admin),
        wire::ApiTokenRole::Unspecified => Err(ApiError::new(ErrorCode::Internal, "an API token has no role")),
    }
}
