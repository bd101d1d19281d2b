//! Devices: registered, their credentials in Secrets, their wanted state in their shadow, their phase in the status.

use std::time::Duration;

use async_trait::async_trait;
use kube::runtime::controller::Action;

use super::context::Context;
use super::failure::Failure;
use super::kind::Kind;
use super::registered::{Outcome, accepted, refused, register};
use super::secrets::{self, Furnished};
use super::{declared, refused_wait, resync, status, uid};
use crate::crd::{Condition, Device, DeviceStatus};
use crate::domain::condition::{READY, Verdict};
use crate::domain::desired;
use crate::domain::device::{self as domain, DeclaredDevice, Due};
use crate::domain::object::is_ours;
use crate::domain::problem::{Problem, passes};
use crate::domain::time::rfc3339;
use crate::ports::{FoundDevice, Presence};

/// How long a device of which everything was as declared is only looked up in the registry, in milliseconds: its Secrets and
/// its shadow are looked at no more often.
const SETTLED_MS: u64 = 10 * 60 * 1000;
/// How soon a device is tried again that was refused: what it names may be made at the same time. Doubled up to the resync.
const REFUSED_RETRY: Duration = Duration::from_secs(10);

/// What was so when everything was as declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// Of what is declared.
    hash: Option<u64>,
    /// In the registry.
    revision: u64,
    presence: Presence,
    /// Until when it may be taken for granted, milliseconds since the Unix epoch.
    until_ms: u64,
}

#[async_trait]
impl Kind for Device {
    const NAME: &'static str = "Device";

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    async fn apply(&self, context: &Context) -> Result<Action, Failure> {
        let declared = match domain::declared(self, &context.config.owner) {
            Ok(declared) => declared,
            // Nobody else was asked: only a change of the object helps.
            Err(error) => {
                refuse(self, context, &Problem::refused(&error), Presence::default()).await?;
                return Ok(Action::await_change());
            }
        };
        let found = context.registry.device(&declared.key).await?;
        if is_settled(self, context, found.as_ref()) {
            return Ok(Action::requeue(resync(self, context)));
        }
        let presence = found.as_ref().map(|found| found.presence).unwrap_or_default();
        let is_new = found.is_none();
        let put = async |revision| context.registry.put_device(&declared.wanted, revision).await;
        let registered = register(self, context, &declared.wanted, found.map(|found| found.object), put).await?;
        let revision = match registered {
            Outcome::Refused(problem) => {
                refuse(self, context, &problem, presence).await?;
                return Ok(Action::requeue(again(self, context)));
            }
            Outcome::Registered(found) => found.revision,
        };
        let furnished = match is_new && declared.credentials.is_empty() {
            true => Furnished::default(),
            // Of one that was never here there is nothing to be read: should its Secret exist, making it says so.
            false => secrets::furnish(self, context, &declared, is_new && self.status.is_none()).await?,
        };
        let (shadow, version) = wanted_state(self, context, &declared).await?;
        let problem = furnished.problem.clone().or(shadow);
        let verdicts = [accepted(), ready(problem.as_ref())];
        let next = write_status(self, context, &verdicts, presence, version).await?;
        if problem.is_some() {
            return Ok(Action::requeue(again(self, context)));
        }
        context.refusals.forget(&uid(self));
        if next.is_none() {
            let now_ms = context.clock.now_ms();
            let until_ms = furnished.renew_at_ms.unwrap_or(u64::MAX).min(now_ms + SETTLED_MS);
            let settled = Settled { hash: super::declared(self), revision, presence, until_ms };
            context.settled.update(uid(self), |_| settled);
        }
        Ok(Action::requeue(resync(self, context).min(next.unwrap_or(Duration::MAX))))
    }

