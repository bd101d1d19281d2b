//! Promises about transactions.

use std::time::Duration;

use super::{BYTES, Fixture, Member, outgoing, record, settle, value, within};
use crate::{AppendError, GroupConfig, Polled, Position, TopicPartition, TransactError, Transaction, Transactor};

/// Transactions of a case that looks while they are made.
const TRANSACTIONS: usize = 20;

pub async fn a_transaction_shows_records_and_offsets_together(f: &Fixture) {
    let (input, output) = (f.topic("in", 1).await, f.topic("out", 2).await);
    f.put(&input, 0, "a").await;
    let mut member = f.join(f.member("g", "m", &[&input])).await;
    member.receive(1).await;
    let mut transactor = f.bus.transactor(&f.name("t")).await.expect("opens");
    let records = (0..2).map(|p| outgoing(&output, p, record(&p.to_string()))).collect();
    let offsets = Some((member.consumer.membership(), member.next()));
    let positions = within(transactor.commit(Transaction { records, offsets })).await.expect("commits");
    assert_eq!(positions.iter().map(|p| p.at.partition).collect::<Vec<_>>(), [0, 1]);
    for position in positions {
        let read = within(f.bus.read(&position.at, position.offset, BYTES, Duration::ZERO)).await.expect("reads");
        assert_eq!(value(&read[0]), position.at.partition.to_string());
    }
    assert_eq!(f.bus.committed(&f.name("g"), &input).await, Ok(member.next()));
}

pub async fn a_refused_transaction_shows_nothing(f: &Fixture) {
    let output = f.topic("out", 1).await;
    let mut transactor = f.bus.transactor(&f.name("t")).await.expect("opens");
    let unknown = f.name("unknown").into();
    let records = vec![outgoing(&output, 0, record("x")), outgoing(&unknown, 0, record("y"))];
    let refused = within(transactor.commit(Transaction { records: records.into(), offsets: None })).await;
    let unknown = AppendError::UnknownTopic { topic: unknown.to_string() };
    assert_eq!(refused, Err(TransactError::Refused(unknown)));
    assert_eq!(f.values(&output, 0).await, Vec::<String>::new());
    let records = vec![outgoing(&output, 0, record("x"))];
    within(transactor.commit(Transaction { records: records.into(), offsets: None }))
        .await
        .expect("the next one commits");
    assert_eq!(f.values(&output, 0).await, ["x"]);
}

pub async fn a_rebalance_aborts_the_transaction(f: &Fixture) {
    let (input, output) = (f.topic("in", 1).await, f.topic("out", 1).await);
    f.put(&input, 0, "a").await;
    let six = Duration::from_secs(6);
    let short =
        |member| GroupConfig { session_timeout: six, max_poll_interval: six, ..f.member("g", member, &[&input]) };
    let mut lost = f.join(short("lost")).await;
    lost.receive(1).await;
    let offsets = Some((lost.consumer.membership(), lost.next()));
    let mut heir = f.join(short("heir")).await;
    heir.receive(1).await;
    let mut transactor = f.bus.transactor(&f.name("t")).await.expect("opens");
    let records = vec![outgoing(&output, 0, record("lost"))];
    let refused = within(transactor.commit(Transaction { records: records.into(), offsets })).await;
    assert_eq!(refused, Err(TransactError::Rebalanced { group: f.name("g") }));
    assert_eq!(f.values(&output, 0).await, Vec::<String>::new());
    assert_eq!(f.bus.committed(&f.name("g"), &input).await, Ok(vec![]));
}

pub async fn an_older_holder_is_fenced(f: &Fixture) {
    let output = f.topic("out", 1).await;
    let transaction = |text| Transaction { records: vec![outgoing(&output, 0, record(text))].into(), offsets: None };
    let mut older = f.bus.transactor(&f.name("t")).await.expect("opens");
    within(older.commit(transaction("older"))).await.expect("commits");
    let mut newer = f.bus.transactor(&f.name("t")).await.expect("opens");
    let refused = within(older.commit(transaction("zombie"))).await;
    assert_eq!(refused, Err(TransactError::Fenced { transactional_id: f.name("t") }));
    within(newer.commit(transaction("newer"))).await.expect("commits");
    drop(newer);
    let refused = within(older.commit(transaction("zombie"))).await;
    assert!(refused.is_err(), "fenced stays fenced when the newer holder has gone");
    assert_eq!(f.values(&output, 0).await, ["older", "newer"]);
}

