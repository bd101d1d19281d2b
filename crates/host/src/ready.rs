//! Readiness: each service says whether it can work; the process is ready when all are.

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
    changed: Notify,
}

impl Health {
    /// The handle of one service, which starts as not ready.
    pub fn service(&self, name: &'static str) -> Ready {
        let ready = Ready { name, health: self.clone() };
        ready.waiting("starting");
        ready
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
        self.0.services.lock().unwrap_or_else(PoisonError::into_inner).insert(name, state);
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
    /// The service can do its work.
    pub fn ready(&self) {
        self.health.set(self.name, Ok(()));
    }

    /// The service waits for something; `why` is shown by `/readyz`.
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
}
