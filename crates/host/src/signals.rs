//! SIGTERM and SIGINT ask the process to stop; the second one does not ask again.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Shutdown;

/// Exit code after a second signal.
const IMPATIENT: i32 = 1;

/// From now on the first signal cancels the answer, and the second ends the process at once.
pub fn shutdown_on_signal() -> io::Result<Shutdown> {
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = Shutdown::new();
    let asked = shutdown.clone();
    tokio::spawn(async move {
        let name = next(&mut signals).await;
        tracing::info!(signal = name, "stopping; once more ends the process at once");
        asked.cancel();
        let name = next(&mut signals).await;
        tracing::warn!(signal = name, "ending at once");
        std::process::exit(IMPATIENT);
    });
    Ok(shutdown)
}

async fn next((terminate, interrupt): &mut (Signal, Signal)) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
