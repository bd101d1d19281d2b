//! Keys that devices share with the registry, asked over gRPC.
//!
//! Adapter of [`Keys`]. Nothing is kept: a key is in memory from the answer until its handshake ends.

use std::time::Duration;

use async_trait::async_trait;
use drover_host::{Network, grpc};
use drover_proto::from_status;
use drover_proto::registry::v1::pre_shared_keys_client::PreSharedKeysClient;
use drover_proto::registry::v1::{FindPreSharedKeyRequest, FindPreSharedKeyResponse};
use drover_types::{ApiError, DeviceId, ErrorCode, TenantId};

use super::registry::wire::{refusal, unavailable};
use crate::domain::identity::AuthenticateError;
use crate::ports::{Keys, SharedKey};

/// The registry's keys.
pub struct RegisteredKeys {
    client: PreSharedKeysClient<grpc::Client>,
    deadline: Duration,
}

impl RegisteredKeys {
    /// Connects when first asked; answers come within `deadline`.
    pub fn new(network: &Network, deadline: Duration) -> Self {
        Self { client: PreSharedKeysClient::new(network.client("registry")), deadline }
    }
}

#[async_trait]
impl Keys for RegisteredKeys {
    async fn find(&self, identity: &str) -> Result<SharedKey, AuthenticateError> {
        let request = FindPreSharedKeyRequest { identity: identity.to_owned() };
        let mut client = self.client.clone();
        let answer = tokio::time::timeout(self.deadline, client.find_pre_shared_key(request)).await;
        let answer = answer.map_err(|_| unavailable(format!("no answer within {:?}", self.deadline)))?;
        let found = answer.map_err(|status| not_found(from_status(&status)))?.into_inner();
        let FindPreSharedKeyResponse { tenant, device, credential_id, key } = found;
        let invalid = |error: &dyn std::fmt::Display| unavailable(format!("the answer names no device: {error}"));
        Ok(SharedKey {
            tenant: TenantId::new(tenant).map_err(|error| invalid(&error))?,
            device: DeviceId::new(device).map_err(|error| invalid(&error))?,
            credential: credential_id,
            key,
        })
    }
}

/// Why there is no key. A registry without the master key it is sealed under says nothing of the device: another one, or this
/// one when it has begun anew, may have it.
fn not_found(error: ApiError) -> AuthenticateError {
    if error.code == ErrorCode::FailedPrecondition {
        return unavailable(error.message);
    }
    refusal(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_lacks_a_master_key_refuses_nobody() {
        let error = |code| not_found(ApiError::new(code, "no"));
        let reason = "no".to_owned();
        assert_eq!(error(ErrorCode::FailedPrecondition), unavailable("no"));
        assert_eq!(error(ErrorCode::PermissionDenied), AuthenticateError::Refused { reason: reason.clone() });
        assert_eq!(error(ErrorCode::Unauthenticated), AuthenticateError::Wrong { reason });
    }
}
