//! A member that its group puts out while it is on its way into the next generation: librdkafka joins again by itself, under
//! another member id, and says to nobody that all it had was another's meanwhile.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use drover_backends::ports;
use drover_bus::{Bus, ConsumeError, GroupConfig, Outgoing, Polled, Position, Start, TransactError, Transaction};
use drover_bus_kafka::{KafkaBus, KafkaOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::broker::{bus, options, own, record, topic, values, within};
use crate::exactly_once::Copier;

/// `JoinGroup` among the keys of Kafka's protocol.
const JOIN_GROUP: [u8; 2] = 11_u16.to_be_bytes();
const RECORDS: usize = 10;

/// A way to a broker that lets no member in while it is closed.
struct Gate {
    is_closed: watch::Sender<bool>,
    /// Requests to join that have waited, and all that were answered.
    held: AtomicUsize,
    answered: AtomicUsize,
}

/// Correlation ids of requests to join that one connection has let through.
type Asked = Mutex<HashSet<[u8; 4]>>;

impl Gate {
    /// From `port` to the broker's `to`.
    async fn open(port: u16, to: u16) -> Arc<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("a port");
        let gate = Arc::new(Self {
            is_closed: watch::channel(false).0,
            held: AtomicUsize::new(0),
            answered: AtomicUsize::new(0),
        });
        let serving = gate.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(broker) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                let ((answers, requests), (from, back)) = (broker.into_split(), client.into_split());
                let (asked, gate) = (Arc::new(Asked::default()), serving.clone());
                let (asking, answering) = (asked.clone(), gate.clone());
                tokio::spawn(async move { gate.pass(from, requests, &asking).await });
                tokio::spawn(async move { answering.answer(answers, back, &asked).await });
            }
        });
        gate
    }

    /// Requests: key, version, correlation id, and so on.
    async fn pass(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: &Asked) {
        while let Some(frame) = frame(&mut from).await {
            if frame[4..].starts_with(&JOIN_GROUP) {
                let mut is_closed = self.is_closed.subscribe();
                if *is_closed.borrow() {
                    self.held.fetch_add(1, Ordering::Relaxed);
                }
                is_closed.wait_for(|is_closed| !is_closed).await.expect("the gate stays");
                asked.lock().expect("no panic").insert(frame[8..12].try_into().expect("four bytes"));
            }
            if to.write_all(&frame).await.is_err() {
                return;
            }
        }
    }

    /// Answers: correlation id, and so on.
    async fn answer(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, asked: &Asked) {
        while let Some(frame) = frame(&mut from).await {
            let joined = asked.lock().expect("no panic").remove(&frame[4..8]);
            if to.write_all(&frame).await.is_err() {
                return;
            }
            self.answered.fetch_add(usize::from(joined), Ordering::Relaxed);
        }
    }
}

/// The next frame with its length in front.
async fn frame(from: &mut OwnedReadHalf) -> Option<Vec<u8>> {
    let length = from.read_u32().await.ok()?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.resize(4 + usize::try_from(length).ok()?, 0);
    from.read_exact(&mut frame[4..]).await.ok()?;
    Some(frame)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_had_before_its_group_put_it_out_is_not_committed_after_it_has_come_back() {
    let [way, inner] = [ports::free(), ports::free()].map(|port| port.expect("a port"));
    let listeners = format!(
        "listeners=PLAINTEXT://127.0.0.1:PORT,GATE://127.0.0.1:{inner},CONTROLLER://127.0.0.1:CONTROLLER_AT\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:PORT,GATE://127.0.0.1:{way}\n\
         listener.security.protocol.map=PLAINTEXT:PLAINTEXT,GATE:PLAINTEXT,CONTROLLER:PLAINTEXT\n"
    );
    let Some(kafka) = own(listeners).await else { return };
    let gate = Gate::open(way, inner).await;
    let brokers = vec![format!("127.0.0.1:{way}")];
    let (behind, direct) = (KafkaBus::open(KafkaOptions { brokers, ..options(&kafka) }).expect("opens"), bus(&kafka));
    let (input, output) = (topic(&direct, "put-out-in", 1).await, topic(&direct, "put-out", 1).await);
    let batch: Vec<Outgoing> = (0..RECORDS).map(|number| record(&input, "k", &number.to_string())).collect();
    within(direct.append(batch).await.expect("is taken")).await.expect("is acknowledged");

    let config = GroupConfig {
        group: "put-out".to_owned(),
        member: "slow".to_owned(),
        topics: vec![input.clone()],
        start: Start::Earliest,
        session_timeout: Duration::from_secs(6),
        max_poll_interval: Duration::from_secs(6),
    };
    let mut transactor = behind.transactor("put-out-slow").await.expect("opens");
    let mut member = within(behind.join(config)).await.expect("joins");
    let mut read = Vec::new();
    within(async {
        while read.len() < RECORDS {
            if let Polled::Records(records) = member.poll(RECORDS, Duration::from_millis(100)).await.expect("goes well")
            {
                read.extend(records);
            }
        }
    })
    .await;
    let copies = read.iter().map(|stored| Outgoing::keyed(output.clone(), stored.record.clone())).collect::<Vec<_>>();
    let next = Position { offset: RECORDS as u64, at: read[0].position.at.clone() };
    let offsets = Some((member.membership(), vec![next]));

    // The other comes, this one is asked to join again, and what it says does not arrive: all is the other's.
    gate.is_closed.send_replace(true);
    let other =
        Copier { bus: direct.clone(), name: "other", group: "put-out".to_owned(), input, output: output.clone() };
    let (stop, alive) = watch::channel(true);
    let copying = tokio::spawn(Arc::new(other).run(alive));
    within(async {
        while values(&direct, &output, 0).await.len() < RECORDS {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert!(gate.held.load(Ordering::Relaxed) > 0, "the slow one was about to join");
    let answered = gate.answered.load(Ordering::Relaxed);
    gate.is_closed.send_replace(false);
    // It is told that nobody knows it, and comes back under another id.
    within(async {
        while gate.answered.load(Ordering::Relaxed) < answered + 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let late = within(async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let again = Transaction { records: copies.clone().into(), offsets: offsets.clone() };
            match transactor.commit(again).await {
                Err(TransactError::Aborted { .. }) => {}
                decided => return decided,
            }
        }
    })
    .await;
    assert_eq!(late, Err(TransactError::Rebalanced { group: "put-out".to_owned() }));
    let told = within(member.poll(1, Duration::from_secs(10))).await;
    assert!(matches!(told, Err(ConsumeError::Fenced { .. })), "{told:?}");
    stop.send(false).expect("it listens");
    within(copying).await.expect("no panic");
    let expected: Vec<String> = (0..RECORDS).map(|number| number.to_string()).collect();
    assert_eq!(values(&direct, &output, 0).await, expected, "each exactly once");
}
