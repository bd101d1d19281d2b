//! What ends the service when one of its loops fails: the rest would stay ready, with a part of its connections and
//! lanes that nobody drives on. Whoever has started the service starts it anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// Goes with each loop, and is dropped with it.
#[derive(Clone)]
pub struct Fuse {
    shutdown: CancellationToken,
    blown: Arc<AtomicBool>,
}

impl Fuse {
    /// Cancels `shutdown` when it blows.
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { shutdown, blown: Arc::default() }
    }

    /// A loop has failed.
    pub fn blow(&self) {
        self.blown.store(true, Ordering::Release);
        self.shutdown.cancel();
    }

    /// Whether a loop has failed.
    pub fn is_blown(&self) -> bool {
        self.blown.load(Ordering::Acquire)
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a loop of connections has panicked, the service ends");
            self.blow();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_panics_ends_the_service_and_one_that_ends_does_not() {
        let shutdown = CancellationToken::new();
        let fuse = Fuse::new(shutdown.clone());
        drop(fuse.clone());
        assert!(!fuse.is_blown() && !shutdown.is_cancelled());
        let of_loop = fuse.clone();
        let panics = std::thread::spawn(move || {
            let _fuse = of_loop;
            panic!("as told");
        });
        panics.join().expect_err("it panics");
        assert!(fuse.is_blown() && shutdown.is_cancelled());
    }
}
