//! Leading: one process of all operators works, by a Lease.

use std::future::Future;
use std::time::Duration;

use drover_host::{Ready, Shutdown};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::Instant;

use crate::domain::lease::{self, Observed, RENEW_DEADLINE, RENEW_EVERY, Turn};

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
        Self { api, name: name.to_owned(), me, began: Instant::now(), observed: None }
    }

    /// Waits until this process leads; `None`: it is stopping. Readiness says when the API server does not answer.
    pub async fn lead(&mut self, ready: &Ready, shutdown: &Shutdown) -> Option<()> {
        loop {
            match shutdown.run_until_cancelled(self.turn()).await? {
                Ok(leads) => {
                    ready.ready();
                    if leads {
                        return Some(());
                    }
                }
                Err(error) => ready.waiting(format!("Kubernetes: {error}")),
            }
            shutdown.run_until_cancelled(tokio::time::sleep(RENEW_EVERY)).await?;
        }
    }

    /// Keeps the Lease; returns when another has it, or it could not be renewed for too long.
    pub async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(RENEW_EVERY).await;
            match self.turn().await {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => return tracing::warn!(lease = self.name, "another leads"),
                Err(error) => {
                    tracing::warn!(lease = self.name, %error, "not renewed");
                    if renewed.elapsed() + RENEW_EVERY > RENEW_DEADLINE {
                        return;
                    }
                }
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

    /// One look at the Lease, which is written if it is free or this process's. Whether this process leads now.
    async fn turn(&mut self) -> Result<bool, LeaseError> {
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
