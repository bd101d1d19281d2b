//! Keeps the webhook's certificate: in a Secret that all processes of the operator share, and in the
//! ValidatingWebhookConfiguration by which the API server knows it.
//!
//! The chart makes both objects, so that no right to make any is needed. Whoever is first fills the Secret, and replaces the
//! certificate in time; a conflict says that another was faster, and the next look finds theirs.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::Parts;
use super::certificate::{CLOCK_SKEW_MS, CertificateError, Pair, RENEW_AFTER_MS, acceptor, make};
use crate::domain::time::{milliseconds, rfc3339};

/// Annotation of the Secret: when its certificate is to be replaced, RFC 3339.
const RENEW_AT: &str = "drover.dev/renew-at";
/// How often both objects are looked at.
const EVERY: Duration = Duration::from_secs(300);
/// Longest look: an API server that does not answer is asked again.
const LOOK: Duration = Duration::from_secs(30);
/// Wait after a look that failed, or that another process was faster in.
const RETRY: Duration = Duration::from_secs(10);
/// Under which name `/readyz` tells of a webhook without a certificate.
const WEBHOOK: &str = "webhook";

/// What the Secret holds.
#[derive(Clone, PartialEq, Eq)]
struct Held {
    pair: Pair,
    /// What the API server is to believe: the certificate and the one before it, PEM.
    trusted: String,
    renew_at_ms: u64,
}

/// Why the certificate is not as it is to be.
#[derive(Debug, thiserror::Error)]
enum KeepError {
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error("the API server has not answered within {LOOK:?}")]
    Late,
}

pub struct Keeper {
    parts: Parts,
    show: watch::Sender<Option<TlsAcceptor>>,
    shown: Option<Pair>,
}

impl Keeper {
    pub fn new(parts: Parts, show: watch::Sender<Option<TlsAcceptor>>) -> Self {
        Self { parts, show, shown: None }
    }

    /// Looks at both objects again and again.
    pub async fn keep(mut self) {
        loop {
            let looked = tokio::time::timeout(LOOK, self.look()).await.unwrap_or(Err(KeepError::Late));
            let wait = match looked {
                Ok(()) => {
                    self.parts.ready.miss(WEBHOOK, None);
                    EVERY
                }
                Err(error) => {
                    self.parts.ready.miss(WEBHOOK, Some(error.to_string()));
                    RETRY
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn look(&mut self) -> Result<(), KeepError> {
        let held = self.held().await?;
        if self.shown.as_ref() != Some(&held.pair) {
            self.show.send_replace(Some(acceptor(&held.pair)?));
            self.shown = Some(held.pair.clone());
        }
        self.tell(&held.trusted).await
    }

    /// What is in the Secret, or replaces it there: if it is due, or cannot be used.
    async fn held(&self) -> Result<Held, KeepError> {
        let api = Api::<Secret>::namespaced(self.parts.client.clone(), &self.parts.namespace);
        let mut secret = api.get(&self.parts.config.secret).await?;
        let now_ms = self.parts.clock.now_ms();
        let former = held(&secret).filter(is_usable);
        if let Some(held) = former.clone().filter(|held| is_current(held.renew_at_ms, now_ms)) {
            return Ok(held);
        }
        let pair = make(&self.parts.config.host, now_ms)?;
        let former = former.map(|held| held.pair.certificate).unwrap_or_default();
        let trusted = format!("{}{former}", pair.certificate);
        let renewed = Held { pair, trusted, renew_at_ms: now_ms + RENEW_AFTER_MS };
        fill(&mut secret, &renewed);
        // With the version that was read: of two processes one is refused.
        api.replace(&self.parts.config.secret, &PostParams::default(), &secret).await?;
        tracing::info!(secret = self.parts.config.secret, "the webhook has a new certificate");
        Ok(renewed)
    }

    /// Tells the API server what to believe, if it does not know.
    async fn tell(&self, trusted: &str) -> Result<(), KeepError> {
        let api = Api::<ValidatingWebhookConfiguration>::all(self.parts.client.clone());
        let name = &self.parts.config.configuration;
        let bundle = ByteString(trusted.as_bytes().to_vec());
        let webhooks = api.get(name).await?.webhooks.unwrap_or_default();
        let knows_not = |bytes: Option<&ByteString>| bytes != Some(&bundle);
        let to_tell = webhooks.iter().filter(|webhook| knows_not(webhook.client_config.ca_bundle.as_ref()));
        let told: Vec<_> =
            to_tell.map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}})).collect();
        if !told.is_empty() {
            // Webhooks are merged by their names: all else of them stays.
            api.patch(name, &PatchParams::default(), &Patch::Strategic(json!({"webhooks": told}))).await?;
        }
        Ok(())
    }
}

