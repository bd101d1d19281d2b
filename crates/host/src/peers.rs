//! All replicas of one service, called side by side: for what has to reach every one of them.

use std::future::Future;
use std::time::Duration;

use futures::future::join_all;
use tonic::{Response, Status};

use crate::{Network, grpc};

/// Clients of the replicas that a configuration names.
#[derive(Clone)]
pub struct Peers<C>(Vec<(String, C)>);

impl<C: Clone> Peers<C> {
    /// Connects to each when it is first needed.
    pub fn new(network: &Network, names: &[String], client: impl Fn(grpc::Client) -> C) -> Self {
        Self(names.iter().map(|name| (name.clone(), client(network.client(name)))).collect())
    }

    /// Calls those that are `wanted`, each within `deadline`; what each answered, in the order of the configuration.
    pub async fn call<T, F: Future<Output = Result<Response<T>, Status>>>(
        &self,
        deadline: Duration,
        wanted: impl Fn(&str) -> bool,
        call: impl Fn(C) -> F,
    ) -> Vec<(&str, Result<T, Status>)> {
        let wanted = self.0.iter().filter(|(name, _)| wanted(name));
        let calls = wanted.map(|(name, client)| {
            let answer = tokio::time::timeout(deadline, call(client.clone()));
            async move {
                let late = || Status::deadline_exceeded(format!("no answer within {deadline:?}"));
                let answer = answer.await.unwrap_or_else(|_| Err(late()));
                (name.as_str(), answer.map(Response::into_inner))
            }
        });
        join_all(calls).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_wanted_peer_is_called_and_who_hangs_is_named() {
        let names = ["a", "b", "c"].map(str::to_owned);
        let peers = Peers::new(&Network::default(), &names, |_| ());
        let hang = std::sync::atomic::AtomicUsize::new(0);
        let call = |()| {
            let turn = hang.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async move {
                match turn {
                    0 => Ok(Response::new(7)),
                    _ => std::future::pending().await,
                }
            }
        };
        let answers = peers.call(Duration::from_secs(1), |name| name != "b", call).await;
        let told: Vec<_> = answers.iter().map(|(name, answer)| (*name, answer.as_ref().ok().copied())).collect();
        assert_eq!(told, [("a", Some(7)), ("c", None)]);
    }
}
