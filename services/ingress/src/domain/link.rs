//! The string between the rest of the node and one connection: how a connection is woken, and told to stop.
//!
//! Domain layer: tasks, not sockets. Whoever holds a link can only signal; the connection decides what it means.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::identity::Identity;

/// Why a connection shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stop {
    /// A newer CONNECT, here or on another node, has its client id.
    TakenOver = 1,
    /// Its identity is no longer valid.
    Revoked = 2,
    /// The node shuts down.
    Drain = 3,
    /// The platform has taken the node for lost, and told that this connection is gone.
    DeclaredGone = 4,
}

/// What a connection is told.
#[derive(Debug)]
pub enum Signal {
    /// Messages may wait in its session.
    Deliveries,
    /// What it may do has changed; messages may wait as well.
    Identity(Arc<Identity>),
    Stop(Stop),
}

/// One connection, as others see it.
#[derive(Debug, Default)]
pub struct Link {
    /// 0, or the [`Stop`] that came first.
    stop: AtomicU8,
    /// Its identity as of now, if the connection has not seen it yet.
    identity: Mutex<Option<Arc<Identity>>>,
    wake: Notify,
    closed: CancellationToken,
}

impl Link {
    /// Messages wait in the session.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Asks the connection to end; the first reason stays.
    pub fn stop(&self, why: Stop) {
        // An error means that an earlier reason is already there, which is the one to keep.
        self.stop.compare_exchange(0, why as u8, Ordering::AcqRel, Ordering::Acquire).ok();
        self.wake.notify_one();
    }

    /// Tells the connection what it may do from now on; the newest counts.
    pub fn reauthorize(&self, identity: Arc<Identity>) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
        self.wake.notify_one();
    }

    /// The next signal. Cancel-safe.
    pub async fn signal(&self) -> Signal {
        self.wake.notified().await;
        if let Some(stop) = self.stopped() {
            return Signal::Stop(stop);
        }
        let identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner).take();
        identity.map_or(Signal::Deliveries, Signal::Identity)
    }

    /// Why the connection shall end, if it shall.
    pub fn stopped(&self) -> Option<Stop> {
        [Stop::TakenOver, Stop::Revoked, Stop::Drain, Stop::DeclaredGone]
            .into_iter()
            .find(|stop| *stop as u8 == self.stop.load(Ordering::Acquire))
    }

    /// The connection is closed and detached from its session.
    pub fn set_closed(&self) {
        self.closed.cancel();
    }

    /// Returns when the connection is closed.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }
}
