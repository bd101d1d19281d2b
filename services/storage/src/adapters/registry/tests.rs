//! What the registry tells becomes pages of devices, and whatever is wrong with it is `unavailable`.

use std::sync::{Arc, Mutex};

use drover_host::{Shutdown, Sockets};
use drover_proto::registry::v1::registry_server::{Registry as Service, RegistryServer};
use drover_proto::registry::v1::*;
use drover_proto::types::v1::{Device, Meta};
use tonic::{Request, Response, Status};

use super::*;

/// Answers with one page, then with none. Which were asked for is kept.
#[derive(Clone, Default)]
struct FakeRegistry {
    asked: Arc<Mutex<Vec<ListDevicesRequest>>>,
}

/// A tenant to whose questions the registry does not answer.
const SILENT: &str = "silent";
/// A tenant that the registry refuses.
const REFUSED: &str = "refused";

fn told(name: &str, labels: &[(&str, &str)]) -> GetDeviceResponse {
    let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let meta = Some(Meta { tenant: "home".into(), name: name.into(), labels, ..Meta::default() });
    let device = Device { meta, r#type: "thermometer".into(), enabled: true, ..Device::default() };
    GetDeviceResponse { device: Some(device), presence: None }
}

/// The registry's service, of which storage asks for devices only.
macro_rules! registry {
    ($($call:ident: $request:ident -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl Service for FakeRegistry {
            async fn list_devices(
                &self,
                request: Request<ListDevicesRequest>,
            ) -> Result<Response<ListDevicesResponse>, Status> {
                let request = request.into_inner();
                self.asked.lock().expect("not poisoned").push(request.clone());
                match (request.tenant.as_str(), request.page_token.as_str()) {
                    (SILENT, _) => std::future::pending().await,
                    (REFUSED, _) => Err(Status::invalid_argument("page_size is 1000, limit is 10")),
                    (_, "") => {
                        let devices = vec![
                            told("a", &[("room", "kitchen"), ("floor", "1")]),
                            GetDeviceResponse::default(),
                            told("b", &[]),
                        ];
                        Ok(Response::new(ListDevicesResponse { devices, next_page_token: "b".into() }))
                    }
                    _ => Ok(Response::new(ListDevicesResponse::default())),
                }
            }

            $(async fn $call(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("not asked by storage"))
            })*
        }
    };
}

registry! {
    create_device: CreateDeviceRequest -> CreateDeviceResponse;
    update_device: UpdateDeviceRequest -> UpdateDeviceResponse;
    get_device: GetDeviceRequest -> GetDeviceResponse;
    delete_device: DeleteDeviceRequest -> DeleteDeviceResponse;
    put_devices: PutDevicesRequest -> PutDevicesResponse;
    delete_devices: DeleteDevicesRequest -> DeleteDevicesResponse;
    issue_token: IssueTokenRequest -> IssueTokenResponse;
    issue_certificate: IssueCertificateRequest -> IssueCertificateResponse;
    issue_pre_shared_key: IssuePreSharedKeyRequest -> IssuePreSharedKeyResponse;
    list_credentials: ListCredentialsRequest -> ListCredentialsResponse;
    revoke_credential: RevokeCredentialRequest -> RevokeCredentialResponse;
    put_policy: PutPolicyRequest -> PutPolicyResponse;
    get_policy: GetPolicyRequest -> GetPolicyResponse;
    list_policies: ListPoliciesRequest -> ListPoliciesResponse;
    delete_policy: DeletePolicyRequest -> DeletePolicyResponse;
    put_rule: PutRuleRequest -> PutRuleResponse;
    get_rule: GetRuleRequest -> GetRuleResponse;
    list_rules: ListRulesRequest -> ListRulesResponse;
    delete_rule: DeleteRuleRequest -> DeleteRuleResponse;
    authenticate: AuthenticateRequest -> AuthenticateResponse;
    authenticate_all: AuthenticateAllRequest -> AuthenticateAllResponse;
}

/// A registry that is there until the test ends, and the way to it.
fn served() -> (FakeRegistry, Registry) {
    let (fake, network) = (FakeRegistry::default(), Network::default());
    let (routes, served_over) = (grpc::Routes::new(RegistryServer::new(fake.clone())), network.clone());
    tokio::spawn(async move {
        grpc::serve(routes, "registry", &Sockets::default(), &served_over, Shutdown::new()).await.expect("serves");
    });
    (fake, Registry::over(&network))
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("valid")
}

#[tokio::test]
async fn devices_come_by_pages_with_what_is_told_of_them() {
    let (fake, registry) = served();
    let (devices, next) = registry.page(&tenant("home"), "").await.expect("told");
    let device = |name: &str, labels: &[(&str, &str)]| Registered {
        name: name.to_owned(),
        device_type: "thermometer".to_owned(),
        enabled: true,
        labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    let expected = [device("a", &[("floor", "1"), ("room", "kitchen")]), device("b", &[])];
    assert_eq!((devices.as_slice(), next.as_str()), (expected.as_slice(), "b"));
    assert_eq!(registry.page(&tenant("home"), &next).await, Ok((vec![], String::new())));
    let page = |page_token: &str| ListDevicesRequest {
        tenant: "home".into(),
        page_size: PAGE_DEVICES,
        page_token: page_token.into(),
        ..ListDevicesRequest::default()
    };
    assert_eq!(*fake.asked.lock().expect("not poisoned"), [page(""), page("b")]);
}

#[tokio::test]
async fn a_registry_that_refuses_is_silent_or_away_is_unavailable_and_says_nothing_of_the_question() {
    let (_fake, registry) = served();
    let away = Registry::over(&Network::default());
    let asked = [(&registry, REFUSED), (&registry, SILENT), (&away, "home")];
    let told = asked.map(async |(registry, name)| (name, registry.page(&tenant(name), "").await));
    for (name, told) in futures::future::join_all(told).await {
        let error = told.expect_err(name);
        assert_eq!((error.code, error.field), (ErrorCode::Unavailable, None), "{name}: {}", error.message);
        assert!(error.message.starts_with("the registry does not"), "{name}: {}", error.message);
    }
}
