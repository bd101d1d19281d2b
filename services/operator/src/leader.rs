//! Leading: one process of all operators works, by a Lease.

use std::future::Future;
use std::time::Duration;

use drover_host::{Ready, Shutdown};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::domain::lease::{self, Observed, RENEW_DEADLINE, RENEW_EVERY, Turn};

/// Under which name `/readyz` tells of an API server that is away.
const KUBERNETES: &str = "kubernetes";
/// Longest wait for one answer of the API server.
const ANSWER: Duration = Duration::from_secs(5);

/// One candidate.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    me: String,
    /// Where the candidate's own clock begins.
    began: Instant,
    observed: Option<Observed>,
    /// When the last turn began by which this process leads; others count from a later moment.
    renewed: Instant,
}

/// Why a Lease could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
    #[error("no answer within {} s", ANSWER.as_secs())]
    Silent,
}

impl Elector {
    /// The candidate `me` for the Lease `name`; no other process, nor this one after a restart, has that name.
    pub fn new(client: Client, namespace: &str, name: &str, me: String) -> Self {
        let api = Api::namespaced(client, namespace);
        let began = Instant::now();
        Self { api, name: name.to_owned(), me, began, observed: None, renewed: began }
    }

    /// Waits until this process leads; `None`: it is stopping. `/readyz` tells of an API server that does not answer, without
    /// keeping the process from being ready: others in it may serve devices.
    pub async fn lead(&mut self, ready: &Ready, shutdown: &Shutdown) -> Option<()> {
        ready.ready();
        loop {
            match shutdown.run_until_cancelled(self.turn()).await? {
                Ok(leads) => {
                    ready.miss(KUBERNETES, None);
                    if leads {
                        return Some(());
                    }
                }
                Err(error) => ready.miss(KUBERNETES, Some(error.to_string())),
            }
            shutdown.run_until_cancelled(tokio::time::sleep(RENEW_EVERY)).await?;
        }
    }

    /// Keeps the Lease; returns when another has it, or it could not be renewed for too long.
    pub async fn hold(&mut self) {
        loop {
            let deadline = self.renewed + RENEW_DEADLINE;
            sleep_until(deadline.min(Instant::now() + RENEW_EVERY)).await;
            match timeout_at(deadline, self.turn()).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return tracing::warn!(lease = self.name, "another leads"),
                Ok(Err(error)) => {
                    tracing::warn!(lease = self.name, %error, "not renewed");
                    if Instant::now() + RENEW_EVERY > deadline {
                        return;
                    }
                }
                Err(_) => return tracing::warn!(lease = self.name, "not renewed in time"),
            }
        }
    }

    /// Leaves the Lease to whoever comes.
    pub async fn release(&mut self) {
        let given_up = async {
            let mut lease = self.api.get(&self.name).await?;
            let spec = lease.spec.take().unwrap_or_default();
            if spec.holder_identity.as_deref() == Some(&self.me) {
                lease.spec = Some(lease::released(&spec, Timestamp::now()));
                self.api.replace(&self.name, &PostParams::default(), &lease).await?;
            }
            Ok(())
        };
        if let Err(error) = answered(given_up).await {
            tracing::warn!(lease = self.name, %error, "not released; it ends by itself");
        }
    }

    /// One turn at the Lease. Whether this process leads now.
    async fn turn(&mut self) -> Result<bool, LeaseError> {
        let begun = Instant::now();
        let leads = self.look().await?;
        if leads {
            self.renewed = begun;
        }
        Ok(leads)
    }

    /// One look at the Lease, which is written if it is free or this process's.
    async fn look(&mut self) -> Result<bool, LeaseError> {
        let found = answered(self.api.get_opt(&self.name)).await?;
        let now = Timestamp::now();
        let Some(mut lease) = found else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(lease::held(None, &self.me, now)) };
            return won(answered(self.api.create(&PostParams::default(), &lease)).await);
        };
        let spec = lease.spec.take().unwrap_or_default();
        let elapsed = self.began.elapsed();
        let observed = lease::observe(self.observed.take(), &spec, elapsed);
        let turn = lease::turn(&observed, &self.me, elapsed);
        self.observed = Some(observed);
        match turn {
            Turn::Wait => Ok(false),
            Turn::Lead => {
                lease.spec = Some(lease::held(Some(&spec), &self.me, now));
                won(answered(self.api.replace(&self.name, &PostParams::default(), &lease)).await)
            }
        }
    }
}

