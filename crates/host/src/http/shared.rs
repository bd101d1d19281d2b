//! Routes of one service on the listener of another of the same process.
//!
//! Not a proxy: the routes themselves are handed over, and the request is answered by the service that made them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;

/// Routes handed over, by the name of the listener that gave way, such as `ingress.http`. Cheap to clone.
#[derive(Clone, Default)]
pub struct SharedRoutes(Arc<Mutex<HashMap<&'static str, Router>>>);

impl SharedRoutes {
    /// Hands over the routes of `listener`; those handed over before are replaced.
    pub fn contribute(&self, listener: &'static str, routes: Router) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(listener, routes);
    }

    /// Takes the routes of `listener` back: their service ends.
    pub fn withdraw(&self, listener: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(listener);
    }

    /// The routes of `listener`, if any were handed over.
    pub fn of(&self, listener: &str) -> Option<Router> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(listener).cloned()
    }
}
