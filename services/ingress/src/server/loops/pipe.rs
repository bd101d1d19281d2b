//! Connections within the process, on the runtime's own time: how tests and simulations reach the same loop.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use drover_host::Incoming;
use futures::StreamExt as _;
use tokio::io::{AsyncRead as _, AsyncWrite as _, DuplexStream, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::driver::{Loop, Readiness};
use super::transport::Transport;
use crate::domain::connection::{Close, CloseReason};
use crate::domain::identity::Certificate;

/// One end of a pipe, and who is told when it can go on.
pub struct Pipe {
    stream: DuplexStream,
    waker: Waker,
}

/// Pipes that can go on. Each is there once for each time it could not, so there are at most two for each.
#[derive(Default)]
struct Stirred {
    slots: Mutex<Vec<usize>>,
    bell: Arc<Notify>,
}

struct PipeWaker {
    slot: usize,
    stirred: Arc<Stirred>,
}

impl Wake for PipeWaker {
    fn wake(self: Arc<Self>) {
        self.stirred.slots.lock().unwrap_or_else(PoisonError::into_inner).push(self.slot);
        self.stirred.bell.notify_one();
    }
}

/// Runs `core` until no more pipes come and all are closed, or `abort`. `bell` rings when there is mail.
pub async fn run(
    mut core: Loop<Pipe>,
    mut incoming: Incoming,
    anonymous: bool,
    bell: Arc<Notify>,
    abort: CancellationToken,
) {
    let stirred = Arc::new(Stirred { slots: Mutex::default(), bell });
    while !core.is_done() {
        let due = core.due_in();
        let timer = async {
            match due {
                Some(wait) => tokio::time::sleep_until(Instant::now() + wait).await,
                None => std::future::pending().await,
            }
        };
        let accepts = core.accepts();
        tokio::select! {
            biased;
            () = abort.cancelled() => return,
            () = stirred.bell.notified() => {}
            pipe = incoming.next(), if accepts => match pipe {
                Some(Ok(stream)) => accept(&mut core, stream, anonymous, &stirred),
                Some(Err(_)) => {}
                None => core.shut(),
            },
            () = timer => {}
        }
        let slots = std::mem::take(&mut *stirred.slots.lock().unwrap_or_else(PoisonError::into_inner));
        slots.into_iter().for_each(|slot| core.stir(slot, Readiness::ALL));
        core.turn();
        if core.is_busy() {
            stirred.bell.notify_one();
            tokio::task::yield_now().await;
        }
    }
}

fn accept(core: &mut Loop<Pipe>, stream: DuplexStream, anonymous: bool, stirred: &Arc<Stirred>) {
    let Some(entry) = core.shared().enter(super::PIPE_PEER) else { return };
    let slot = core.vacant();
    let waker = Waker::from(Arc::new(PipeWaker { slot, stirred: stirred.clone() }));
    core.accept(Pipe { stream, waker }, super::PIPE_PEER, anonymous, entry);
    core.stir(slot, Readiness::ALL);
}

fn now<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

impl Transport for Pipe {
    fn is_emptied_by(&self, _bytes: usize, _room: usize) -> bool {
        false
    }

    fn secure(&mut self) -> io::Result<Option<Box<Certificate>>> {
        Ok(None)
    }

    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut room = ReadBuf::new(room);
        let read = Pin::new(&mut self.stream).poll_read(&mut Context::from_waker(&self.waker), &mut room);
        now(read).map(|()| room.filled().len())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut self.stream).poll_write(&mut Context::from_waker(&self.waker), bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        now(Pin::new(&mut self.stream).poll_flush(&mut Context::from_waker(&self.waker)))
    }

    fn closing(&mut self, close: &Close) -> bool {
        close.reason != CloseReason::ConnectionLost
    }

    fn close(&mut self, _room: &mut [u8]) -> io::Result<()> {
        now(Pin::new(&mut self.stream).poll_shutdown(&mut Context::from_waker(&self.waker)))
    }
}
