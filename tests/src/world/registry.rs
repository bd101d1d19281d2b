//! A registry that admits every device of tenant `default`: who is allowed what is not this world's subject.

use drover_host::Network;
use drover_proto::registry::v1::authenticate_request::Proof;
use drover_proto::registry::v1::registry_server::{Registry, RegistryServer};
use drover_proto::registry::v1::*;
use drover_proto::types::v1::{Effect, Identity, PolicyAction, Statement};
use tonic::{Request, Response, Status};

struct EverybodyIsWelcome;

/// Serves within this process as long as the runtime lives.
pub fn serve(network: &Network) {
    let server = tonic::transport::Server::builder().add_service(RegistryServer::new(EverybodyIsWelcome));
    tokio::spawn(server.serve_with_incoming(network.listen("registry")));
}

fn identity(device: String) -> Identity {
    let actions = [PolicyAction::Connect, PolicyAction::Publish, PolicyAction::Subscribe];
    let statement = |action: PolicyAction, resources: &[&str]| Statement {
        effect: Effect::Allow.into(),
        actions: vec![action.into()],
        resources: resources.iter().map(|resource| (*resource).to_owned()).collect(),
    };
    let topics = ["#", "$aws/things/${device}/#"];
    let statements = actions.map(|a| statement(a, if a == PolicyAction::Connect { &["${device}"] } else { &topics }));
    Identity { tenant: "default".into(), device, statements: statements.to_vec(), ..Identity::default() }
}

fn welcomed(question: AuthenticateRequest) -> Result<Identity, Status> {
    match question.proof {
        Some(Proof::Anonymous(anonymous)) => Ok(identity(anonymous.client_id)),
        Some(Proof::Known(known)) => Ok(identity(known.device)),
        other => Err(Status::unauthenticated(format!("unexpected proof {}", other.is_some()))),
    }
}

/// The registry's service, of which this world asks who somebody is.
macro_rules! registry {
    ($($call:ident: $request:ident -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl Registry for EverybodyIsWelcome {
            async fn authenticate(
                &self,
                request: Request<AuthenticateRequest>,
            ) -> Result<Response<AuthenticateResponse>, Status> {
                let identity = Some(welcomed(request.into_inner())?);
                Ok(Response::new(AuthenticateResponse { identity }))
            }

            async fn authenticate_all(
                &self,
                request: Request<AuthenticateAllRequest>,
            ) -> Result<Response<AuthenticateAllResponse>, Status> {
                let mut answer = AuthenticateAllResponse::default();
                for question in request.into_inner().questions {
                    let Identity { policies, statements, .. } = identity(String::new());
                    let place = u32::try_from(answer.rights.len()).expect("few");
                    answer.rights.push(Rights { policies, statements });
                    answer.verdicts.push(match welcomed(question) {
                        Ok(identity) => Verdict { identity: Some(identity), rights: place, ..Verdict::default() },
                        Err(refused) => {
                            let code = (refused.code() as i32).cast_unsigned();
                            Verdict { code, message: refused.message().to_owned(), ..Verdict::default() }
                        }
                    });
                }
                Ok(Response::new(answer))
            }

            $(async fn $call(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("not asked in this world"))
            })*
        }
    };
}

registry! {
    create_device: CreateDeviceRequest -> CreateDeviceResponse;
    update_device: UpdateDeviceRequest -> UpdateDeviceResponse;
    get_device: GetDeviceRequest -> GetDeviceResponse;
    list_devices: ListDevicesRequest -> ListDevicesResponse;
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
}
