//! Writes a batch outside of the engine's transactions: at least once.

use drover_bus::Bus;
use drover_types::Clock;

use crate::domain::Batch;

/// Returns when all of it is durable; what the log refuses becomes a dead letter. The error: why it cannot be written now.
pub async fn append(bus: &dyn Bus, clock: &dyn Clock, batch: &mut Batch) -> Result<(), String> {
    loop {
        let records = batch.records(clock.now_ms());
        if records.is_empty() {
            return Ok(());
        }
        match bus.append(records.to_vec()).await {
            Ok(receipt) => return receipt.await.map(drop).map_err(|error| error.to_string()),
            Err(refusal) if batch.divert(&refusal) => {}
            Err(refusal) => return Err(refusal.to_string()),
        }
    }
}