    async fn cleanup(&self, context: &Context) -> Result<(), Failure> {
        // A name that the registry cannot have is the name of nothing there.
        let Ok(key) = domain::key(self) else { return Ok(()) };
        let found = context.registry.device(&key).await?.map(|found| found.object);
        if is_ours(&context.config.owner, found.as_ref()) {
            let unconfirmed = context.registry.delete_device(&key).await?;
            if !unconfirmed.is_empty() {
                tracing::warn!(device = %key, ?unconfirmed, "deleted; these ingress nodes have not confirmed yet");
            }
        }
        Ok(())
    }
}

/// Whether nothing has happened since everything was as declared.
fn is_settled(device: &Device, context: &Context, found: Option<&FoundDevice>) -> bool {
    let (Some(found), Some(settled)) = (found, context.settled.get(&uid(device))) else { return false };
    let now_ms = context.clock.now_ms();
    let now = Settled {
        hash: declared(device),
        revision: found.object.revision,
        presence: found.presence,
        until_ms: settled.until_ms,
    };
    now == settled && now_ms < settled.until_ms
}

/// Brings the shadow to what is wanted of it. Answers why that cannot be, and the version that it has then.
async fn wanted_state(
    device: &Device,
    context: &Context,
    declared: &DeclaredDevice,
) -> Result<(Option<Problem>, Option<i64>), Failure> {
    let former = device.status.as_ref().and_then(|status| status.shadow_version);
    if declared.desired.is_empty() {
        return Ok((None, former));
    }
    let (there, version) = context.shadows.desired(&declared.key).await?;
    let missing = desired::missing(&declared.desired, &there);
    if missing.is_empty() {
        return Ok((None, i64::try_from(version).ok()));
    }
    let mut id = [0; 16];
    context.random.fill(&mut id);
    match context.shadows.update(&declared.key, &missing, id).await {
        Ok(version) => Ok((None, i64::try_from(version).ok())),
        Err(error) if passes(&error) => Err(error.into()),
        Err(error) => {
            let mut problem = Problem::refused(&error);
            problem.message = format!("spec.desired: {}", problem.message);
            Ok((Some(problem), former))
        }
    }
}

fn ready(problem: Option<&Problem>) -> Verdict {
    match problem {
        Some(problem) => Verdict::fails(READY, problem),
        None => Verdict::holds(READY, "Furnished", "its Secrets and its wanted state are as declared"),
    }
}

async fn refuse(device: &Device, context: &Context, problem: &Problem, presence: Presence) -> Result<(), Failure> {
    let version = device.status.as_ref().and_then(|status| status.shadow_version);
    write_status(device, context, &refused(problem), presence, version).await?;
    Ok(())
}

/// When a device is tried again that was refused.
fn again(device: &Device, context: &Context) -> Duration {
    refused_wait(device, context, REFUSED_RETRY, resync(device, context))
}

/// Writes the status if it is due; answers when it will be, where it is not yet.
async fn write_status(
    device: &Device,
    context: &Context,
    verdicts: &[Verdict],
    presence: Presence,
    shadow_version: Option<i64>,
) -> Result<Option<Duration>, Failure> {
    let now_ms = context.clock.now_ms();
    let verdicts = [verdicts, &[domain::connected(presence)]].concat();
    let status = DeviceStatus {
        phase: Some(domain::phase(device.spec.enabled, presence)),
        conditions: status::conditions(device, context, &verdicts),
        observed_generation: Some(status::generation(device)),
        observed_time: Some(rfc3339(now_ms)),
        last_seen: presence.ever_seen.then(|| rfc3339(presence.changed_ms)),
        shadow_version,
    };
    let interval_ms = context.config.status_interval.as_millis();
    match domain::due(device.status.as_ref(), &status, interval_ms, now_ms) {
        Due::Never => return Ok(None),
        Due::InMs(wait_ms) => return Ok(Some(Duration::from_millis(wait_ms))),
        Due::InTurn if !context.may_write() => return Ok(Some(status::DEFERRED_RETRY)),
        Due::InTurn | Due::Now => {}
    }
    status::write(device, context, &status, &status.conditions).await?;
    Ok(None)
}
