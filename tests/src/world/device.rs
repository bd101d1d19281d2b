//! A device that numbers its messages, keeps what is not acknowledged, and sends it again after a lost connection.

use std::cell::RefCell;
use std::collections::HashMap;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use drover_load::ledger::Ledger;
use drover_mqtt::client::{Client, ClientOptions, Event, Phase};
use drover_mqtt::{PacketId, Publish, Version};
use drover_sim::{SeededRandom, VirtualClock};
use drover_types::{Clock, Qos};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;

use super::{INGRESS, Scale};
use crate::switchboard::Switchboard;

/// Unacknowledged messages at a time.
const WINDOW: u16 = 5;
/// Longest wait before a new connection, milliseconds.
const RECONNECT_MS_MAX: u64 = 2_000;
/// A server that owes an answer and has not said anything for this long is given up.
const SILENCE: Duration = Duration::from_secs(20);

/// A device and its life.
pub struct Device {
    name: String,
    /// Told to drop its connection.
    cut: Rc<Notify>,
    task: tokio::task::JoinHandle<()>,
}

impl Device {
    /// Starts a device that sends as many messages as `scale` says, at its pace.
    pub fn start(
        number: usize,
        scale: Scale,
        board: Switchboard,
        ledger: Rc<RefCell<Ledger>>,
        clock: Arc<VirtualClock>,
        random: SeededRandom,
    ) -> Self {
        let (name, cut) = (format!("dev-{number}"), Rc::new(Notify::new()));
        let version = if number.is_multiple_of(2) { Version::V311 } else { Version::V5 };
        let options = ClientOptions {
            clean_start: false,
            session_expiry_s: 3_600,
            window: NonZeroU16::new(WINDOW).expect("not zero"),
            ..ClientOptions::new(version, &name)
        };
        let life = Life {
            name: name.clone(),
            qos: if number % 4 < 2 { Qos::AtLeastOnce } else { Qos::ExactlyOnce },
            client: Client::new(options),
            unsent: scale.messages,
            pause_ms_max: scale.pause_ms_max,
            numbers: HashMap::new(),
            ledger,
            clock,
            random,
        };
        let task = tokio::task::spawn_local(life.live(board, cut.clone()));
        Self { name, cut, task }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether everything it had to send is acknowledged.
    pub fn is_done(&self) -> bool {
        self.task.is_finished()
    }

    /// Its connection is lost, with whatever is under way on it.
    pub fn cut(&self) {
        self.cut.notify_one();
    }
}

struct Life {
    name: String,
    qos: Qos,
    client: Client,
    unsent: usize,
    pause_ms_max: u64,
    /// Numbers of the messages in flight.
    numbers: HashMap<PacketId, u64>,
    ledger: Rc<RefCell<Ledger>>,
    clock: Arc<VirtualClock>,
    random: SeededRandom,
}

impl Life {
    async fn live(mut self, board: Switchboard, cut: Rc<Notify>) {
        while self.unsent > 0 || self.client.in_flight() > 0 {
            if let Ok(stream) = board.open(INGRESS, "mqtt").await {
                tokio::select! {
                    biased;
                    () = cut.notified() => {}
                    () = self.connection(stream) => {}
                }
                self.client.lost();
            }
            tokio::time::sleep(Duration::from_millis(self.random.below(RECONNECT_MS_MAX))).await;
        }
    }

    /// One connection, until it breaks or all is acknowledged.
    async fn connection(&mut self, mut stream: DuplexStream) {
        let (mut out, mut input) = (Vec::new(), Vec::new());
        self.client.open(self.clock.now_ms(), &mut out).expect("options that fit a packet");
        let mut pause = self.pause();
        loop {
            if stream.write_all(&out).await.is_err() || (self.unsent == 0 && self.client.in_flight() == 0) {
                return;
            }
            out.clear();
            let wants = self.unsent > 0 && self.client.capacity() > 0;
            let is_quiet = self.client.phase() == Phase::Connected && self.client.in_flight() == 0;
            let silence = if is_quiet { Duration::MAX } else { SILENCE };
            tokio::select! {
                biased;
                read = tokio::time::timeout(silence, stream.read_buf(&mut input)) => {
                    let Ok(Ok(1..)) = read else { return };
                    let Some(taken) = self.receive(&input, &mut out) else { return };
                    input.drain(..taken);
                }
                () = tokio::time::sleep_until(pause), if wants => {
                    self.publish(&mut out);
                    pause = self.pause();
                }
            }
        }
    }

    fn pause(&self) -> tokio::time::Instant {
        tokio::time::Instant::now() + Duration::from_millis(self.random.below(self.pause_ms_max))
    }

    fn publish(&mut self, out: &mut Vec<u8>) {
        let number = self.ledger.borrow_mut().sent(&self.name);
        let (topic, payload) = (format!("sensors/{}", self.name), format!("{{\"n\":{number}}}"));
        let message = Publish { qos: self.qos, ..Publish::new(&topic, payload.as_bytes()) };
        let sent = self.client.publish(&message, self.clock.now_ms(), out).expect("there is capacity");
        self.numbers.insert(sent.expect("it has a packet id"), number);
        self.unsent -= 1;
    }

    /// Bytes taken; `None` when the connection cannot go on.
    fn receive(&mut self, input: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let (numbers, ledger, name) = (&mut self.numbers, &self.ledger, &self.name);
        let on_event = |event: Event<'_>| {
            if let Event::Acknowledged { packet_id, reason } = event {
                assert!(!reason.is_error(), "{name}: the policy allows everything, refused with {reason}");
                let number = numbers.remove(&packet_id).expect("acknowledged once");
                ledger.borrow_mut().acknowledged(name, number);
            }
        };
        self.client.receive(input, self.clock.now_ms(), out, on_event).ok()
    }
}