/// What a Secret holds; `None`: nothing, or not all of it.
fn held(secret: &Secret) -> Option<Held> {
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok().filter(|t| !t.is_empty());
    let renew_at_ms = milliseconds(secret.metadata.annotations.as_ref()?.get(RENEW_AT)?)?;
    let pair = Pair { certificate: text("tls.crt")?, key: text("tls.key")? };
    Some(Held { pair, trusted: text("ca.crt")?, renew_at_ms })
}

/// Whether it can be shown, and who believes what it holds believes what is shown.
fn is_usable(held: &Held) -> bool {
    held.trusted.starts_with(&held.pair.certificate) && acceptor(&held.pair).is_ok()
}

/// Whether a certificate that is to be replaced at that time holds now. One that was made while a clock was far ahead does not:
/// it would be kept for as long.
fn is_current(renew_at_ms: u64, now_ms: u64) -> bool {
    now_ms < renew_at_ms && renew_at_ms <= now_ms + RENEW_AFTER_MS + CLOCK_SKEW_MS
}

fn fill(secret: &mut Secret, held: &Held) {
    let parts = [("tls.crt", &held.pair.certificate), ("tls.key", &held.pair.key), ("ca.crt", &held.trusted)];
    let bytes = |(key, text): (&str, &String)| (key.to_owned(), ByteString(text.as_bytes().to_vec()));
    secret.data.get_or_insert_with(BTreeMap::new).extend(parts.map(bytes));
    let annotations = secret.metadata.annotations.get_or_insert_with(BTreeMap::new);
    annotations.insert(RENEW_AT.to_owned(), rfc3339(held.renew_at_ms));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_secret_is_filled_with_is_read_back_and_a_part_is_nothing() {
        let pair = Pair { certificate: "certificate".into(), key: "key".into() };
        let wanted = Held { pair, trusted: "trusted".into(), renew_at_ms: 1_700_000_000_000 };
        let mut secret = Secret::default();
        assert!(held(&secret).is_none(), "as the chart makes it");
        fill(&mut secret, &wanted);
        assert!(held(&secret).as_ref() == Some(&wanted));
        secret.data.as_mut().and_then(|data| data.remove("tls.key"));
        assert!(held(&secret).is_none());
    }

    #[test]
    fn what_is_due_or_of_a_clock_far_ahead_or_cannot_be_shown_is_replaced() {
        let now_ms = 1_700_000_000_000;
        assert!(is_current(now_ms + RENEW_AFTER_MS, now_ms));
        assert!(is_current(now_ms + RENEW_AFTER_MS, now_ms - 1_000), "another process's clock");
        assert!(!is_current(now_ms, now_ms));
        assert!(!is_current(now_ms + 2 * RENEW_AFTER_MS, now_ms));
        let pair = make("a.b.svc", now_ms).expect("made");
        let whole = Held { trusted: pair.certificate.clone(), pair, renew_at_ms: now_ms };
        assert!(is_usable(&whole));
        let (mut without_key, mut without_trust) = (whole.clone(), whole);
        without_key.pair.key = "key".to_owned();
        without_trust.trusted = "trusted".to_owned();
        assert!(!is_usable(&without_key) && !is_usable(&without_trust));
    }
}
