//! Keys that devices share with the registry, asked over gRPC.
//!
//! Adapter of [`Keys`]. Nothing is kept: a key is in memory from the answer until its handshake ends.

use std::time::Duration;

use async_trait::async_trait;
use drover_host::{Network, grpc};
use drover_proto::from_status;
use drover_proto::registry::v1::pre_shared_keys_client::PreSharedKeysClient;
use drover_proto::registry::v1::{FindPreSharedKeyRequest, FindPreSharedKeyResponse};
use drover_types::{DeviceId, TenantId};

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
        let found = answer.map_err(|status| refusal(from_status(&status)))?.into_inner();
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
