//! A client that goes from node to node, or stays where it is told to, and writes down when it was admitted and put out.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use drover_mqtt::client::{Client, ClientOptions, Event};
use drover_sim::{SeededRandom, VirtualClock};
use drover_types::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::NODES;
use crate::switchboard::Switchboard;

/// Longest visit of a client that roams, and longest time between two, milliseconds.
const VISIT_MS_MAX: u64 = 3_000;
const AWAY_MS_MAX: u64 = 1_500;
/// Between two tries of a client that is to stay.
const RETRY: Duration = Duration::from_millis(400);
/// A server that has not answered a CONNECT for this long is given up.
const SILENCE: Duration = Duration::from_secs(15);
/// Longer than any world lasts.
const EVER: Duration = Duration::from_secs(24 * 3_600);

/// What a client is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Visit one node after the other.
    Roam,
    /// Be connected to this node, again and again.
    Stay(usize),
    /// Be away.
    Leave,
}

/// What it has written down.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub connected: bool,
    /// When it was last told that it is connected.
    pub admitted: Option<Instant>,
    /// Whether its session was there then.
    pub session_present: bool,
    /// When it last found that it is not any more.
    pub out: Option<Instant>,
}

/// A client and its life.
pub struct Roamer {
    pub client_id: String,
    orders: watch::Sender<Order>,
    seen: Rc<RefCell<Seen>>,
    settled: Rc<Cell<bool>>,
    task: tokio::task::JoinHandle<()>,
}

impl Roamer {
    /// Starts a client that is away; it lives until it is dropped.
    pub fn start(options: ClientOptions, board: Switchboard, clock: Arc<VirtualClock>, random: SeededRandom) -> Self {
        let client_id = options.client_id.clone();
        let (orders, told) = watch::channel(Order::Leave);
        let (seen, settled) = (Rc::<RefCell<Seen>>::default(), Rc::<Cell<bool>>::default());
        let client = Client::new(options);
        let life = Life { client, board, clock, random, seen: seen.clone(), settled: settled.clone() };
        let task = tokio::task::spawn_local(life.live(told));
        Self { client_id, orders, seen, settled, task }
    }

    /// What it was doing ends, with its connection.
    pub fn order(&self, order: Order) {
        self.orders.send_replace(order);
    }

    /// When it is put out from now on it does not come back, unless it is ordered to.
    pub fn settle(&self) {
        self.settled.set(true);
    }

    pub fn seen(&self) -> Seen {
        *self.seen.borrow()
    }
}

impl Drop for Roamer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Life {
    client: Client,
    board: Switchboard,
    clock: Arc<VirtualClock>,
    random: SeededRandom,
    seen: Rc<RefCell<Seen>>,
    settled: Rc<Cell<bool>>,
}

impl Life {
    async fn live(mut self, mut orders: watch::Receiver<Order>) {
        loop {
            let order = *orders.borrow_and_update();
            let (node, visit, pause) = match order {
                Order::Roam => {
                    let pause = Duration::from_millis(self.random.below(AWAY_MS_MAX));
                    (self.random.below(NODES.len() as u64) as usize, self.visit_time(), pause)
                }
                Order::Stay(node) => (node, EVER, RETRY),
                Order::Leave => {
                    if orders.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
            };
            let admitted = self.seen.borrow().admitted;
            let ordered = tokio::select! {
                biased;
                changed = orders.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    true
                }
                () = self.visit(NODES[node], visit) => false,
            };
            self.client.lost();
            let was_there = self.put_out(admitted);
            if ordered {
                continue;
            }
            if was_there && self.settled.get() {
                if orders.changed().await.is_err() {
                    return;
                }
                continue;
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn visit_time(&self) -> Duration {
        Duration::from_millis(self.random.below(VISIT_MS_MAX))
    }

    /// It has no connection any more; whether it had one since it was last `admitted`.
    fn put_out(&self, admitted: Option<Instant>) -> bool {
        let mut seen = self.seen.borrow_mut();
        if seen.connected {
            (seen.connected, seen.out) = (false, Some(Instant::now()));
        }
        seen.admitted != admitted
    }

    /// One connection, for so long or until it breaks.
    async fn visit(&mut self, host: &str, visit: Duration) {
        if let Ok(stream) = self.board.open(host, "mqtt").await {
            self.connection(stream, visit).await;
        }
    }

    async fn connection(&mut self, mut stream: DuplexStream, visit: Duration) {
        let (began, mut out, mut input) = (Instant::now(), Vec::new(), Vec::new());
        self.client.open(self.clock.now_ms(), &mut out).expect("options that fit a packet");
        loop {
            if stream.write_all(&out).await.is_err() {
                return;
            }
            out.clear();
            let until = began + if self.seen.borrow().connected { visit } else { SILENCE };
            tokio::select! {
                biased;
                read = stream.read_buf(&mut input) => {
                    let Ok(1..) = read else { return };
                    let Some(taken) = self.receive(&input, &mut out) else { return };
                    input.drain(..taken);
                }
                () = tokio::time::sleep_until(until) => return self.leave(&mut stream).await,
            }
        }
    }

    /// Half of the time it says so.
    async fn leave(&mut self, stream: &mut DuplexStream) {
        let mut out = Vec::new();
        if self.random.chance(500) && self.client.disconnect(self.clock.now_ms(), &mut out).is_ok() {
            stream.write_all(&out).await.ok(); // it goes either way
        }
    }

    /// Bytes taken; `None` when the connection cannot go on.
    fn receive(&mut self, input: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let seen = &self.seen;
        let on_event = |event: Event<'_>| {
            if let Event::Connected { session_present, .. } = event {
                let admitted = Some(Instant::now());
                let before = *seen.borrow();
                *seen.borrow_mut() = Seen { connected: true, admitted, session_present, ..before };
            }
        };
        self.client.receive(input, self.clock.now_ms(), out, on_event).ok()
    }
}
