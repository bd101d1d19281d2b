//! How long an object that is being deleted waits for what it stands for to be deleted first: a namespace that cannot be deleted
//! is worse than a device that is left behind.

use kube::core::ObjectMeta;

use super::context::Context;
use super::failure::Failure;
use super::kind::Kind;

/// An object waits for no more than so many times the patience by the API server's clock: an operator that is restarted again and
/// again would wait for ever.
const PATIENCES_MAX: u64 = 6;

/// Whether the object may wait on: `deletion_patience` from when this process first saw it go. The API server's clock, by which
/// its deletion has a time, may be another than ours; it counts where nothing more can be remembered, and for
/// [`PATIENCES_MAX`].
pub fn is_left(metadata: &ObjectMeta, context: &Context) -> bool {
    let uid = metadata.uid.clone().unwrap_or_default();
    let now_ms = context.clock.now_ms();
    context.going.update(uid.clone(), |since| since.unwrap_or(now_ms));
    let deleted = metadata.deletion_timestamp.as_ref().map_or(0, |time| time.0.as_millisecond());
    let deleted_ms = u64::try_from(deleted).unwrap_or(0);
    let since_ms = context.going.get(&uid).unwrap_or(deleted_ms);
    let patience_ms = context.config.deletion_patience.as_millis();
    now_ms.saturating_sub(since_ms) < patience_ms
        && now_ms.saturating_sub(deleted_ms) < patience_ms.saturating_mul(PATIENCES_MAX)
}

/// Says that the object goes, and what it stood for stays.
pub fn left_behind<K: Kind>(metadata: &ObjectMeta, context: &Context, why: &Failure) {
    let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
    tracing::error!(kind = K::NAME, namespace, name, %why, "left behind in the registry; delete it there");
    context.telemetry.left_behind(K::NAME);
}
