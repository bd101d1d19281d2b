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
                    && let Ok(answering) = there.network.open(there.service).await
                {
                    tokio::spawn(connect(call, answering, there.severed.cancelled_owned()));
                }
            }
        });
    }

    /// A pipe to what the process at `host` listens to as `name`.
    pub async fn open(&self, host: &str, name: &str) -> io::Result<DuplexStream> {
        self.there(host)?.network.open(name).await
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
        let answering = there.network.open(there.service).await?;
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
