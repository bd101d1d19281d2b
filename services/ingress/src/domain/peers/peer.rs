//! One other node: a bounded queue to it, one batch under way at a time, and whether it is there.

mod leaving;
mod queue;
mod shares;
mod telling;

use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

use super::heirs::Heirs;
use super::held::{Done, Held};
use super::unplaced::Queue;
use crate::domain::interest::Interest;
use crate::domain::message::Message;
use crate::domain::shares::Share;
use crate::ports::{Answer, PeerLink};
use crate::telemetry::Telemetry;
use leaving::Left;
pub(super) use queue::Offered;
use telling::ToTell;

/// A peer that has not answered for this long, to a batch or beside it, is away as soon as its sessions are with the others:
/// nobody waits for it, and messages pass it by.
pub const LEASE: Duration = Duration::from_secs(3);
/// Messages in one batch.
pub const BATCH_MESSAGES_MAX: usize = 1_000;
/// Bytes beyond which a batch takes no further message: far below what a gRPC message may have (4 MiB).
const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Room of the queue, in pieces of 1 KiB; a message takes at least one.
const QUEUE_KIB_MAX: usize = 32 * 1024;
/// A peer that there is nothing to send to is spoken to this often.
const BEAT: Duration = Duration::from_secs(1);
/// How long one call may take; the same batch is sent again then.
const CALL: Duration = Duration::from_secs(1);
/// Wait before a call that failed is made again.
const RETRY: Duration = Duration::from_millis(100);
/// What a peer is called that has not told its name.
const NOT_HEARD: &str = "not heard of yet";
/// Wait between two looks at a peer that is away.
const PROBE: Duration = Duration::from_millis(500);

/// Another node, or this one, as far as is known.
pub struct Peer {
    pub(super) link: Arc<dyn PeerLink>,
    state: Mutex<State>,
    /// In pieces of 1 KiB.
    room: Semaphore,
    more: Notify,
    /// What it knows, for those who wait for that.
    known: watch::Sender<Known>,
    /// How many messages nobody waits for any more, for those who wait for that.
    settled: watch::Sender<u64>,
    /// What members of shared subscriptions have there.
    held: Mutex<Held>,
    /// Where what it cannot give to a member goes.
    unplaced: Arc<Queue>,
    /// The zero of monotonic time.
    started: Instant,
}

/// What a peer knows of this node.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Generation and version of [`Interest`]; `None`: nothing.
    interest: Option<(u64, u64)>,
    /// Version of its memberships; `None`: nothing.
    groups: Option<u64>,
    /// Nobody needs to wait for it.
    away: bool,
}

struct State {
    waiting: VecDeque<Waiting>,
    condition: Condition,
    /// What it calls itself.
    name: Option<String>,
    /// The number of its start; 0: it has not answered yet.
    boot: u64,
    /// It has to be spoken to because it has spoken.
    spoken_to: bool,
    /// It has to be told what is wanted.
    news: bool,
    /// When it has last answered, monotonic.
    heard: Duration,
    /// Since when it is away, or about to be.
    away_since: Option<Duration>,
    /// The round in which its sessions were claimed last.
    claimed: u64,
    /// The others have its sessions since its lease has ended: its members of shared subscriptions are theirs.
    has_left: bool,
    /// How many messages came into the queue.
    offered: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// It has not answered yet; until a lease is over it may be there.
    Unknown,
    Live,
    /// Its lease has ended, and the others take its sessions.
    Leaving,
    Away,
    /// It is this node.
    Ourselves,
}

struct Waiting {
    message: Arc<Message>,
    shares: Vec<Share>,
    kib: u32,
    /// As of when it was routed on this node.
    round: u64,
    /// Told, by being dropped, when this message, and so all before it, need not be waited for.
    done: Vec<Done>,
}

