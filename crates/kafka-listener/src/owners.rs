//! Whose topics are, remembered for a moment.
//!
//! Adapter layer over the port [`Authenticator`].

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_types::TenantId;
use tokio::time::Instant;

use crate::ports::{Authenticator, Unavailable};

/// How long an answer is used.
pub const KEPT_FOR: Duration = Duration::from_secs(5);
/// Most answers kept; when there are more, all are forgotten and asked for again.
const KEPT_MAX: usize = 10_000;

/// An answer, and when it was asked for.
type Kept = (Instant, Option<TenantId>);

/// The answers of the last moments.
#[derive(Default)]
pub struct Owners(Mutex<HashMap<String, Kept>>);

impl Owners {
    /// Those of `topics` that are the tenant's.
    pub async fn those_of(
        &self,
        tenant: &TenantId,
        topics: HashSet<String>,
        authenticator: &dyn Authenticator,
    ) -> Result<HashSet<String>, Unavailable> {
        let now = Instant::now();
        let (mut own, unknown) = self.known(tenant, topics, now);
        if !unknown.is_empty() {
            let owners = authenticator.owners(&unknown).await?;
            let answers: Vec<(String, Option<TenantId>)> = unknown.into_iter().zip(owners).collect();
            self.keep(&answers, now);
            let theirs = answers.into_iter().filter(|(_, owner)| owner.as_ref() == Some(tenant));
            own.extend(theirs.map(|(topic, _)| topic));
        }
        Ok(own)
    }

    /// Those of `topics` that are known to be the tenant's, and those to be asked about.
    fn known(&self, tenant: &TenantId, topics: HashSet<String>, now: Instant) -> (HashSet<String>, Vec<String>) {
        let kept = self.kept();
        let (mut own, mut unknown) = (HashSet::new(), Vec::new());
        for topic in topics {
            match kept.get(&topic).filter(|(since, _)| now.duration_since(*since) < KEPT_FOR) {
                None => unknown.push(topic),
                Some((_, owner)) if owner.as_ref() == Some(tenant) => drop(own.insert(topic)),
                Some(_) => {}
            }
        }
        (own, unknown)
    }

    fn keep(&self, answers: &[(String, Option<TenantId>)], now: Instant) {
        let mut kept = self.kept();
        if kept.len() + answers.len() > KEPT_MAX {
            kept.clear();
        }
        let room = answers.iter().take(KEPT_MAX);
        kept.extend(room.map(|(topic, owner)| (topic.clone(), (now, owner.clone()))));
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;

    use super::*;
    use crate::ports::{NotAdmitted, Principal};

    /// Says of every topic that it is `home`'s, and counts what it is asked about.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    #[async_trait]
    impl Authenticator for Counting {
        async fn authenticate(&self, _: &str, _: &str) -> Result<Principal, NotAdmitted> {
            Err(NotAdmitted::Unknown)
        }

        async fn owners(&self, topics: &[String]) -> Result<Vec<Option<TenantId>>, Unavailable> {
            self.0.fetch_add(topics.len(), Ordering::Relaxed);
            Ok(vec![TenantId::new("home").ok(); topics.len()])
        }
    }

    fn names(names: impl IntoIterator<Item = usize>) -> HashSet<String> {
        names.into_iter().map(|name| name.to_string()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_serves_all_tenants_for_its_time_and_no_longer() {
        let (owners, asked) = (Owners::default(), Counting::default());
        let [home, away] = ["home", "away"].map(|tenant| TenantId::new(tenant).expect("a tenant"));
        assert_eq!(owners.those_of(&home, names(0..2), &asked).await, Ok(names(0..2)));
        assert_eq!(owners.those_of(&away, names(1..3), &asked).await, Ok(names(0..0)));
        tokio::time::advance(KEPT_FOR - Duration::from_millis(1)).await;
        assert_eq!(owners.those_of(&home, names(0..3), &asked).await, Ok(names(0..3)));
        assert_eq!(asked.0.load(Ordering::Relaxed), 3, "each topic once");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(owners.those_of(&home, names(0..1), &asked).await, Ok(names(0..1)));
        assert_eq!(asked.0.load(Ordering::Relaxed), 4);
    }

    #[tokio::test]
    async fn answers_are_bounded() {
        let (owners, asked) = (Owners::default(), Counting::default());
        let home = TenantId::new("home").expect("a tenant");
        for topics in [0..KEPT_MAX, KEPT_MAX..KEPT_MAX + 1] {
            let own = owners.those_of(&home, names(topics.clone()), &asked).await;
            assert_eq!(own.map(|own| own.len()), Ok(topics.len()));
        }
        assert_eq!(owners.kept().len(), 1);
        owners.those_of(&home, names(0..KEPT_MAX + 1), &asked).await.expect("answered");
        assert_eq!(owners.kept().len(), KEPT_MAX);
    }
}
