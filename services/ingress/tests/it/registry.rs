//! A registry that knows what a test tells it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use drover_host::Network;
use drover_proto::registry::v1::authenticate_request::Proof;
use drover_proto::registry::v1::functions_server::{Functions, FunctionsServer};
use drover_proto::registry::v1::pre_shared_keys_server::{PreSharedKeys, PreSharedKeysServer};
use drover_proto::registry::v1::registry_server::{Registry, RegistryServer};
use drover_proto::registry::v1::*;
use drover_proto::types::v1::{Effect, Function, Identity, PolicyAction, Statement};
use tonic::{Request, Response, Status};

/// What the registry answers.
#[derive(Clone, Default)]
pub struct FakeRegistry {
    /// Tokens and fingerprints, with the device each proves: `DEVICE`, or `TENANT/DEVICE` of another tenant.
    pub credentials: Arc<Mutex<HashMap<Vec<u8>, String>>>,
    /// What was shown with each certificate that was asked about.
    pub chains: Arc<Mutex<Vec<Vec<Vec<u8>>>>>,
    /// Keys that devices share with the registry.
    pub keys: Arc<Mutex<HashMap<String, String>>>,
    pub anonymous: bool,
    /// What every device may do, by the policy [`POLICY`].
    pub statements: Arc<Mutex<Vec<Statement>>>,
    /// Answers to the next questions about open connections; after them all hold.
    pub verdicts: Arc<Mutex<VecDeque<Status>>>,
    /// Devices that others may not speak for.
    pub disabled: Arc<Mutex<HashSet<String>>>,
    /// Devices of the open connections asked about.
    pub asked: Arc<Mutex<Vec<String>>>,
    /// Scripts of functions by their names.
    pub functions: Arc<Mutex<HashMap<String, String>>>,
}

/// The one policy of every device.
pub const POLICY: &str = "p";

impl FakeRegistry {
    /// Makes `secret` (a token, or a certificate's fingerprint) prove to be `device`.
    pub fn credential(&self, secret: impl Into<Vec<u8>>, device: &str) {
        self.credentials.lock().expect("not poisoned").insert(secret.into(), device.to_owned());
    }

    /// Makes `key` the one that `device` shares.
    pub fn key(&self, device: &str, key: &str) {
        self.keys.lock().expect("not poisoned").insert(device.to_owned(), key.to_owned());
    }

    /// Serves until the test ends.
    pub fn serve(&self, network: &Network) {
        let functions = FunctionsServer::new(self.clone());
        let server = tonic::transport::Server::builder().add_service(RegistryServer::new(self.clone()));
        let server = server.add_service(functions).add_service(PreSharedKeysServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(network.listen("registry")));
    }

    /// Lets every device do this from now on.
    pub fn allow(&self, publish: &[&str], subscribe: &[&str]) {
        *self.statements.lock().expect("not poisoned") = vec![
            allow(&[PolicyAction::Connect], &["${device}"]),
            allow(&[PolicyAction::Publish], publish),
            allow(&[PolicyAction::Subscribe], subscribe),
        ];
    }

    /// Lets every device connect by these client ids as well.
    pub fn allow_clients(&self, clients: &[&str]) {
        self.statements.lock().expect("not poisoned").push(allow(&[PolicyAction::Connect], clients));
    }

    /// Lets every device speak for these as well.
    pub fn allow_for(&self, devices: &[&str]) {
        self.statements.lock().expect("not poisoned").push(allow(&[PolicyAction::PublishFor], devices));
    }

    /// Registers a function.
    pub fn function(&self, name: &str, source: &str) {
        self.functions.lock().expect("not poisoned").insert(name.to_owned(), source.to_owned());
    }

    fn who(&self, proof: Proof) -> Result<(String, String), Status> {
        if let Proof::Known(known) = proof {
            self.asked.lock().expect("not poisoned").push(known.device.clone());
            let verdict = self.verdicts.lock().expect("not poisoned").pop_front();
            return verdict.map_or(Ok((known.device, known.credential_id)), Err);
        }
        if let Proof::Behalf(behalf) = proof {
            let disabled = self.disabled.lock().expect("not poisoned").contains(&behalf.device);
            let refused = Status::permission_denied("the device is disabled");
            return if disabled { Err(refused) } else { Ok((behalf.device, String::new())) };
        }
        let known = self.credentials.lock().expect("not poisoned");
        let secret = match proof {
            Proof::Token(token) => token.token.into_bytes(),
            Proof::Certificate(certificate) => {
                self.chains.lock().expect("not poisoned").push(certificate.chain);
                certificate.fingerprint
            }
            Proof::Anonymous(anonymous) if self.anonymous => return Ok((anonymous.client_id, String::new())),
            Proof::ApiKey(key) => key.token.into_bytes(),
            Proof::Anonymous(_) | Proof::Known(_) | Proof::Behalf(_) => return Err(Status::unauthenticated("nobody")),
        };
        let device = known.get(&secret).ok_or_else(|| Status::unauthenticated("wrong"))?;
        Ok((device.clone(), format!("of-{device}")))
    }