impl Peer {
    pub(super) fn new(link: Arc<dyn PeerLink>, unplaced: Arc<Queue>, started: Instant) -> Self {
        let state = State {
            waiting: VecDeque::new(),
            condition: Condition::Unknown,
            name: None,
            boot: 0,
            spoken_to: false,
            news: false,
            heard: Duration::ZERO,
            away_since: None,
            claimed: 0,
            has_left: false,
            offered: 0,
        };
        let (state, room) = (Mutex::new(state), Semaphore::new(QUEUE_KIB_MAX));
        let (known, settled) = (watch::Sender::new(Known::default()), watch::Sender::new(0));
        let (more, held) = (Notify::new(), Mutex::default());
        Self { link, state, room, more, known, settled, held, unplaced, started }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_ourselves(&self) -> bool {
        self.state().condition == Condition::Ourselves
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.state().condition, Condition::Live | Condition::Ourselves)
    }

    /// Whether it answers, and is another node.
    pub(super) fn is_there(&self) -> bool {
        self.state().condition == Condition::Live
    }

    /// Whether its sessions are being claimed, and not with the others yet.
    pub(super) fn is_leaving(&self) -> bool {
        let state = self.state();
        state.condition == Condition::Leaving && !state.has_left
    }

    /// Since when it is away, or about to be; monotonic.
    pub(super) fn away_since(&self) -> Option<Duration> {
        self.state().away_since
    }

    /// When it has last answered, monotonic.
    pub(super) fn heard(&self) -> Duration {
        self.state().heard
    }

    pub(super) fn may_be_live(&self) -> bool {
        matches!(self.state().condition, Condition::Live | Condition::Unknown)
    }

    pub(super) fn is_named(&self, name: &str) -> bool {
        self.state().name.as_deref() == Some(name)
    }

    pub(super) fn name(&self) -> Option<String> {
        self.state().name.clone()
    }

    /// It is to be told now what is wanted.
    pub(super) fn speak_of_news(&self) {
        self.state().news = true;
        self.more.notify_one();
    }

    /// Returns when it knows what is wanted as of `version`, or is away.
    pub(super) async fn knows(&self, version: u64) {
        let knows = |known: &Known| known.away || known.interest.is_some_and(|(_, known)| known >= version);
        // An error means that nobody will tell: the node stops.
        self.known.subscribe().wait_for(knows).await.ok();
    }

    /// It is to be spoken to now.
    pub(super) fn speak(&self) {
        self.state().spoken_to = true;
        self.more.notify_one();
    }

