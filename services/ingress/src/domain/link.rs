//! The string between the rest of the node and one connection: how a connection is woken, and told to stop.
//!
//! Domain layer: no sockets. Whoever holds a link can only signal; the connection decides what it means. Signals of one
//! connection gather until its loop takes them, so that however many there are, the loop is told once.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

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
    /// The store cannot take its session, which has ended.
    NotKept = 5,
}

/// What a connection is told.
#[derive(Debug, Default)]
pub struct Signals {
    /// The log did not take messages of the connection.
    pub not_stored: bool,
    pub stop: Option<Stop>,
    /// What it may do has changed.
    pub identity: Option<Arc<Identity>>,
}

/// Where a connection is among those of its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub slot: u32,
    /// Which of those that were in this slot, one after the other.
    pub life: u32,
}

/// The loop of a connection, as its link knows it.
pub trait Doorbell: Debug + Send + Sync {
    /// The connection has signals. Called once until [`Link::take`].
    fn ring(&self, place: Place);
    /// Which loop of the node it is.
    fn number(&self) -> usize;
    /// Told whenever one of the loop's connections has closed.
    fn closed(&self) -> &Notify;
}

/// Why the connection shall end: the [`Stop`] that came first, or 0.
const STOP: u8 = 0b111;
/// The loop was told of signals it has not taken.
const RUNG: u8 = 1 << 3;
/// A newer connection has its client id.
const REPLACED: u8 = 1 << 4;
/// The log did not take messages of it.
const NOT_STORED: u8 = 1 << 5;
const IDENTITY: u8 = 1 << 6;
const CLOSED: u8 = 1 << 7;

/// One connection, as others see it.
#[derive(Debug, Default)]
pub struct Link {
    flags: AtomicU8,
    /// How many [`Withheld`] there are of it.
    withheld: AtomicU32,
    /// Its client may miss messages: no publisher waits for it.
    skips: bool,
    /// Its identity as of now, if the connection has not seen it yet.
    identity: Mutex<Option<Arc<Identity>>>,
    /// Absent where nobody listens, in tests.
    at: Option<(Arc<dyn Doorbell>, Place)>,
}

impl Link {
    /// The link of the connection at `place` of a loop.
    pub fn new(bell: Arc<dyn Doorbell>, place: Place) -> Self {
        Self { at: Some((bell, place)), ..Self::default() }
    }

    /// The same, of a client whose protocol lets it miss messages: no publisher waits until it has room.
    #[must_use]
    pub fn skipping(self) -> Self {
        Self { skips: true, ..self }
    }

    /// Whether no publisher waits until its client has room.
    pub fn skips(&self) -> bool {
        self.skips
    }

    /// The number of its loop, and its place there.
    pub fn place(&self) -> Option<(usize, Place)> {
        self.at.as_ref().map(|(bell, place)| (bell.number(), *place))
    }

    /// Messages wait in the session.
    pub fn wake(&self) {
        self.signal(0);
    }

    /// Asks the connection to end; the first reason stays. One that is taken over is cut off from the log as well: what
    /// its client sends on the newer connection must not come out before what it sent here.
    pub fn stop(&self, why: Stop) {
        let replaced = if why == Stop::TakenOver { REPLACED } else { 0 };
        let first = |flags| Some(if flags & STOP == 0 { flags | why as u8 | replaced } else { flags | replaced });
        // The closure always answers.
        self.flags.fetch_update(Ordering::AcqRel, Ordering::Acquire, first).ok();
        self.signal(0);
    }

    /// Tells the connection what it may do from now on; the newest counts.
    pub fn reauthorize(&self, identity: Arc<Identity>) {
        *self.identity.lock().unwrap_or_else(PoisonError::into_inner) = Some(identity);
        self.signal(IDENTITY);
    }

    /// The log did not take messages of the connection, or their fate is unknown: what it has sent after them must not
    /// come out before them when they are sent again.
    pub fn not_stored(&self) {
        self.signal(NOT_STORED);
    }

    /// Whether messages of it were lost: those that wait behind them may not go into the log.
    pub fn has_lost(&self) -> bool {
        self.flags.load(Ordering::Acquire) & NOT_STORED != 0
    }

    /// Whether no message that it reads from now on may go into the log.
    pub fn is_cut(&self) -> bool {
        self.flags.load(Ordering::Acquire) & (NOT_STORED | REPLACED) != 0
    }

    /// The connection acknowledges nothing until the answer is dropped, which wakes it.
    pub fn withhold(self: &Arc<Self>) -> Withheld {
        self.withheld.fetch_add(1, Ordering::AcqRel);
        Withheld(self.clone())
    }

