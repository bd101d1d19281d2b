//! Runs several services as one: all live, or all stop.

use std::future::Future;
use std::pin::Pin;

use tokio::task::{Id, JoinError, JoinSet};

use crate::{Duration, Shutdown};

/// One thing that runs until the shutdown it was made with.
pub struct Task {
    pub name: &'static str,
    pub body: Pin<Box<dyn Future<Output = anyhow::Result<()>> + Send>>,
}

/// Why the process ends with an error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{service}: {}", told(cause))]
    Failed { service: &'static str, cause: anyhow::Error },
    #[error("{service} ended although nobody asked it to")]
    Ended { service: &'static str },
    #[error("{} did not finish within {limit} (process.drain)", services.join(", "))]
    Undrained { services: Vec<&'static str>, limit: Duration },
}

/// The error and its causes, each said once: some texts hold those of their causes already, in the system's words or in
/// ours.
pub fn told(error: &anyhow::Error) -> String {
    let plain = |text: &str| text.split(" (os error").next().unwrap_or(text).to_lowercase();
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if !text.to_lowercase().contains(&plain(&cause)) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}

/// Runs `tasks` until `shutdown`. The first to fail, panic or end by itself stops all others and is the error. All
/// then have `drain` to finish; who has not is ended and named.
pub async fn run_all(tasks: Vec<Task>, shutdown: Shutdown, drain: Duration) -> Result<(), RunError> {
    let mut running = Running { tasks: JoinSet::new(), names: Vec::new() };
    for task in tasks {
        let handle = running.tasks.spawn(task.body);
        running.names.push((handle.id(), task.name));
    }
    let failure = tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        failure = running.first_end() => failure,
    };
    shutdown.cancel();
    let drained = tokio::time::timeout(drain.as_std(), running.all_end()).await;
    match (failure, drained) {
        (Some(failure), _) | (None, Ok(Err(failure))) => Err(failure),
        (None, Ok(Ok(()))) => Ok(()),
        (None, Err(_)) => {
            Err(RunError::Undrained { services: running.names.iter().map(|(_, name)| *name).collect(), limit: drain })
        }
    }
}

struct Running {
    tasks: JoinSet<anyhow::Result<()>>,
    /// Who has not ended yet.
    names: Vec<(Id, &'static str)>,
}

impl Running {
    /// While nobody asked for it, every end is an error.
    async fn first_end(&mut self) -> Option<RunError> {
        match self.next().await? {
            (_, Some(failure)) => Some(failure),
            (service, None) => Some(RunError::Ended { service }),
        }
    }

    async fn all_end(&mut self) -> Result<(), RunError> {
        let mut first = Ok(());
        while let Some((_, failure)) = self.next().await {
            first = first.and(failure.map_or(Ok(()), Err));
        }
        first
    }

    async fn next(&mut self) -> Option<(&'static str, Option<RunError>)> {
        let (id, result) = match self.tasks.join_next_with_id().await? {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(panicked(error))),
        };
        let place = self.names.iter().position(|(task, _)| *task == id).expect("every task was named");
        let (_, service) = self.names.swap_remove(place);
        Some((service, result.err().map(|cause| RunError::Failed { service, cause })))
    }
}

fn panicked(error: JoinError) -> anyhow::Error {
    let Ok(panic) = error.try_into_panic() else { return anyhow::anyhow!("was aborted") };
    let said =
        panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    anyhow::anyhow!("panicked: {}", said.unwrap_or_else(|| "without a message".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(10);

    fn task(name: &'static str, body: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> Task {
        Task { name, body: Box::pin(body) }
    }

    fn patient(name: &'static str, shutdown: &Shutdown) -> Task {
        let shutdown = shutdown.clone();
        task(name, async move {
            shutdown.cancelled().await;
            Ok(())
        })
    }

    #[tokio::test]
    async fn the_first_failure_stops_all_and_names_its_service() {
        let shutdown = Shutdown::new();
        let broken = task("broken", async { anyhow::bail!("no disk") });
        let ended = run_all(vec![patient("patient", &shutdown), broken], shutdown.clone(), DRAIN).await;
        assert_eq!(ended.expect_err("failed").to_string(), "broken: no disk");
        assert!(shutdown.is_cancelled());
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open DIR: {}; make room", source.to_string().to_lowercase())]
    struct NoRoom {
        source: std::io::Error,
    }

    #[test]
    fn a_cause_that_is_in_the_text_before_it_is_not_said_again() {
        let no_room = NoRoom { source: std::io::Error::other("No space left (os error 28)") };
        let wrapped = anyhow::Error::from(no_room).context("store");
        assert_eq!(told(&wrapped), "store: cannot open DIR: no space left (os error 28); make room");
        let causes = anyhow::anyhow!("no disk").context("cannot be written").context("log");
        assert_eq!(told(&causes), "log: cannot be written: no disk");
    }

    #[tokio::test]
    async fn who_ends_unasked_or_panics_is_an_error() {
        let shutdown = Shutdown::new();
        let ended = run_all(vec![task("brief", async { Ok(()) })], shutdown, DRAIN).await;
        assert_eq!(ended.expect_err("ended").to_string(), "brief ended although nobody asked it to");
        let shutdown = Shutdown::new();
        let ended = run_all(vec![task("faulty", async { panic!("a bug") })], shutdown, DRAIN).await;
        assert_eq!(ended.expect_err("panicked").to_string(), "faulty: panicked: a bug");
    }

    #[tokio::test]
    async fn a_failure_while_draining_is_reported() {
        let shutdown = Shutdown::new();
        shutdown.cancel();
        let late = task("late", async { anyhow::bail!("last write failed") });
        let ended = run_all(vec![late, patient("patient", &shutdown)], shutdown.clone(), DRAIN).await;
        assert_eq!(ended.expect_err("failed").to_string(), "late: last write failed");
    }

    #[tokio::test]
    async fn the_drain_has_an_end() {
        let shutdown = Shutdown::new();
        shutdown.cancel();
        let stuck = task("stuck", std::future::pending());
        let drain = Duration::from_millis(20);
        let ended = run_all(vec![stuck, patient("patient", &shutdown)], shutdown.clone(), drain).await;
        assert_eq!(ended.expect_err("stuck").to_string(), "stuck did not finish within 20ms (process.drain)");
    }

    #[tokio::test]
    async fn an_orderly_stop_is_no_error() {
        let shutdown = Shutdown::new();
        let tasks = vec![patient("one", &shutdown), patient("two", &shutdown)];
        let run = tokio::spawn(run_all(tasks, shutdown.clone(), DRAIN));
        shutdown.cancel();
        assert!(run.await.expect("no panic").is_ok());
    }
}