pub async fn a_new_holder_does_not_disturb_other_ids(f: &Fixture) {
    let output = f.topic("out", 1).await;
    let mut one = f.bus.transactor(&f.name("one")).await.expect("opens");
    let _two = f.bus.transactor(&f.name("two")).await.expect("opens");
    let records = vec![outgoing(&output, 0, record("one"))];
    within(one.commit(Transaction { records: records.into(), offsets: None })).await.expect("commits");
}

/// Whoever sees committed offsets and asks for settled bounds then misses nothing that was committed with them.
pub async fn what_is_committed_can_be_read_once_it_is_settled(f: &Fixture) {
    let (input, output) = (f.topic("in", 1).await, f.topic("out", 1).await);
    for i in 0..TRANSACTIONS {
        f.put(&input, 0, &i.to_string()).await;
    }
    let mut member = f.join(f.member("g", "m", &[&input])).await;
    member.receive(TRANSACTIONS).await;
    let mut transactor = f.bus.transactor(&f.name("t")).await.expect("opens");
    let work = async {
        for stored in &member.records {
            let records = vec![outgoing(&output, 0, stored.record.clone())];
            let next = super::behind(std::slice::from_ref(stored));
            let offsets = Some((member.consumer.membership(), next));
            within(transactor.commit(Transaction { records: records.into(), offsets })).await.expect("commits");
        }
    };
    let watch = async {
        let at = TopicPartition::new(output.clone(), 0);
        let (group, mut read) = (f.name("g"), 0);
        while read < TRANSACTIONS {
            let committed = f.bus.committed(&group, &input).await.expect("answers");
            let next = committed.first().map_or(0, |position| position.offset);
            let done = member.records.iter().filter(|stored| stored.position.offset < next).count();
            let bounds = within(f.bus.settled_bounds(&at)).await.expect("settles");
            read = f.between(&at, bounds, Duration::ZERO).await.len();
            assert!(read >= done, "{read} of {done} committed transactions can be read");
            // A bus that never waits would not let the work go on.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    futures::future::join(work, watch).await;
}

/// Two members take turns; one is dropped in the middle of its work. Every input shows exactly once in the output.
pub async fn consume_transform_produce_is_exactly_once_across_members(f: &Fixture) {
    let (input, output) = (f.topic("in", 2).await, f.topic("out", 1).await);
    for i in 0..60 {
        f.put(&input, i % 2, &i.to_string()).await;
    }
    let (mut a, mut b) = (f.join(f.member("g", "a", &[&input])).await, f.join(f.member("g", "b", &[&input])).await);
    settle(&mut [&mut a, &mut b], &[1, 1]).await;
    let mut of_a = f.bus.transactor(&f.name("a")).await.expect("opens");
    let mut of_b = f.bus.transactor(&f.name("b")).await.expect("opens");
    let start =
        |member: &Member| member.held.iter().map(|(at, o)| Position { at: at.clone(), offset: *o }).collect::<Vec<_>>();
    for (member, transactor) in [(&mut a, &mut of_a), (&mut b, &mut of_b)] {
        for position in start(member) {
            member.consumer.seek(position).await.expect("seeks");
        }
        transform(member, transactor.as_mut(), &output, 10).await;
    }
    let _unfinished = a.consumer.poll(5, Duration::from_secs(5)).await.expect("polls");
    drop(a);
    within(async {
        while f.values(&output, 0).await.len() < 60 {
            transform(&mut b, of_b.as_mut(), &output, 60).await;
        }
    })
    .await;
    let mut got: Vec<u32> = f.values(&output, 0).await.iter().map(|v| v.parse().expect("a number")).collect();
    got.sort_unstable();
    assert_eq!(got, (0..60).collect::<Vec<_>>());
    let mut next = f.bus.committed(&f.name("g"), &input).await.expect("answers");
    next.sort();
    assert_eq!(next, [0, 1].map(|p| Position { at: TopicPartition::new(input.clone(), p), offset: 30 }));
}

/// Copies at least `count` records, or as many as come, in transactions of up to five.
async fn transform(member: &mut Member, transactor: &mut dyn Transactor, output: &crate::Topic, count: usize) {
    let mut copied = 0;
    while copied < count {
        let records = match member.consumer.poll(5, Duration::from_millis(500)).await.expect("polls") {
            Polled::Records(records) => records,
            Polled::Assigned(_) | Polled::Revoked(_) => continue,
            Polled::Idle => return,
        };
        copied += records.len();
        let copies = records.iter().map(|r| outgoing(output, 0, r.record.clone())).collect();
        let offsets = Some((member.consumer.membership(), super::behind(&records)));
        within(transactor.commit(Transaction { records: copies, offsets })).await.expect("commits");
    }
}
