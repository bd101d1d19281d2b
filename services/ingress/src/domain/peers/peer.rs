//! One other node: a bounded queue to it, one batch under way at a time, and whether it is there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_types::Qos;
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::Instant;

use super::held::{Done, Held, Unplaced};
use super::unplaced::Queue;
use crate::domain::interest::{Interest, News};
use crate::domain::message::Message;
use crate::domain::shares::{Group, Refused, Share};
use crate::ports::{Answer, Batch, PeerLink};
use crate::telemetry::Telemetry;

/// A peer that has not answered for this long, to a batch or beside it, is away: nobody waits for it, and messages pass
/// it by.
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// It has not answered yet; until a lease is over it may be there.
    Unknown,
    Live,
    Away,
    /// It is this node.
    Ourselves,
}

struct Waiting {
    message: Arc<Message>,
    shares: Vec<Share>,
    kib: u32,
    /// Told, by being dropped, when this message, and so all before it, need not be waited for.
    done: Vec<Done>,
}

/// A message for a peer.
pub(super) struct Offered {
    pub message: Arc<Message>,
    /// For which shared subscriptions a member is to be given it.
    pub shares: Vec<Share>,
    /// Who waits for it besides.
    pub done: Vec<Done>,
}

/// What is wanted here, and what the peer will know when it has been told.
struct ToTell {
    news: News,
    groups: Option<Vec<Group>>,
    groups_version: u64,
}

