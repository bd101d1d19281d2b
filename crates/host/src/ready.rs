//! Readiness: each service says whether it can work; the process is ready when all are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The process's view of its services.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>);

impl Health {
    /// The handle of one service, which starts as not ready.
    pub fn service(&self, name: &'static str) -> Ready {
        let ready = Ready { name, health: self.clone() };
        ready.waiting("starting");
        ready
    }

    /// What keeps the process from being ready, by service; empty: ready.
    pub fn obstacles(&self) -> Vec<(&'static str, String)> {
        let services = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        services.iter().filter_map(|(name, state)| state.as_ref().err().map(|why| (*name, why.clone()))).collect()
    }

    fn set(&self, name: &'static str, state: Result<(), String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, state);
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
