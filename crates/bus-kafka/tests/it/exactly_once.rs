//! Consume, transform, produce, while members come and go and zombies wake up.

use std::sync::Arc;
use std::time::Duration;

use drover_bus::{
    Bus, Consumer, GroupConfig, Outgoing, Polled, Position, Start, Topic, TransactError, Transaction, Transactor,
};
use drover_bus_kafka::KafkaBus;
use tokio::sync::watch;

use crate::broker::{bus, record, shared, topic, values, within};

const PARTITIONS: u32 = 6;
const RECORDS: usize = 3_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_in_another_process_is_fenced_and_leaves_nothing() {
    let Some(kafka) = shared().await else { return };
    let (old, new) = (bus(kafka), bus(kafka));
    let output = topic(&new, "zombie", 1).await;
    let of = |value: &str| Transaction { records: vec![record(&output, "k", value)].into(), offsets: None };
    let mut zombie = old.transactor("zombie").await.expect("opens");
    within(zombie.commit(of("before"))).await.expect("commits");
    let mut heir = new.transactor("zombie").await.expect("opens");
    for _ in 0..2 {
        let refused = within(zombie.commit(of("zombie"))).await;
        assert_eq!(refused, Err(TransactError::Fenced { transactional_id: "zombie".to_owned() }));
    }
    within(heir.commit(of("after"))).await.expect("commits");
    assert_eq!(values(&new, &output, 0).await, ["before", "after"]);
}

/// Copies records from one topic to another in transactions, for as long as `alive` says, as the rules do it.
pub struct Copier {
    pub bus: KafkaBus,
    pub name: &'static str,
    pub group: String,
    pub input: Topic,
    pub output: Topic,
}

impl Copier {
    pub async fn run(self: Arc<Self>, mut alive: watch::Receiver<bool>) {
        while *alive.borrow() {
            tokio::select! {
                _ = alive.wait_for(|alive| !alive) => return,
                () = self.session() => {}
            }
        }
    }

    /// One membership; ends when it is fenced, or when the fate of a transaction is unknown.
    async fn session(&self) {
        let transactor = self.bus.transactor(&format!("{}-{}", self.group, self.name)).await;
        let Ok(mut transactor) = transactor else { return };
        let config = GroupConfig {
            group: self.group.clone(),
            member: self.name.to_owned(),
            topics: vec![self.input.clone()],
            start: Start::Earliest,
            session_timeout: Duration::from_secs(6),
            max_poll_interval: Duration::from_secs(6),
        };
        let Ok(mut consumer) = self.bus.join(config).await else { return };
        while self.step(&mut *consumer, &mut *transactor).await {}
    }

    async fn step(&self, consumer: &mut dyn Consumer, transactor: &mut dyn Transactor) -> bool {
        let records = match consumer.poll(20, Duration::from_millis(100)).await {
            Ok(Polled::Records(records)) => records,
            Ok(Polled::Assigned(_) | Polled::Revoked(_) | Polled::Idle) => return true,
            Err(_) => return false,
        };
        let copies: Vec<Outgoing> =
            records.iter().map(|stored| Outgoing::keyed(self.output.clone(), stored.record.clone())).collect();
        let mut next: Vec<Position> = Vec::new();
        for stored in &records {
            next.retain(|position| position.at != stored.position.at);
            next.push(Position { at: stored.position.at.clone(), offset: stored.position.offset + 1 });
        }
        loop {
            let offsets = Some((consumer.membership(), next.clone()));
            match transactor.commit(Transaction { records: copies.clone().into(), offsets }).await {
                Ok(_) => return true,
                Err(TransactError::Aborted { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(_) => return false,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_is_copied_once_while_members_leave_and_join_under_load() {
    let Some(kafka) = shared().await else { return };
    let feeder = bus(kafka);
    let (input, output) = (topic(&feeder, "load-in", PARTITIONS).await, topic(&feeder, "load-out", 1).await);
    let copier = |name| {
        let (group, input, output) = (format!("load-{}", std::process::id()), input.clone(), output.clone());
        Arc::new(Copier { bus: bus(kafka), name, group, input, output })
    };
    let (stays, leaves) = (copier("stays"), copier("leaves"));
    let (stop, alive) = watch::channel(true);
    let staying = tokio::spawn(stays.run(alive));
    let feeding = tokio::spawn(async move {
        for number in 0..RECORDS {
            let value = number.to_string();
            drop(feeder.append(vec![record(&input, &value, &value)]).await.expect("is taken").await);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        feeder
    });
    for _ in 0..3 {
        let (end, alive) = watch::channel(true);
        let leaving = tokio::spawn(leaves.clone().run(alive));
        tokio::time::sleep(Duration::from_secs(3)).await;
        end.send(false).expect("it listens");
        within(leaving).await.expect("no panic");
    }
    let feeder = within(feeding).await.expect("no panic");
    within(async {
        while values(&feeder, &output, 0).await.len() < RECORDS {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    })
    .await;
    stop.send(false).expect("it listens");
    within(staying).await.expect("no panic");
    // Nobody copies any more: what came twice is there.
    let mut copied = values(&feeder, &output, 0).await;
    copied.sort_by_key(|value| value.parse::<usize>().expect("a number"));
    let expected: Vec<String> = (0..RECORDS).map(|number| number.to_string()).collect();
    assert_eq!(copied, expected, "each exactly once");
}
