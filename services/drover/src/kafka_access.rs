//! Who may come to the Kafka listener, and whose topics are: the administrator by their token, everybody else as the
//! registry says.
//!
//! Adapter of the port `Authenticator`. The password tells the two apart: API tokens have a beginning of their own, so a
//! tenant may be called as the administrator is.

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use drover_host::{AdminToken, Network, grpc};
use drover_kafka_listener::{Authenticator, NotAdmitted, Principal, Unavailable};
use drover_proto::from_status;
use drover_proto::registry::v1::api_tokens_client::ApiTokensClient;
use drover_proto::registry::v1::topics_client::TopicsClient;
use drover_proto::registry::v1::{FindTopicOwnersRequest, VerifyApiTokenRequest};
use drover_proto::types::v1::{ApiToken, ApiTokenRole};
use drover_types::{ApiError, ErrorCode, TenantId, api_token_tenant};
use tonic::{Response, Status};

/// The user name of the administrator.
pub const ADMINISTRATOR: &str = "admin";
/// Longest wait for an answer of the registry.
const DEADLINE: Duration = Duration::from_secs(5);
/// Most topics of one question to the registry.
const TOPICS_MAX: usize = 256;

/// Asks the registry.
pub struct RegistryAccess {
    administrator: AdminToken,
    api_tokens: ApiTokensClient<grpc::Client>,
    topics: TopicsClient<grpc::Client>,
}

impl RegistryAccess {
    /// Connects when first asked.
    pub fn new(network: &Network, administrator: AdminToken) -> Self {
        let (api_tokens, topics) = (network.client("registry"), network.client("registry"));
        let (api_tokens, topics) = (ApiTokensClient::new(api_tokens), TopicsClient::new(topics));
        Self { administrator, api_tokens, topics }
    }
}

#[async_trait]
impl Authenticator for RegistryAccess {
    async fn authenticate(&self, user: &str, password: &str) -> Result<Principal, NotAdmitted> {
        if user == ADMINISTRATOR && self.administrator.matches(password) {
            return Ok(Principal::Administrator);
        }
        // A token of another tenant is not even asked about.
        if api_token_tenant(password).is_none_or(|(tenant, _)| tenant != user) {
            return Err(NotAdmitted::Unknown);
        }
        let request = VerifyApiTokenRequest { token: password.to_owned() };
        match within(self.api_tokens.clone().verify_api_token(request)).await {
            Ok(answer) => Ok(principal(user, answer.api_token)?),
            Err(error) if error.code == ErrorCode::Unauthenticated => Err(NotAdmitted::Unknown),
            Err(error) => Err(unavailable(&error).into()),
        }
    }

    async fn owners(&self, topics: &[String]) -> Result<Vec<Option<TenantId>>, Unavailable> {
        let mut owners = Vec::with_capacity(topics.len());
        for topics in topics.chunks(TOPICS_MAX) {
            let request = FindTopicOwnersRequest { topics: topics.to_vec() };
            let answer = within(self.topics.clone().find_topic_owners(request)).await;
            let told = answer.map_err(|error| unavailable(&error))?.tenants;
            if told.len() != topics.len() {
                let reason = format!("the registry told of {} topics, {} were asked about", told.len(), topics.len());
                return Err(Unavailable { reason });
            }
            owners.extend(told.iter().map(|tenant| TenantId::new(tenant).ok()));
        }
        Ok(owners)
    }
}

/// Whom a token that the registry knows lets in under this user name.
fn principal(user: &str, token: Option<ApiToken>) -> Result<Principal, Unavailable> {
    let strange = || Unavailable { reason: "the registry told of a token without a tenant or a role".to_owned() };
    let token = token.ok_or_else(strange)?;
    let meta = token.meta.as_ref().ok_or_else(strange)?;
    let tenant = TenantId::new(&meta.tenant).map_err(|_| strange())?;
    let may_write = match token.role() {
        ApiTokenRole::Viewer => false,
        ApiTokenRole::Editor | ApiTokenRole::Admin => true,
        ApiTokenRole::Unspecified => return Err(strange()),
    };
    if tenant.as_str() == user { Ok(Principal::Tenant { tenant, may_write }) } else { Err(strange()) }
}

async fn within<T>(answer: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, ApiError> {
    match tokio::time::timeout(DEADLINE, answer).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(from_status(&status)),
        Err(_) => {
            let message = format!("the registry did not answer within {DEADLINE:?}");
            Err(ApiError::new(ErrorCode::DeadlineExceeded, message))
        }
    }
}

fn unavailable(error: &ApiError) -> Unavailable {
    Unavailable { reason: error.message.clone() }
}

#[cfg(test)]
mod tests {
    use drover_proto::types::v1::Meta;

    use super::*;

    fn access() -> RegistryAccess {
        RegistryAccess::new(&Network::default(), AdminToken::new("s3cret"))
    }

    #[tokio::test]
    async fn the_administrators_token_is_for_the_administrators_name_and_nobody_is_asked_about_what_is_no_token_of_the_user()
     {
        // There is no registry in this network: whoever asked it would wait.
        let access = access();
        assert_eq!(access.authenticate("admin", "s3cret").await, Ok(Principal::Administrator));
        for (user, password) in [
            ("admin", "s3cre"),
            ("home", "s3cret"),
            ("home", "drt_away.ci.secret"),
            ("admin", "drt_home.ci.secret"),
            ("home", "drv_home.ci.secret"),
        ] {
            assert_eq!(access.authenticate(user, password).await, Err(NotAdmitted::Unknown), "{user} {password}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_is_away_is_no_wrong_password() {
        let access = access();
        let answer = access.authenticate("admin", "drt_admin.ci.secret").await;
        assert!(matches!(answer, Err(NotAdmitted::Unavailable(_))), "{answer:?}");
        assert!(access.owners(&["home.x".to_owned()]).await.is_err());
    }

    #[test]
    fn every_role_reads_and_editors_and_admins_write() {
        let token = |tenant: &str, role: ApiTokenRole| {
            let meta = Meta { tenant: tenant.to_owned(), ..Meta::default() };
            Some(ApiToken { meta: Some(meta), role: role.into(), ..ApiToken::default() })
        };
        let tenant = TenantId::new("home").expect("a tenant");
        let roles = [(ApiTokenRole::Viewer, false), (ApiTokenRole::Editor, true), (ApiTokenRole::Admin, true)];
        for (role, may_write) in roles {
            let expected = Principal::Tenant { tenant: tenant.clone(), may_write };
            assert_eq!(principal("home", token("home", role)), Ok(expected));
        }
        assert!(principal("home", token("home", ApiTokenRole::Unspecified)).is_err());
        assert!(principal("home", token("away", ApiTokenRole::Viewer)).is_err() && principal("home", None).is_err());
    }
}
