//! Which process is at which host now, and the wires between them: cut with the life at either end.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use drover_host::{Network, Wires};
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

    /// What the process at `host` listens by, if there is one.
    pub fn network(&self, host: &str) -> Option<Network> {
        self.there(host).map(|process| process.network)
    }

    fn there(&self, host: &str) -> Option<Process> {
        self.processes().get(host).filter(|process| !process.severed.is_cancelled()).cloned()
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
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let there = self.board.there(uri.host().unwrap_or_default()).ok_or_else(refused)?;
        if self.severed.is_cancelled() {
            return Err(refused());
        }
        let mut far_end = there.network.open(there.service).await?;
        let (near, mut near_end) = duplex(WIRE_BYTES);
        let (here, there) = (self.severed.clone(), there.severed);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = here.cancelled() => {}
                () = there.cancelled() => {}
                _ = copy_bidirectional(&mut near_end, &mut far_end) => {}
            }
        });
        Ok(near)
    }
}