    /// Speaks to the peer as long as this process runs, and tells it what the subscribers of this node want. When its lease
    /// has ended, `heirs` have what it leaves; `round` counts such ends, of whichever peer.
    pub(super) async fn run(
        &self,
        heirs: Heirs<'_>,
        round: &AtomicU64,
        interest: &Mutex<Interest>,
        telemetry: &Telemetry,
    ) {
        let node = heirs.node;
        let (mut sequence, mut heard) = (0, self.started.elapsed());
        // It was given another lease, for others have heard it.
        let mut spared = false;
        loop {
            let mut batch = self.next_batch().await;
            self.bequeath_late(&batch, heirs).await;
            if self.state().condition == Condition::Away {
                self.give_back(std::mem::take(&mut batch));
            }
            let hello = self.says_hello();
            let messages: Vec<_> = batch.iter().map(|waiting| waiting.message.clone()).collect();
            let shares: Vec<_> = batch.iter().map(|waiting| waiting.shares.clone()).collect();
            sequence += u64::from(!messages.is_empty());
            let number = if messages.is_empty() { 0 } else { sequence };
            let answer = loop {
                let tell = self.to_tell(interest);
                let sent = tell.batch(number, hello, &messages, &shares);
                let error = match tokio::time::timeout(CALL, self.link.forward(sent)).await {
                    Ok(Ok(answer)) => {
                        (heard, spared) = (self.started.elapsed(), false);
                        self.answered(&answer, node, &tell, telemetry);
                        if !answer.starting || messages.is_empty() {
                            break Some(answer);
                        }
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                    Ok(Err(error)) => error,
                    Err(_) => {
                        // The store that its inboxes are in may be away, and the peer there: then it is waited for.
                        let left = (heard + LEASE).saturating_sub(self.started.elapsed());
                        let beats = tokio::time::timeout(CALL.min(left), self.beat(node, interest, telemetry));
                        if !messages.is_empty() && beats.await == Ok(true) {
                            heard = self.started.elapsed();
                        }
                        format!("no answer within {CALL:?}")
                    }
                };
                if self.started.elapsed() >= heard + LEASE {
                    if self.state().condition == Condition::Away {
                        break None; // a look at it
                    }
                    let left = self.leave(&messages, &error, heirs, round, telemetry).await;
                    if left == Left::Returned && !spared {
                        (heard, spared) = (self.started.elapsed(), true);
                        continue;
                    }
                    if left != Left::Inherited {
                        telemetry.not_forwarded("peer_away", messages.len());
                        self.gone(&error, telemetry);
                    }
                    break None;
                }
                tokio::time::sleep(RETRY).await;
            };
            match answer {
                Some(answer) => {
                    self.place(number, &batch, &answer);
                    self.settle(batch);
                }
                None => self.give_back(batch),
            }
            if self.state().condition == Condition::Ourselves {
                return;
            }
        }
    }

    /// Speaks to the peer beside a batch that it does not answer; whether it answers to that, which waits for no store.
    async fn beat(&self, node: &str, interest: &Mutex<Interest>, telemetry: &Telemetry) -> bool {
        let tell = self.to_tell(interest);
        let answer = self.link.forward(tell.batch(0, false, &[], &[])).await;
        answer.map(|answer| self.answered(&answer, node, &tell, telemetry)).is_ok()
    }

    /// What to send next: as much as a batch may have of what waits, nothing when it is time to say so.
    async fn next_batch(&self) -> Vec<Waiting> {
        let wait = match self.state().condition {
            Condition::Unknown => Duration::ZERO,
            Condition::Live | Condition::Leaving | Condition::Ourselves => BEAT,
            Condition::Away => PROBE,
        };
        let something = async {
            loop {
                {
                    let state = self.state();
                    if !state.waiting.is_empty() || state.spoken_to || state.news {
                        return;
                    }
                }
                self.more.notified().await;
            }
        };
        // Nothing came: it is time to say so.
        tokio::time::timeout(wait, something).await.ok();
        self.state().take_batch()
    }

    /// A peer that is not known is greeted, unless this is the answer to a greeting of its own.
    fn says_hello(&self) -> bool {
        let mut state = self.state();
        state.news = false;
        let answers = std::mem::take(&mut state.spoken_to);
        !answers && state.condition != Condition::Live
    }

    fn answered(&self, answer: &Answer, this_node: &str, told: &ToTell, telemetry: &Telemetry) {
        let Answer { node, boot, gapped, completed, .. } = answer;
        let interest = (!gapped).then_some((told.news.generation, told.news.to));
        let groups = told.groups_version.filter(|_| !gapped);
        let ourselves = node == this_node;
        let restarted = {
            let mut state = self.state();
            state.news |= *gapped;
            let before = std::mem::replace(&mut state.boot, *boot);
            (state.heard, state.away_since, state.has_left) = (self.started.elapsed(), None, false);
            if ourselves {
                state.condition = Condition::Ourselves;
            } else if state.condition != Condition::Live || state.name.as_ref() != Some(node) {
                telemetry.peer_live(node);
                (state.condition, state.name) = (Condition::Live, Some(node.clone()));
            }
            before != 0 && before != *boot
        };
        if restarted {
            self.unplaced.add(self.held().lost()); // its members of before are gone with it
        }
        self.held().completed(*completed);
        self.known.send_replace(Known { interest, groups, away: ourselves });
        if ourselves {
            self.settle_all();
        }
    }

    /// Its lease has ended for `error`, and it is `Leaving` or `Away`: nobody waits any more for what it knows.
    fn ends(&self, condition: Condition, error: &str, telemetry: &Telemetry) {
        {
            let mut state = self.state();
            if !matches!(state.condition, Condition::Away | Condition::Leaving) {
                telemetry.peer_away(state.name.as_deref().unwrap_or(NOT_HEARD), error);
            }
            state.condition = condition;
            state.away_since.get_or_insert(self.started.elapsed());
        }
        self.known.send_replace(Known { interest: None, groups: None, away: true });
    }

    /// Its lease has ended: nobody waits for it any more.
    fn gone(&self, error: &str, telemetry: &Telemetry) {
        self.ends(Condition::Away, error, telemetry);
        self.unplaced.add(self.held().lost());
        telemetry.not_forwarded("peer_away", self.settle_all());
    }
}
