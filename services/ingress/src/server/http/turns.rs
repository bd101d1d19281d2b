//! Turns of requests that bring many messages. Such a request holds its turn while its body comes, as slowly as its client
//! likes: no tenant can have all of them.
//!
//! Server layer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use drover_types::{ApiError, ErrorCode, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Requests under way at the same time; more wait. Each holds one part and one line of a batch, or one body of lines.
const TURNS_MAX: usize = 16;
/// Those of them that are of one tenant.
const TENANT_TURNS_MAX: usize = TURNS_MAX.div_ceil(2);

/// All turns, and who has how many of them.
#[derive(Debug)]
pub struct Turns {
    all: Arc<Semaphore>,
    /// Of tenants that have some or wait for one.
    tenants: Mutex<HashMap<TenantId, Arc<Semaphore>>>,
}

/// Ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    _of_tenant: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(TURNS_MAX)), tenants: Mutex::default() }
    }
}

impl Turns {
    /// Waits for a turn: `resource_exhausted` if the tenant has all of its own for as long as `patience`, `unavailable` if
    /// all together have all.
    pub async fn take(&self, tenant: &TenantId, patience: Duration) -> Result<Turn, ApiError> {
        let until = Instant::now() + patience;
        // Its own first: who waits for that is in nobody else's way.
        let Some(of_tenant) = permit(self.of(tenant), until).await else {
            let error = ApiError::new(ErrorCode::ResourceExhausted, "too many batches of the tenant are under way");
            return Err(error.over(TENANT_TURNS_MAX, "more"));
        };
        let Some(of_all) = permit(self.all.clone(), until).await else {
            let error = ApiError::new(ErrorCode::Unavailable, "too many batches are under way");
            return Err(error.over(TURNS_MAX, "more"));
        };
        Ok(Turn { _of_tenant: of_tenant, _of_all: of_all })
    }

    /// The turns of a tenant. Those of tenants that are not here any more are forgotten.
    fn of(&self, tenant: &TenantId) -> Arc<Semaphore> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        tenants.retain(|_, turns| Arc::strong_count(turns) > 1);
        tenants.entry(tenant.clone()).or_insert_with(|| Arc::new(Semaphore::new(TENANT_TURNS_MAX))).clone()
    }
}

/// `None`: there was none until then.
async fn permit(turns: Arc<Semaphore>, until: Instant) -> Option<OwnedSemaphorePermit> {
    let permit = timeout_at(until, turns.acquire_owned()).await.ok()?;
    Some(permit.expect("the semaphore is never closed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).expect("valid")
    }

    async fn taken(turns: &Turns, name: &str, count: usize) -> Vec<Turn> {
        let mut taken = Vec::new();
        for _ in 0..count {
            taken.push(turns.take(&tenant(name), PATIENCE).await.expect("a turn"));
        }
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_has_half_of_the_turns_and_others_have_the_rest() {
        let turns = Turns::default();
        let mut noisy = taken(&turns, "noisy", TENANT_TURNS_MAX).await;
        let refused = turns.take(&tenant("noisy"), PATIENCE).await.expect_err("one more");
        assert_eq!((refused.code, refused.limit.as_deref()), (ErrorCode::ResourceExhausted, Some("8")));

        let begun = Instant::now();
        let other = taken(&turns, "other", TURNS_MAX - TENANT_TURNS_MAX).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waited");
        let refused = turns.take(&tenant("third"), PATIENCE).await.expect_err("there are no more");
        assert_eq!((refused.code, refused.limit.as_deref()), (ErrorCode::Unavailable, Some("16")));

        noisy.pop();
        drop(taken(&turns, "third", 1).await);
        drop((noisy, other));
        drop(taken(&turns, "fourth", 1).await);
        let known = turns.tenants.lock().expect("not poisoned").len();
        assert_eq!(known, 1, "tenants that have gone are forgotten");
    }
}
