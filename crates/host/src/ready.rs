//! Readiness: each service says whether it can work; the process is ready when all are.
//!
//! What changes is said in the log once, here and nowhere else; whoever waits may say so as often as it looks.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The process's view of its services.
#[derive(Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Default)]
struct Inner {
    services: Mutex<BTreeMap<&'static str, Result<(), String>>>,
    /// What is missed although the process can do without, and why.
    missed: Mutex<BTreeMap<String, String>>,
    changed: Notify,
}

/// What a service waits for before it has said anything.
const STARTING: &str = "starting";

impl Health {
    /// The handle of one service, which starts as not ready.
    pub fn service(&self, name: &'static str) -> Ready {
        let ready = Ready { name, health: self.clone() };
        self.set(name, Err(STARTING.to_owned()));
        ready
    }

    /// What is missed without keeping the process from being ready.
    pub fn missed(&self) -> BTreeMap<String, String> {
        self.0.missed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Something the process can do without is away (`why`) or back.
    pub fn miss(&self, name: &str, why: Option<String>) {
        let mut missed = self.0.missed.lock().unwrap_or_else(PoisonError::into_inner);
        match why {
            Some(why) if !missed.contains_key(name) => {
                tracing::warn!(name, why, "missed; all else goes on");
                missed.insert(name.to_owned(), why);
            }
            Some(why) => drop(missed.insert(name.to_owned(), why)),
            None => {
                if missed.remove(name).is_some() {
                    tracing::info!(name, "back");
                }
            }
        }
    }

    /// What keeps the process from being ready, by service; empty: ready.
    pub fn obstacles(&self) -> Vec<(&'static str, String)> {
        let services = self.0.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.iter().filter_map(|(name, state)| state.as_ref().err().map(|why| (*name, why.clone()))).collect()
    }

    /// Returns once nothing keeps the process from being ready.
    pub async fn all_ready(&self) {
        loop {
            let mut changed = pin!(self.0.changed.notified());
            // Registered before looking, so that a change right after the look is not missed.
            changed.as_mut().enable();
            if self.obstacles().is_empty() {
                return;
            }
            changed.await;
        }
    }

    fn set(&self, name: &'static str, state: Result<(), String>) {
        let mut services = self.0.services.lock().unwrap_or_else(PoisonError::into_inner);
        let before = services.insert(name, state.clone());
        drop(services);
        match (before, state) {
            (Some(Ok(())) | None, Ok(())) => return,
            (Some(Err(waited)), Err(why)) if waited == why => return,
            (_, Err(why)) if why == STARTING => {}
            (Some(Err(_)), Ok(())) => tracing::info!(name, "ready"),
            (_, Err(why)) => tracing::warn!(name, why, "waiting"),
        }
        self.0.changed.notify_waiters();
    }
}

/// One service's handle on its readiness.
#[derive(Clone)]
pub struct Ready {
    name: &'static str,
    health: Health,
}

impl Ready {
    /// The service's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The service can do its work.
    pub fn ready(&self) {
        self.health.set(self.name, Ok(()));
    }

    /// What the service does without for now is away (`why`) or back; the process stays ready.
    pub fn miss(&self, name: &str, why: Option<String>) {
        self.health.miss(name, why);
    }

    /// The service waits for something; `why` is shown by `/readyz`, and in the log when it changes.
    pub fn waiting(&self, why: impl Into<String>) {
        self.health.set(self.name, Err(why.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_hears_when_the_last_service_is_ready() {
        let health = Health::default();
        let (one, two) = (health.service("one"), health.service("two"));
        let waiting = tokio::spawn({
            let health = health.clone();
            async move { health.all_ready().await }
        });
        one.ready();
        tokio::task::yield_now().await;
        assert_eq!(health.obstacles(), [("two", "starting".to_owned())]);
        assert!(!waiting.is_finished());
        two.ready();
        waiting.await.expect("ends");
    }

    #[test]
    fn what_is_missed_keeps_nobody_waiting() {
        let health = Health::default();
        health.service("one").ready();
        health.miss("ingress", Some("away".to_owned()));
        health.miss("ingress", Some("still away".to_owned()));
        assert!(health.obstacles().is_empty());
        assert_eq!(health.missed()["ingress"], "still away");
        health.miss("ingress", None);
        assert!(health.missed().is_empty());
    }
}
