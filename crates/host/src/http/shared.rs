//! Routes of one service on the listener of another of the same process.
//!
//! Not a proxy: the routes themselves are handed over, and the request is answered by the service that made them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;

/// Routes handed over, by the name of the service that made them. Cheap to clone.
#[derive(Clone, Default)]
pub struct SharedRoutes(Arc<Mutex<HashMap<&'static str, Router>>>);

impl SharedRoutes {
    /// Hands over the routes of `service`; those it handed over before are replaced.
    pub fn contribute(&self, service: &'static str, routes: Router) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(service, routes);
    }

    /// Takes the routes of `service` back: it ends.
    pub fn withdraw(&self, service: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(service);
    }

    /// The routes of `service`, if it has handed over any.
    pub fn of(&self, service: &str) -> Option<Router> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(service).cloned()
    }
}
