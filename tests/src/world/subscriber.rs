//! A subscriber whose session outlives its connections: it writes down what it gets, and whether its session was there.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use drover_mqtt::client::{Client, ClientOptions, Event};
use drover_mqtt::{Publish, Subscription, SubscriptionList, SubscriptionOptions, Version};
use drover_sim::{SeededRandom, VirtualClock};
use drover_types::{Clock, Qos};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;

use super::INGRESS;
use crate::switchboard::Switchboard;

/// What it wants: all that devices send.
const FILTER: &str = "sensors/+";
/// Longest time that it stays away, milliseconds.
const AWAY_MS_MAX: u64 = 5_000;
/// A server that has not said anything for this long is given up.
const SILENCE: Duration = Duration::from_secs(20);

/// What it has written down.
#[derive(Default)]
pub struct Heard {
    /// Device and number of each message, in the order of their arrival.
    pub messages: Vec<(String, u64)>,
    /// Whether its subscription was ever acknowledged.
    pub subscribed: bool,
    /// How often its session was gone after that.
    pub forgotten: usize,
}

/// A subscriber and its life.
pub struct Subscriber {
    pub heard: Rc<RefCell<Heard>>,
    cut: Rc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Subscriber {
    /// Starts it; it lives until it is dropped.
    pub fn start(board: Switchboard, clock: Arc<VirtualClock>, random: SeededRandom) -> Self {
        let (heard, cut) = (Rc::<RefCell<Heard>>::default(), Rc::new(Notify::new()));
        let options = ClientOptions {
            clean_start: false,
            session_expiry_s: 3_600,
            ..ClientOptions::new(Version::V5, "subscriber")
        };
        let life = Life { client: Client::new(options), heard: heard.clone(), clock, random };
        let task = tokio::task::spawn_local(life.live(board, cut.clone()));
        Self { heard, cut, task }
    }

    /// Its connection is lost, and it stays away for a while.
    pub fn cut(&self) {
        self.cut.notify_one();
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Life {
    client: Client,
    heard: Rc<RefCell<Heard>>,
    clock: Arc<VirtualClock>,
    random: SeededRandom,
}

impl Life {
    async fn live(mut self, board: Switchboard, cut: Rc<Notify>) {
        loop {
            if let Ok(stream) = board.open(INGRESS, "mqtt").await {
                tokio::select! {
                    biased;
                    () = cut.notified() => {}
                    () = self.connection(stream) => {}
                }
                self.client.lost();
            }
            tokio::time::sleep(Duration::from_millis(self.random.below(AWAY_MS_MAX))).await;
        }
    }

    /// One connection, until it breaks.
    async fn connection(&mut self, mut stream: DuplexStream) {
        let (mut out, mut input) = (Vec::new(), Vec::new());
        self.client.open(self.clock.now_ms(), &mut out).expect("options that fit a packet");
        while stream.write_all(&out).await.is_ok() {
            out.clear();
            let read = tokio::time::timeout(SILENCE, stream.read_buf(&mut input)).await;
            let Ok(Ok(1..)) = read else { return };
            let Some(taken) = self.receive(&input, &mut out) else { return };
            input.drain(..taken);
        }
    }

    /// Bytes taken; `None` when the connection cannot go on.
    fn receive(&mut self, input: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let (heard, now_ms) = (&self.heard, self.clock.now_ms());
        let mut subscribes = false;
        let on_event = |event: Event<'_>| {
            let mut heard = heard.borrow_mut();
            match event {
                Event::Connected { session_present, .. } => {
                    heard.forgotten += usize::from(heard.subscribed && !session_present);
                    subscribes = !session_present || !heard.subscribed;
                }
                Event::Subscribed { .. } => heard.subscribed = true,
                Event::Message(message) => heard.messages.push(read(&message)),
                Event::Acknowledged { .. } | Event::Unsubscribed { .. } | Event::Pong | Event::Disconnected { .. } => {}
            }
        };
        let taken = self.client.receive(input, now_ms, out, on_event).ok()?;
        if subscribes {
            let mut list = SubscriptionList::default();
            let options = SubscriptionOptions::new(Qos::AtLeastOnce);
            list.push(Subscription { filter: FILTER, options }).expect("a short filter");
            self.client.subscribe(list.as_subscriptions(), now_ms, out).ok()?;
        }
        Some(taken)
    }
}

/// Device and number of a message.
fn read(message: &Publish<'_>) -> (String, u64) {
    let device = message.topic.trim_start_matches("sensors/").to_owned();
    let payload: serde_json::Value = serde_json::from_slice(message.payload).expect("what a device has sent");
    (device, payload["n"].as_u64().expect("a number"))
}
