//! When devices last sent something: what storage says of it, for lists and heads of devices.

use std::collections::HashMap;
use std::time::Duration;

use drover_proto::registry::v1::GetDeviceResponse;
use drover_proto::storage::v1::GetLastHeardRequest;

use super::Api;

/// Who asks for devices does not wait longer than this for storage; then only connections count.
const DEADLINE: Duration = Duration::from_secs(1);

/// When the last message of each device came that is kept, milliseconds since the Unix epoch, by name. `devices` are of
/// one page, at most 1,000. Empty while storage does not answer.
pub async fn last_heard(api: &Api, tenant: &str, devices: Vec<String>) -> HashMap<String, u64> {
    if devices.is_empty() {
        return HashMap::new();
    }
    let request = GetLastHeardRequest { tenant: tenant.to_owned(), devices };
    match api.storage.hurried(DEADLINE).call(async |mut client| client.get_last_heard(request).await).await {
        Ok(heard) => heard.devices.into_iter().map(|heard| (heard.device, heard.time_ms)).collect(),
        Err(error) => {
            tracing::debug!(%error, "devices are shown without their last messages");
            HashMap::new()
        }
    }
}

/// As [`last_heard`], of one device.
pub async fn of_device(api: &Api, tenant: &str, device: &str) -> Option<u64> {
    last_heard(api, tenant, vec![device.to_owned()]).await.remove(device)
}

/// What was heard of this device at `heard_ms`, of a device of its name: before it was made that was another one.
pub fn of_this(known: &GetDeviceResponse, heard_ms: Option<u64>) -> Option<u64> {
    let created_ms = known.device.as_ref()?.meta.as_ref()?.created_ms;
    heard_ms.filter(|at_ms| *at_ms >= created_ms)
}