    fn identity(&self, question: AuthenticateRequest) -> Result<Identity, Status> {
        let (name, credential_id) = self.who(question.proof.expect("a proof"))?;
        let (tenant, device) = name.split_once('/').unwrap_or(("default", name.as_str()));
        Ok(Identity {
            tenant: tenant.into(),
            credential_id,
            device: device.into(),
            statements: self.statements.lock().expect("not poisoned").clone(),
            expires_ms: 0,
            policies: vec![POLICY.into()],
        })
    }
}

fn allow(actions: &[PolicyAction], resources: &[&str]) -> Statement {
    Statement {
        effect: Effect::Allow.into(),
        actions: actions.iter().map(|action| (*action).into()).collect(),
        resources: resources.iter().map(|resource| (*resource).to_owned()).collect(),
    }
}

/// The registry's service, of which the ingress asks who somebody is.
macro_rules! registry {
    ($($call:ident: $request:ident -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl Registry for FakeRegistry {
            async fn authenticate(
                &self,
                request: Request<AuthenticateRequest>,
            ) -> Result<Response<AuthenticateResponse>, Status> {
                let identity = Some(self.identity(request.into_inner())?);
                Ok(Response::new(AuthenticateResponse { identity }))
            }

            async fn authenticate_all(
                &self,
                request: Request<AuthenticateAllRequest>,
            ) -> Result<Response<AuthenticateAllResponse>, Status> {
                let mut answer = AuthenticateAllResponse::default();
                for question in request.into_inner().questions {
                    let verdict = match self.identity(question) {
                        Ok(identity) => Verdict { identity: Some(identity), ..Verdict::default() },
                        Err(refused) => {
                            let code = (refused.code() as i32).cast_unsigned();
                            Verdict { code, message: refused.message().to_owned(), ..Verdict::default() }
                        }
                    };
                    answer.verdicts.push(verdict);
                }
                let statements = self.statements.lock().expect("not poisoned").clone();
                answer.rights.push(Rights { policies: vec![POLICY.into()], statements });
                Ok(Response::new(answer))
            }

            $(async fn $call(&self, _: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("not asked by the ingress"))
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

#[tonic::async_trait]
impl PreSharedKeys for FakeRegistry {
    async fn find_pre_shared_key(
        &self,
        request: Request<FindPreSharedKeyRequest>,
    ) -> Result<Response<FindPreSharedKeyResponse>, Status> {
        let device = request.into_inner().identity;
        let key = self.keys.lock().expect("not poisoned").get(&device).cloned();
        let key = key.ok_or_else(|| Status::unauthenticated("wrong"))?.into_bytes();
        let credential_id = format!("key-of-{device}");
        Ok(Response::new(FindPreSharedKeyResponse { tenant: "default".into(), device, credential_id, key }))
    }
}

#[tonic::async_trait]
impl Functions for FakeRegistry {
    async fn get_function(
        &self,
        request: Request<GetFunctionRequest>,
    ) -> Result<Response<GetFunctionResponse>, Status> {
        let name = request.into_inner().name;
        let source = self.functions.lock().expect("not poisoned").get(&name).cloned();
        let missing = || {
            let message = format!("function/default/{name} does not exist");
            drover_proto::to_status(&drover_types::ApiError::new(drover_types::ErrorCode::NotFound, message))
        };
        let source = source.ok_or_else(missing)?;
        let function = Function { source, routine: "main".into(), ..Function::default() };
        Ok(Response::new(GetFunctionResponse { function: Some(function) }))
    }

    async fn put_function(&self, _: Request<PutFunctionRequest>) -> Result<Response<PutFunctionResponse>, Status> {
        Err(Status::unimplemented("not asked by the ingress"))
    }

    async fn list_functions(
        &self,
        _: Request<ListFunctionsRequest>,
    ) -> Result<Response<ListFunctionsResponse>, Status> {
        Err(Status::unimplemented("not asked by the ingress"))
    }

    async fn delete_function(
        &self,
        _: Request<DeleteFunctionRequest>,
    ) -> Result<Response<DeleteFunctionResponse>, Status> {
        Err(Status::unimplemented("not asked by the ingress"))
    }
}
