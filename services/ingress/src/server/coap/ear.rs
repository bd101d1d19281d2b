//! How the task that serves an observing device hears of what the rest of the node tells it.
//!
//! A task is no loop: it has one place, and nothing of it goes by the lanes. An observer may miss states in between (RFC 7641
//! section 1.3), and takes one message a round trip: no publisher waits for it.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::domain::link::{Doorbell, Link, Place, Signals};

/// What one task hears by.
#[derive(Debug)]
pub struct Ear {
    bell: Arc<Bell>,
    /// Of the device, as others see it.
    pub link: Arc<Link>,
}

#[derive(Debug, Default)]
struct Bell {
    rung: Notify,
    closed: Notify,
}

impl Default for Ear {
    fn default() -> Self {
        let bell = Arc::<Bell>::default();
        let link = Arc::new(Link::new(bell.clone(), Place { slot: 0, life: 0 }).skipping());
        Self { bell, link }
    }
}

impl Ear {
    /// The next signals; messages may wait as well. Cancel-safe.
    pub async fn signals(&self) -> Signals {
        self.bell.rung.notified().await;
        self.link.take()
    }
}

impl Doorbell for Bell {
    fn ring(&self, _place: Place) {
        self.rung.notify_one();
    }

    fn number(&self) -> usize {
        0
    }

    fn closed(&self) -> &Notify {
        &self.closed
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::domain::link::Stop;

    #[tokio::test]
    async fn signals_that_came_while_nobody_listened_are_heard_together_and_once() {
        let ear = Ear::default();
        ear.link.wake();
        ear.link.stop(Stop::Drain);
        assert_eq!(ear.signals().await.stop, Some(Stop::Drain));
        assert!(ear.signals().now_or_never().is_none(), "all of them were taken");
        ear.link.wake();
        ear.signals().await;
    }
}
