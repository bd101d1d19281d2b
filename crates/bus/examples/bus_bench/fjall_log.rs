//! The log as it would be on fjall: one row a record, the key is partition and offset, one synced batch for all that is
//! queued. Only what the comparison needs; the group commit is the same as the embedded log's.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use drover_bus::{Outgoing, Partition, partition_of};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use tokio::sync::oneshot;

use crate::PARTITIONS;

/// Batches that may wait for the writer.
const QUEUE_MAX: usize = 1_024;
/// Most batches made durable by one commit; bounds its memory as the embedded log's queue does.
const ROUND_MAX: usize = 64;
/// Memory of the block cache and of the write buffer, bytes: as much as the embedded log's tail each.
const MEMORY_BYTES: u64 = 16 * 1024 * 1024;
/// fjall's journal, bytes.
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;

type Queued = (Vec<Outgoing>, oneshot::Sender<()>);

pub struct FjallLog {
    rows: Keyspace,
    queue: Option<SyncSender<Queued>>,
    writer: Option<JoinHandle<()>>,
    _database: Database,
}

impl FjallLog {
    pub fn open(directory: &Path) -> Self {
        let database = Database::builder(directory)
            .cache_size(MEMORY_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()
            .expect("opens");
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMORY_BYTES);
        let rows = database.keyspace("log", options).expect("opens");
        let (queue, queued) = sync_channel(QUEUE_MAX);
        let of_writer = (database.clone(), rows.clone());
        let writer = std::thread::spawn(move || write(&of_writer.0, &of_writer.1, &queued));
        Self { rows, queue: Some(queue), writer: Some(writer), _database: database }
    }

    /// Queues a batch; the answer comes when it is durable.
    pub fn append(&self, batch: Vec<Outgoing>) -> oneshot::Receiver<()> {
        let (answer, answered) = oneshot::channel();
        let queue = self.queue.as_ref().expect("is open");
        tokio::task::block_in_place(|| queue.send((batch, answer))).expect("the writer runs");
        answered
    }

    /// Reads everything, partition by partition; the number of records.
    pub fn read_all(&self) -> usize {
        let read = |partition: Partition| {
            let rows = self.rows.prefix(partition.to_be_bytes());
            rows.map(|row| row.into_inner().expect("reads")).filter(|(_, value)| !value.is_empty()).count()
        };
        (0..PARTITIONS).map(read).sum()
    }
}

impl Drop for FjallLog {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            writer.join().expect("does not panic");
        }
    }
}

fn write(database: &Database, rows: &Keyspace, queued: &Receiver<Queued>) {
    let mut next: HashMap<Partition, u64> = HashMap::new();
    while let Ok(first) = queued.recv() {
        let round: Vec<Queued> = std::iter::once(first).chain(queued.try_iter().take(ROUND_MAX - 1)).collect();
        let mut batch = database.batch().durability(Some(PersistMode::SyncAll));
        for outgoing in round.iter().flat_map(|(records, _)| records) {
            let key = outgoing.record.key.as_deref().unwrap_or_default();
            let partition = partition_of(key, PARTITIONS);
            let offset = next.entry(partition).or_default();
            let place = [&partition.to_be_bytes()[..], &offset.to_be_bytes()[..]].concat();
            *offset += 1;
            let mut value = outgoing.record.timestamp_ms.to_le_bytes().to_vec();
            value.extend_from_slice(&(key.len() as u32).to_le_bytes());
            value.extend_from_slice(key);
            value.extend_from_slice(outgoing.record.value.as_deref().unwrap_or_default());
            batch.insert(rows, place, value);
        }
        batch.commit().expect("commits");
        // Whoever does not wait any more does not need the answer.
        round.into_iter().for_each(|(_, answer)| answer.send(()).unwrap_or_default());
    }
}