impl ToTell {
    fn batch<'a>(
        &'a self,
        sequence: u64,
        hello: bool,
        messages: &'a [Arc<Message>],
        shares: &'a [Vec<Share>],
    ) -> Batch<'a> {
        Batch { sequence, hello, messages, shares, news: &self.news, groups: self.groups.as_deref() }
    }
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
        };
        let (state, room) = (Mutex::new(state), Semaphore::new(QUEUE_KIB_MAX));
        let (known, held) = (watch::Sender::new(Known::default()), Mutex::default());
        Self { link, state, room, more: Notify::new(), known, held, unplaced, started }
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

    pub(super) fn may_be_live(&self) -> bool {
        matches!(self.state().condition, Condition::Live | Condition::Unknown)
    }

    pub(super) fn is_named(&self, name: &str) -> bool {
        self.state().name.as_deref() == Some(name)
    }

    /// Messages in the queue.
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting.len()
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

    /// Puts messages into the queue in order. The answer is resolved when those of QoS 1 are with the peer or it is away,
    /// and is absent where nothing is to be waited for.
    pub(super) async fn offer(&self, offered: Vec<Offered>, telemetry: &Telemetry) -> Option<oneshot::Receiver<()>> {
        let last = offered.iter().rposition(|offered| offered.message.telemetry.qos > Qos::AtMostOnce);
        let (tell, confirmed) = oneshot::channel();
        let tell: Done = Arc::new(tell);
        let mut offered = offered.into_iter().enumerate();
        while let Some((at, Offered { message, shares, mut done })) = offered.next() {
            // What is for a member is waited for by itself: it may be given to somebody else later.
            let is_waited_for = message.telemetry.qos > Qos::AtMostOnce && !shares.is_empty();
            done.extend((is_waited_for || Some(at) == last).then(|| tell.clone()));
            let kib = u32::try_from(message.bytes() / 1_024 + 1).unwrap_or(u32::MAX).min(QUEUE_KIB_MAX as u32);
            let permits = match message.telemetry.qos {
                Qos::AtMostOnce => self.room.try_acquire_many(kib).ok(),
                Qos::AtLeastOnce | Qos::ExactlyOnce => self.room.acquire_many(kib).await.ok(),
            };
            let Some(permits) = permits else {
                telemetry.not_forwarded("queue_full", 1);
                continue;
            };
            let mut state = self.state();
            let condition = state.condition;
            match condition {
                Condition::Ourselves => return None,
                Condition::Away => {
                    drop(state);
                    telemetry.not_forwarded("peer_away", offered.len() + 1);
                    self.unplace(&message, shares, &done, None);
                    for (_, Offered { message, shares, mut done }) in offered {
                        done.push(tell.clone());
                        self.unplace(&message, shares, &done, None);
                    }
                    break;
                }
                Condition::Unknown | Condition::Live => {}
            }
            permits.forget();
            state.waiting.push_back(Waiting { message, shares, kib, done });
            self.more.notify_one();
        }
        (Arc::strong_count(&tell) > 1).then_some(confirmed)
    }

    /// Speaks to the peer as long as this process runs, and tells it what the subscribers of this node want.
    pub(super) async fn run(&self, node: &str, interest: &Mutex<Interest>, telemetry: &Telemetry) {
        let (mut sequence, mut heard) = (0, self.started.elapsed());
        loop {
            let batch = self.next_batch().await;
            let hello = self.says_hello();
            let messages: Vec<_> = batch.iter().map(|waiting| waiting.message.clone()).collect();
            let shares: Vec<_> = batch.iter().map(|waiting| waiting.shares.clone()).collect();
            sequence += u64::from(!messages.is_empty());
            let number = if messages.is_empty() { 0 } else { sequence };
            let taken = loop {
                let tell = self.to_tell(interest);
                let batch = tell.batch(number, hello, &messages, &shares);
                let error = match tokio::time::timeout(CALL, self.link.forward(batch)).await {
                    Ok(Ok(answer)) => {
                        heard = self.started.elapsed();
                        let refused = answer.refused.clone();
                        self.answered(answer, node, &tell, telemetry);
                        break Some(refused);
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
                    telemetry.not_forwarded("peer_away", messages.len());
                    self.gone(&error, telemetry);
                    break None;
                }
                tokio::time::sleep(RETRY).await;
            };
            let is_taken = |message, share| {
                let refused = |refused: &Vec<Refused>| refused.contains(&Refused { message, share });
                taken.as_ref().is_some_and(|taken| !refused(taken))
            };
            self.place(number, &batch, is_taken);
            self.settle(batch);
            if self.state().condition == Condition::Ourselves {
                return;
            }
        }
    }

    /// What the peer has to be told of what is wanted.
    fn to_tell(&self, interest: &Mutex<Interest>) -> ToTell {
        let Known { interest: known, groups, .. } = *self.known.borrow();
        let interest = interest.lock().unwrap_or_else(PoisonError::into_inner);
        let memberships = &interest.memberships;
        ToTell { news: interest.news(known), groups: memberships.news(groups), groups_version: memberships.version() }
    }

    /// What members of the peer were given is held until they have done with it; for the rest others are found, and
    /// whoever waits for the batch waits for that as well.
    fn place(&self, sequence: u64, batch: &[Waiting], is_taken: impl Fn(usize, usize) -> bool) {
        if batch.iter().all(|waiting| waiting.shares.is_empty()) {
            return;
        }
        let done: Vec<Done> = batch.iter().flat_map(|waiting| waiting.done.iter().cloned()).collect();
        let name = self.name();
        for (message, Waiting { message: shared, shares, .. }) in batch.iter().enumerate() {
            let (taken, left): (Vec<_>, Vec<_>) =
                shares.iter().cloned().enumerate().partition(|(share, _)| is_taken(message, *share));
            if shared.telemetry.qos > Qos::AtMostOnce {
                let mut held = self.held();
                taken.into_iter().for_each(|(_, share)| held.hold(sequence, shared.clone(), share.filter));
            }
            self.unplace(shared, left.into_iter().map(|(_, share)| share).collect(), &done, name.as_deref());
        }
    }

    /// Has somebody else found for these, if there is one; this peer, `tried`, is not asked again.
    fn unplace(&self, message: &Arc<Message>, shares: Vec<Share>, done: &[Done], tried: Option<&str>) {
        self.unplaced.add(shares.into_iter().map(|mut share| {
            share.tried.extend(tried.map(Arc::<str>::from));
            Unplaced { message: message.clone(), share, done: done.to_vec() }
        }));
    }

    /// Speaks to the peer beside a batch that it does not answer; whether it answers to that, which waits for no store.
    async fn beat(&self, node: &str, interest: &Mutex<Interest>, telemetry: &Telemetry) -> bool {
        let tell = self.to_tell(interest);
        let answer = self.link.forward(tell.batch(0, false, &[], &[])).await;
        answer.map(|answer| self.answered(answer, node, &tell, telemetry)).is_ok()
    }

    /// What to send next: as much as a batch may have of what waits, nothing when it is time to say so.
    async fn next_batch(&self) -> Vec<Waiting> {
        let wait = match self.state().condition {
            Condition::Unknown => Duration::ZERO,
            Condition::Live | Condition::Ourselves => BEAT,
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

    fn answered(&self, answer: Answer, this_node: &str, told: &ToTell, telemetry: &Telemetry) {
        let Answer { node, boot, gapped, completed, .. } = answer;
        let interest = (!gapped).then_some((told.news.generation, told.news.to));
        let groups = (!gapped).then_some(told.groups_version);
        let ourselves = node == this_node;
        let restarted = {
            let mut state = self.state();
            state.news |= gapped;
            let before = std::mem::replace(&mut state.boot, boot);
            if ourselves {
                state.condition = Condition::Ourselves;
            } else if state.condition != Condition::Live || state.name.as_deref() != Some(&node) {
                telemetry.peer_live(&node);
                (state.condition, state.name) = (Condition::Live, Some(node));
            }
            before != 0 && before != boot
        };
        if restarted {
            self.unplaced.add(self.held().lost()); // its members of before are gone with it
        }
        self.held().completed(completed);
        self.known.send_replace(Known { interest, groups, away: ourselves });
        if ourselves {
            self.settle_all();
        }
    }

    /// Its lease has ended: nobody waits for it any more.
    fn gone(&self, error: &str, telemetry: &Telemetry) {
        {
            let mut state = self.state();
            if state.condition != Condition::Away {
                telemetry.peer_away(state.name.as_deref().unwrap_or("not heard of yet"), error);
            }
            state.condition = Condition::Away;
        }
        self.known.send_replace(Known { interest: None, groups: None, away: true });
        self.unplaced.add(self.held().lost());
        telemetry.not_forwarded("peer_away", self.settle_all());
    }

    /// Gives up what waits in the queue; how many messages that were.
    fn settle_all(&self) -> usize {
        let left: Vec<_> = self.state().waiting.drain(..).collect();
        let count = left.len();
        self.place(0, &left, |_, _| false);
        self.settle(left);
        count
    }

    /// Nobody waits for these any more, and their room is free.
    fn settle(&self, batch: Vec<Waiting>) {
        for Waiting { kib, done, .. } in batch {
            self.room.add_permits(kib as usize);
            drop(done);
        }
    }
}

impl State {
    fn take_batch(&mut self) -> Vec<Waiting> {
        let mut bytes = 0;
        let fits = |waiting: &&Waiting| {
            bytes += waiting.message.bytes();
            bytes <= BATCH_BYTES_MAX
        };
        let count = self.waiting.iter().take(BATCH_MESSAGES_MAX).take_while(fits).count();
        let count = count.max(1).min(self.waiting.len());
        self.waiting.drain(..count).collect()
    }
}
