//! Whose question is worked on next. Rule: of what there is of turns and of places to wait at most half is one tenant's.
//!
//! A question waits for a turn of its tenant first and then for one of all, so in the queue for those no tenant has more than
//! its share, and tenants take turns.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use drover_types::{ApiError, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::errors::exhausted;

/// Questions answered at the same time; further ones wait, within their deadline.
pub const AT_ONCE: usize = 4;
/// Questions that wait for their turn; further ones are refused.
const WAITING_MAX: usize = 64;
/// Those of one tenant.
const AT_ONCE_OF_TENANT: usize = AT_ONCE / 2;
/// Those of one tenant.
const WAITING_OF_TENANT_MAX: usize = WAITING_MAX / 2;

/// The turns of all tenants.
pub struct Turns {
    all: Room,
    /// Of tenants with a question that waits or is worked on, no more than there are places for.
    tenants: Mutex<HashMap<TenantId, Weak<Room>>>,
}

/// So many at once, and so many that wait.
struct Room {
    turns: Arc<Semaphore>,
    /// Of those that wait or have a turn.
    places: Arc<Semaphore>,
}

/// The right to work on a question, until it is dropped.
pub struct Turn {
    _permits: [OwnedSemaphorePermit; 4],
    _tenant: Arc<Room>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Room::new(AT_ONCE, WAITING_MAX), tenants: Mutex::default() }
    }
}

impl Turns {
    /// A turn for a question of a tenant, when there is one; in the order in which they are asked for, within a tenant. The
    /// error: as many wait already as may, of the tenant or of all. Dropped, it waits no longer.
    pub async fn take(&self, tenant: &TenantId) -> Result<Turn, ApiError> {
        let room = self.room_of(tenant);
        let own_place = room.place().ok_or_else(|| too_many_wait("questions of the tenant", WAITING_OF_TENANT_MAX))?;
        let place = self.all.place().ok_or_else(|| too_many_wait("questions", WAITING_MAX))?;
        let own_turn = room.turn().await;
        let turn = self.all.turn().await;
        Ok(Turn { _permits: [own_place, place, own_turn, turn], _tenant: room })
    }

    fn room_of(&self, tenant: &TenantId) -> Arc<Room> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = tenants.get(tenant).and_then(Weak::upgrade) {
            return room;
        }
        tenants.retain(|_, room| room.strong_count() > 0);
        let room = Arc::new(Room::new(AT_ONCE_OF_TENANT, WAITING_OF_TENANT_MAX));
        tenants.insert(tenant.clone(), Arc::downgrade(&room));
        room
    }
}

#[cfg(test)]
impl Turns {
    /// Whether no question has one.
    pub fn are_free(&self) -> bool {
        self.all.turns.available_permits() == AT_ONCE
    }

    /// Whether a question has to wait for one.
    pub fn are_waited_for(&self) -> bool {
        let taken = AT_ONCE - self.all.turns.available_permits();
        self.all.places.available_permits() < AT_ONCE + WAITING_MAX - taken
    }
}

impl Room {
    fn new(at_once: usize, waiting: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_once)), places: Arc::new(Semaphore::new(at_once + waiting)) }
    }

    fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    async fn turn(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.turns).acquire_owned().await.expect("nobody closes it")
    }
}

fn too_many_wait(whose: &str, limit: usize) -> ApiError {
    let message = format!("{limit} {whose} wait already, which is their limit: ask again later");
    exhausted(message, limit, limit + 1)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use drover_types::ErrorCode;
    use futures::FutureExt as _;

    use super::*;

    type Taking<'t> = Pin<Box<dyn Future<Output = Result<Turn, ApiError>> + Send + 't>>;

    /// Asks for a turn, and waits for it where there is none.
    fn ask<'t>(turns: &'t Turns, tenant: &str) -> Result<Result<Turn, ApiError>, Taking<'t>> {
        let tenant = TenantId::new(tenant).expect("valid");
        let mut taking: Taking<'t> = Box::pin(async move { turns.take(&tenant).await });
        match taking.as_mut().now_or_never() {
            Some(taken) => Ok(taken),
            None => Err(taking),
        }
    }

    fn taken(turns: &Turns, tenant: &str) -> Turn {
        ask(turns, tenant).ok().expect("needs not wait").expect("is not refused")
    }

    fn waiting<'t>(turns: &'t Turns, tenant: &str) -> Taking<'t> {
        ask(turns, tenant).err().expect("has to wait")
    }

    fn refused(turns: &Turns, tenant: &str) -> ApiError {
        ask(turns, tenant).ok().expect("needs not wait").err().expect("refused")
    }

    #[test]
    fn one_tenant_leaves_turns_for_others_however_many_it_asks_for() {
        let turns = Turns::default();
        let own: Vec<Turn> = (0..AT_ONCE_OF_TENANT).map(|_| taken(&turns, "a")).collect();
        let mut queue: Vec<_> = (0..WAITING_OF_TENANT_MAX).map(|_| waiting(&turns, "a")).collect();
        let error = refused(&turns, "a");
        assert_eq!(error.code, ErrorCode::ResourceExhausted);
        assert_eq!((error.limit.as_deref(), error.value.as_deref()), (Some("32"), Some("33")));
        assert!(error.message.contains("of the tenant"), "{}", error.message);
        let others: Vec<Turn> = (0..AT_ONCE - AT_ONCE_OF_TENANT).map(|_| taken(&turns, "b")).collect();
        // The first that waits is the first that gets what is given back; one that waits no longer leaves its place.
        drop((own, others));
        let next = [queue.remove(1), queue.remove(0)].map(|taking| taking.now_or_never().expect("its turn"));
        assert!(next.iter().all(Result::is_ok) && queue[0].as_mut().now_or_never().is_none());
        queue.truncate(1);
        drop(waiting(&turns, "a"));
    }

    #[test]
    fn tenants_that_wait_take_turns() {
        let turns = Turns::default();
        let mut busy = [taken(&turns, "a"), taken(&turns, "a"), taken(&turns, "b"), taken(&turns, "b")].map(Some);
        let (mut many, mut one) = ([(); 9].map(|()| waiting(&turns, "a")), waiting(&turns, "c"));
        busy[0] = None;
        // The turn that `a` has given back is the next one's, who asked after nine more of `a`, but before they were let in.
        let one = one.as_mut().now_or_never().expect("its turn");
        assert!(one.is_ok() && many.iter_mut().all(|taking| taking.as_mut().now_or_never().is_none()));
    }

    #[test]
    fn no_more_wait_than_there_are_places_and_tenants_without_questions_are_forgotten() {
        let turns = Turns::default();
        let mut kept = Vec::new();
        for tenant in 0..AT_ONCE + WAITING_MAX {
            kept.push(ask(&turns, &format!("t{tenant}")));
        }
        assert_eq!(kept.iter().filter(|asked| asked.is_ok()).count(), AT_ONCE);
        let error = refused(&turns, "late");
        assert_eq!((error.code, error.limit.as_deref()), (ErrorCode::ResourceExhausted, Some("64")));
        drop(kept);
        drop(taken(&turns, "late"));
        assert_eq!(turns.tenants.lock().expect("not poisoned").len(), 1);
    }
}