    /// Whether the connection is to acknowledge nothing.
    pub fn is_withheld(&self) -> bool {
        self.withheld.load(Ordering::Acquire) > 0
    }

    fn signal(&self, what: u8) {
        let before = self.flags.fetch_or(what | RUNG, Ordering::AcqRel);
        if before & RUNG == 0
            && let Some((bell, place)) = &self.at
        {
            bell.ring(*place);
        }
    }

    /// The newer identity, if one came since the last call; reasons to end stay.
    pub fn take(&self) -> Signals {
        let flags = self.flags.fetch_and(!(RUNG | IDENTITY), Ordering::AcqRel);
        let newer = || self.identity.lock().unwrap_or_else(PoisonError::into_inner).take();
        Signals {
            not_stored: flags & NOT_STORED != 0,
            stop: stop(flags),
            identity: if flags & IDENTITY == 0 { None } else { newer() },
        }
    }

    /// Why the connection shall end, if it shall.
    pub fn stopped(&self) -> Option<Stop> {
        stop(self.flags.load(Ordering::Acquire))
    }

    /// The connection is closed and detached from its session.
    pub fn set_closed(&self) {
        self.flags.fetch_or(CLOSED, Ordering::AcqRel);
        if let Some((bell, _)) = &self.at {
            bell.closed().notify_waiters();
        }
    }

    fn is_closed(&self) -> bool {
        self.flags.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Returns when the connection is closed.
    pub async fn closed(&self) {
        let Some((bell, _)) = &self.at else { return };
        loop {
            let closed = bell.closed().notified(); // listens from here on
            if self.is_closed() {
                return;
            }
            closed.await;
        }
    }
}

/// Acknowledgements of one connection, for as long as this is there.
#[derive(Debug)]
pub struct Withheld(Arc<Link>);

impl Withheld {
    /// Whether they are those of the connection that `link` is.
    pub fn is_of(&self, link: &Arc<Link>) -> bool {
        Arc::ptr_eq(&self.0, link)
    }
}

impl Drop for Withheld {
    fn drop(&mut self) {
        if self.0.withheld.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.wake();
        }
    }
}

fn stop(flags: u8) -> Option<Stop> {
    let all = [Stop::TakenOver, Stop::Revoked, Stop::Drain, Stop::DeclaredGone, Stop::NotKept];
    all.into_iter().find(|stop| *stop as u8 == flags & STOP)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Debug, Default)]
    struct Bell {
        rung: AtomicUsize,
        closed: Notify,
    }

    impl Doorbell for Bell {
        fn ring(&self, _place: Place) {
            self.rung.fetch_add(1, Ordering::Relaxed);
        }
        fn number(&self) -> usize {
            0
        }
        fn closed(&self) -> &Notify {
            &self.closed
        }
    }

    #[test]
    fn signals_gather_until_they_are_taken_and_the_first_reason_to_stop_stays() {
        let bell = Arc::new(Bell::default());
        let link = Link::new(bell.clone(), Place { slot: 0, life: 0 });
        link.wake();
        link.stop(Stop::Drain);
        assert!(!link.is_cut());
        link.stop(Stop::TakenOver);
        link.not_stored();
        assert_eq!(bell.rung.load(Ordering::Relaxed), 1);
        let signals = link.take();
        assert!(signals.not_stored && signals.stop == Some(Stop::Drain) && link.is_cut());
        assert!(link.has_lost() && link.take().not_stored, "it does not pass");
        link.wake();
        assert_eq!(bell.rung.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_connection_is_woken_when_the_last_of_those_who_withhold_its_acknowledgements_lets_go() {
        let bell = Arc::new(Bell::default());
        let link = Arc::new(Link::new(bell.clone(), Place { slot: 0, life: 0 }));
        let [first, second] = [link.withhold(), link.withhold()];
        assert!(first.is_of(&link) && !first.is_of(&Arc::default()));
        drop(first);
        assert!(link.is_withheld() && bell.rung.load(Ordering::Relaxed) == 0);
        drop(second);
        assert!(!link.is_withheld() && bell.rung.load(Ordering::Relaxed) == 1);
    }

    #[tokio::test]
    async fn whoever_waits_for_the_end_of_a_connection_hears_of_it() {
        let link = Arc::new(Link::new(Arc::new(Bell::default()), Place { slot: 0, life: 0 }));
        let waiting = tokio::spawn({
            let link = link.clone();
            async move { link.closed().await }
        });
        tokio::task::yield_now().await;
        link.set_closed();
        waiting.await.expect("no panic");
        link.closed().await;
    }
}
