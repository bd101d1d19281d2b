//! What a process depends on in other processes: looked at all the time, told to `/readyz` and, when it changes, to the log.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Bounds, Bus, ReadError, TopicPartition};
use drover_types::Clock;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::grpc::Client;
use crate::skew::{self, Skew};
use crate::{Cassandra, Health, Ready, Shutdown, SystemClock};

/// Between two looks at what answers, and at what does not.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(5);
/// A topic that nobody makes: that it is not there is the shortest answer of a log, however many topics that has.
const NO_TOPIC: &str = "drover.nobody";

/// Asks once; the error says why there is no good answer.
pub type Probe = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

/// One thing the process depends on.
pub struct Dependency {
    name: String,
    /// Who is kept from being ready; `None`: the process can do without.
    ready: Option<Ready>,
    health: Health,
    probe: Probe,
}

impl Dependency {
    /// Without it the process is not ready; `ready` is its place in `/readyz`.
    pub fn needed(ready: Ready, health: &Health, probe: Probe) -> Self {
        Self { name: ready.name().to_owned(), ready: Some(ready), health: health.clone(), probe }
    }

    /// The process works without it, with less to offer.
    pub fn wanted(name: &str, health: &Health, probe: Probe) -> Self {
        Self { name: name.to_owned(), ready: None, health: health.clone(), probe }
    }

    /// Looks until `shutdown`.
    pub async fn watch(self, shutdown: Shutdown) {
        let looking = async {
            loop {
                let answer = tokio::time::timeout(PATIENCE, (self.probe)()).await;
                let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
                let pause = if answer.is_ok() { LOOK } else { LOOK_AGAIN };
                self.tell(answer);
                tokio::time::sleep(pause).await;
            }
        };
        // The look has no end of its own.
        let _: Option<()> = shutdown.run_until_cancelled(looking).await;
    }

    fn tell(&self, answer: Result<(), String>) {
        match (&self.ready, answer) {
            (Some(ready), Ok(())) => ready.ready(),
            (Some(ready), Err(why)) => ready.waiting(why),
            (None, answer) => self.health.miss(&self.name, answer.err()),
        }
    }
}

/// Asks a service in another process whether it is there; whether it is ready is its own to tell. Says when its clock
/// and ours differ.
pub fn service(name: &str, client: Client) -> Probe {
    let skew = Arc::new(Skew::of(name));
    Box::new(move || {
        let (mut health, skew) = (HealthClient::new(client.clone()), skew.clone());
        Box::pin(async move {
            let question = HealthCheckRequest { service: String::new() };
            let before_ms = SystemClock.now_ms();
            let answer = health.check(question).await.map_err(|status| status.message().to_owned())?;
            let time = answer.metadata().get(skew::HEADER).and_then(|time| time.to_str().ok()?.parse().ok());
            if let Some(theirs_ms) = time {
                skew.look(before_ms, theirs_ms, SystemClock.now_ms());
            }
            Ok(())
        })
    })
}

/// Asks the log whether it has a topic.
pub fn log(bus: Arc<dyn Bus>) -> Probe {
    let at = TopicPartition::new(NO_TOPIC, 0);
    Box::new(move || {
        let (bus, at) = (bus.clone(), at.clone());
        Box::pin(async move { answered(bus.bounds(&at).await) })
    })
}

/// All that the log knows is an answer.
fn answered(bounds: Result<Bounds, ReadError>) -> Result<(), String> {
    match bounds {
        Ok(_) | Err(ReadError::Unknown { .. } | ReadError::OutOfRange { .. } | ReadError::Corrupt { .. }) => Ok(()),
        Err(error @ ReadError::Unavailable { .. }) => Err(error.to_string()),
    }
}

/// Looks at the database until `shutdown`, as of when a service opens it: from then on the process needs it. `name` is
/// its place in `/readyz`.
pub async fn watch_database(name: &'static str, cassandra: Cassandra, health: Health, shutdown: Shutdown) {
    if shutdown.run_until_cancelled(cassandra.opened()).await.is_some() {
        Dependency::needed(health.service(name), &health, database(cassandra)).watch(shutdown).await;
    }
}

/// Asks the database, once it is connected to.
fn database(cassandra: Cassandra) -> Probe {
    Box::new(move || {
        let cassandra = cassandra.clone();
        Box::pin(async move { cassandra.answers().await.map_err(|failure| failure.to_string()) })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A probe that answers while the switch is on.
    fn switched(there: &Arc<AtomicBool>) -> Probe {
        let there = there.clone();
        Box::new(move || {
            let answer = if there.load(Ordering::Relaxed) { Ok(()) } else { Err("away".to_owned()) };
            Box::pin(std::future::ready(answer))
        })
    }

    #[test]
    fn a_log_that_does_not_know_the_topic_has_answered() {
        assert_eq!(answered(Err(ReadError::Unknown { at: TopicPartition::new(NO_TOPIC, 0) })), Ok(()));
        let away = answered(Err(ReadError::Unavailable { reason: "away".into() }));
        assert_eq!(away, Err("bus is unavailable: away".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_needed_decides_readiness_and_what_is_wanted_is_told() {
        let (health, there, shutdown) = (Health::default(), Arc::new(AtomicBool::new(false)), Shutdown::new());
        let needed = Dependency::needed(health.service("registry"), &health, switched(&there));
        let wanted = Dependency::wanted("rules", &health, switched(&there));
        let watching = tokio::spawn(needed.watch(shutdown.clone()));
        let also = tokio::spawn(wanted.watch(shutdown.clone()));
        for (now, obstacles) in [(false, 1), (true, 0), (false, 1), (true, 0)] {
            there.store(now, Ordering::Relaxed);
            tokio::time::sleep(LOOK + LOOK_AGAIN).await;
            assert_eq!((health.obstacles().len(), health.missed().len()), (obstacles, obstacles));
        }
        shutdown.cancel();
        watching.await.expect("ends");
        also.await.expect("ends");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_away() {
        let (health, shutdown) = (Health::default(), Shutdown::new());
        let hangs: Probe = Box::new(|| Box::pin(std::future::pending()));
        let needed = Dependency::needed(health.service("registry"), &health, hangs);
        let watching = tokio::spawn(needed.watch(shutdown.clone()));
        tokio::time::sleep(PATIENCE + LOOK_AGAIN).await;
        assert_eq!(health.obstacles(), [("registry", "no answer within 5s".to_owned())]);
        shutdown.cancel();
        watching.await.expect("ends");
    }
}