/// A conflict says that another was faster.
fn won(answer: Result<Lease, LeaseError>) -> Result<bool, LeaseError> {
    match answer {
        Ok(_) => Ok(true),
        Err(LeaseError::Kubernetes(kube::Error::Api(status))) if status.code == 409 => Ok(false),
        Err(error) => Err(error),
    }
}

async fn answered<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, LeaseError> {
    Ok(tokio::time::timeout(ANSWER, call).await.map_err(|_| LeaseError::Silent)??)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use axum::http::{Method, Request, Response};
    use drover_host::Health;
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// An API server with one Lease, whose every write needs the version that was read; or one that is away.
    #[derive(Clone, Default)]
    struct OneLease(Arc<Mutex<(Option<Value>, u64, bool)>>);

    impl OneLease {
        fn candidate(&self, me: &str) -> Elector {
            self.slow_candidate(me, Duration::ZERO)
        }

        /// A candidate to whom every answer takes this long.
        fn slow_candidate(&self, me: &str, answer: Duration) -> Elector {
            let api = self.clone();
            let serve = move |request: Request<Body>| {
                let api = api.clone();
                async move {
                    if !answer.is_zero() {
                        tokio::time::sleep(answer).await;
                    }
                    Ok::<_, Infallible>(api.answer(request).await)
                }
            };
            Elector::new(Client::new(tower::service_fn(serve), "default"), "default", "operator", me.to_owned())
        }

        async fn answer(&self, request: Request<Body>) -> Response<Body> {
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let mut state = self.0.lock().expect("not poisoned");
            let (lease, version, away) = &mut *state;
            let refused = |code: u16, reason: &str| {
                (code, json!({"kind": "Status", "metadata": {}, "status": "Failure", "code": code, "reason": reason}))
            };
            let there = lease.clone();
            let (status, body) = match (&head.method, there) {
                _ if *away => refused(500, "InternalError"),
                (&Method::GET, Some(there)) => (200, there),
                (&Method::GET, None) => refused(404, "NotFound"),
                _ => {
                    let mut written: Value = serde_json::from_slice(&body).expect("JSON");
                    let expected = lease.as_ref().map(|lease| lease["metadata"]["resourceVersion"].clone());
                    if expected.unwrap_or_default() != written["metadata"]["resourceVersion"] {
                        refused(409, "Conflict")
                    } else {
                        *version += 1;
                        written["metadata"]["resourceVersion"] = json!(version.to_string());
                        *lease = Some(written.clone());
                        (200, written)
                    }
                }
            };
            Response::builder().status(status).body(Body::from(body.to_string().into_bytes())).expect("a response")
        }

        fn be_away(&self, away: bool) {
            self.0.lock().expect("not poisoned").2 = away;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_leads_and_another_takes_over_when_it_lets_go_or_is_gone() {
        let api = OneLease::default();
        let (mut first, mut second) = (api.candidate("a"), api.candidate("b"));
        assert!(first.turn().await.expect("answers"));
        assert!(!second.turn().await.expect("answers"));
        first.release().await;
        assert!(second.turn().await.expect("answers"), "at once");
        assert!(!first.turn().await.expect("answers"));
        tokio::time::advance(lease::DURATION).await;
        assert!(first.turn().await.expect("answers"), "the other has not renewed");
        assert!(!second.turn().await.expect("answers"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_renew_ceases_before_another_may_begin() {
        let api = OneLease::default();
        let mut first = api.candidate("a");
        assert!(first.turn().await.expect("answers"));
        api.be_away(true);
        let begun = Instant::now();
        first.hold().await;
        assert!(begun.elapsed() < lease::DURATION, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_renews_too_slowly_ceases_before_another_may_begin() {
        let mut first = OneLease::default().slow_candidate("a", Duration::from_secs(4));
        let begun = Instant::now();
        assert!(first.turn().await.expect("answers"), "after 8 s");
        first.hold().await;
        assert!(begun.elapsed() < lease::DURATION, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_away_is_told_of_and_waited_for() {
        let api = OneLease::default();
        api.be_away(true);
        let (health, shutdown) = (Health::default(), Shutdown::new());
        let ready = health.service("operator");
        let mut candidate = api.candidate("a");
        let leading = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { candidate.lead(&ready, &shutdown).await }
        });
        while health.missed().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(health.obstacles().is_empty(), "others may serve devices meanwhile");
        api.be_away(false);
        assert_eq!(leading.await.expect("no panic"), Some(()));
        assert!(health.missed().is_empty());
    }
}
