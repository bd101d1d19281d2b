//! Which process is at which host now, and the wires between them: cut with the life at either end.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use drover_host::{Network, Wires};
use futures::StreamExt;
use tokio::io::{DuplexStream, copy_bidirectional, duplex};
use tokio_util::sync::CancellationToken;
use tonic::transport::Uri;

/// Bytes under way on a wire, in each direction.
const WIRE_BYTES: usize = 64 * 1024;

/// All hosts; clones are the same.
#[derive(Clone, Default)]
pub struct Switchboard(Arc<Mutex<BTreeMap<String, Process>>>);

/// One life of a process.
#[derive(Clone)]
struct Process {
    network: Network,
    /// The service it answers as.
    service: &'static str,
    severed: CancellationToken,
}

impl Process {
    /// A pipe to what it listens to as `name`. The error: its life ends before there is room among those that wait to be
    /// accepted, or it listens no more. A kernel resets these; without that they would wait, and keep its network, for ever.
    async fn open(&self, name: &str) -> io::Result<DuplexStream> {
        self.severed.run_until_cancelled(self.network.open(name)).await.unwrap_or_else(|| Err(refused()))
    }
}

impl Switchboard {
    /// From now on a process is at `host`, until `severed` or until another one is.
    pub fn plug(&self, host: &str, network: Network, service: &'static str, severed: CancellationToken) {
        self.processes().insert(host.to_owned(), Process { network, service, severed });
    }

    /// The wires of the life that ends with `severed`.
    pub fn wires(&self, severed: CancellationToken) -> Arc<dyn Wires> {
        Arc::new(Line { board: self.clone(), severed })
    }

    /// Carries the calls that are made to `service` within `near` to whoever is at `host` then.
    pub fn carry(&self, near: &Network, service: &str, host: &'static str) {
        let (board, mut calls) = (self.clone(), near.listen(service));
        tokio::spawn(async move {
            while let Some(Ok(call)) = calls.next().await {
                // A call to nobody is dropped: it is refused.
                if let Ok(there) = board.there(host)
                    && let Ok(answering) = there.open(there.service).await
                {
                    tokio::spawn(connect(call, answering, there.severed.cancelled_owned()));
                }
            }
        });
    }

    /// A pipe to what the process at `host` listens to as `name`; refused where that dies before it has room for one more.
    pub async fn open(&self, host: &str, name: &str) -> io::Result<DuplexStream> {
        self.there(host)?.open(name).await
    }

    fn there(&self, host: &str) -> io::Result<Process> {
        let there = self.processes().get(host).filter(|process| !process.severed.is_cancelled()).cloned();
        there.ok_or_else(refused)
    }

    fn processes(&self) -> MutexGuard<'_, BTreeMap<String, Process>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way out of one life of a process.
struct Line {
    board: Switchboard,
    severed: CancellationToken,
}

#[async_trait]
impl Wires for Line {
    async fn open(&self, uri: &Uri) -> io::Result<DuplexStream> {
        let there = self.board.there(uri.host().unwrap_or_default())?;
        if self.severed.is_cancelled() {
            return Err(refused());
        }
        let answering = there.open(there.service).await?;
        let (near, calling) = duplex(WIRE_BYTES);
        let (here, there) = (self.severed.clone(), there.severed);
        tokio::spawn(connect(calling, answering, async move {
            tokio::select! {
                biased;
                () = here.cancelled() => {}
                () = there.cancelled() => {}
            }
        }));
        Ok(near)
    }
}

/// Carries bytes both ways until one of the ends is closed, or the wire is cut.
async fn connect(mut calling: DuplexStream, mut answering: DuplexStream, cut: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = cut => {}
        _ = copy_bidirectional(&mut calling, &mut answering) => {}
    }
}

fn refused() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Whoever waits for this long waits for ever, in virtual time.
    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_process_that_dies_is_refused() {
        let (board, severed) = (Switchboard::default(), CancellationToken::new());
        board.plug("host", Network::default(), "ingress", severed.clone());
        while let Ok(opened) = timeout(LONG, board.open("host", "mqtt")).await {
            opened.expect("there is room among those that wait to be accepted");
        }
        let mut waiting = pin!(board.open("host", "mqtt"));
        assert!(timeout(LONG, &mut waiting).await.is_err(), "nobody is accepted");
        severed.cancel();
        let refused = timeout(LONG, waiting).await.expect("it waits no longer");
        assert_eq!(refused.expect_err("nobody is there").kind(), io::ErrorKind::ConnectionRefused);
    }
}
