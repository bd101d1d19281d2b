//! When devices last sent something: what storage says of it, for lists and heads of devices.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drover_proto::registry::v1::GetDeviceResponse;
use drover_proto::storage::v1::GetLastHeardRequest;
use drover_types::{ApiError, ErrorCode};

use super::Api;

/// Who asks for devices does not wait longer than this for storage; then only connections count.
const DEADLINE: Duration = Duration::from_secs(1);
/// How long storage is not asked again once it has not answered in time, milliseconds: not every page waits for it.
const PAUSE_MS: u64 = 10_000;

/// Whether storage is worth asking. Until when it is not, milliseconds since the Unix epoch; 0: it answers.
#[derive(Default)]
pub struct Silence(AtomicU64);

impl Silence {
    fn lasts(&self, now_ms: u64) -> bool {
        let until_ms = self.0.load(Ordering::Relaxed);
        // Not for longer than the pause, where the clock was set back.
        (now_ms + 1..=now_ms + PAUSE_MS).contains(&until_ms)
    }

    /// An answer came, whatever it says.
    fn ends(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// None came in time. Whether it is the first time since one did.
    fn begins(&self, now_ms: u64) -> bool {
        self.0.swap(now_ms + PAUSE_MS, Ordering::Relaxed) == 0
    }
}

/// When the last message of each device came that is kept, milliseconds since the Unix epoch, by name. `devices` are of
/// one page, at most 1,000. Empty while storage does not answer.
pub async fn last_heard(api: &Api, tenant: &str, devices: Vec<String>) -> HashMap<String, u64> {
    if devices.is_empty() || api.silence.lasts(api.clock.now_ms()) {
        return HashMap::new();
    }
    let request = GetLastHeardRequest { tenant: tenant.to_owned(), devices };
    match api.storage.hurried(DEADLINE).call(async |mut client| client.get_last_heard(request).await).await {
        Ok(heard) => {
            api.silence.ends();
            heard.devices.into_iter().map(|heard| (heard.device, heard.time_ms)).collect()
        }
        Err(error) => {
            unanswered(api, &error);
            HashMap::new()
        }
    }
}

fn unanswered(api: &Api, error: &ApiError) {
    if error.code != ErrorCode::DeadlineExceeded {
        api.silence.ends();
    } else if api.silence.begins(api.clock.now_ms()) {
        tracing::warn!(%error, "devices are shown without their last messages until storage answers in time");
    }
    tracing::debug!(%error, "devices are shown without their last messages");
}

/// What [`last_heard`] says of this device: what came before it was made was of another one of its name.
pub fn of_this(known: &GetDeviceResponse, heard: &HashMap<String, u64>) -> Option<u64> {
    let meta = known.device.as_ref()?.meta.as_ref()?;
    heard.get(&meta.name).copied().filter(|at_ms| *at_ms >= meta.created_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silence_lasts_for_its_pause_and_is_told_once() {
        let silence = Silence::default();
        assert!(!silence.lasts(1_000));
        assert!(silence.begins(1_000), "it is the first time");
        assert!(silence.lasts(1_000) && silence.lasts(10_999) && !silence.lasts(11_000));
        assert!(!silence.lasts(500), "the clock was set back");
        assert!(!silence.begins(11_000), "it goes on");
        silence.ends();
        assert!(!silence.lasts(11_001) && silence.begins(12_000));
    }
}
