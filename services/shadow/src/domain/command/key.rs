//! Which command a caller's own key names.

use drover_types::command::CommandKey;
use drover_types::{DeviceKey, RecordId};
use sha2::{Digest, Sha256};

/// What the hash is of, so that it is that of nothing else.
const CONTEXT: &str = "drover.commands";

/// The id of the command that whoever sends it to `device` calls `key`: the same in every process and at any time, and nobody can
/// choose a key whose id is that of something else.
pub fn keyed_id(device: &DeviceKey, key: &CommandKey) -> RecordId {
    let mut hash = Sha256::new();
    // No part has a zero byte.
    for part in [CONTEXT, device.tenant.as_str(), device.device.as_str(), key.as_str()] {
        hash.update(part);
        hash.update([0]);
    }
    RecordId(*hash.finalize().first_chunk().expect("a hash has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use drover_types::{DeviceId, TenantId};

    use super::*;

    fn id(tenant: &str, device: &str, key: &str) -> RecordId {
        let (tenant, device) = (TenantId::new(tenant).expect("valid"), DeviceId::new(device).expect("valid"));
        keyed_id(&DeviceKey { tenant, device }, &CommandKey::new(key).expect("valid"))
    }

    #[test]
    fn a_key_names_one_command_of_one_device_in_every_version() {
        assert_eq!(id("home", "lamp", "order-7").to_string(), "d9fc12b5b58d0752e3ee3c6a68db52ad");
        let others = [("home", "lamp", "order-8"), ("home", "lam", "porder-7"), ("hom", "elamp", "order-7")];
        let ids: HashSet<RecordId> = others.map(|(tenant, device, key)| id(tenant, device, key)).into();
        assert!(ids.len() == 3 && !ids.contains(&id("home", "lamp", "order-7")));
    }
}
