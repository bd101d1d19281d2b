//! Carries out one entry of the outbox, or a batch of them: once, and says what came of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use drover_functions::CallError;
use drover_host::grpc::Client;
use drover_proto::ingress::v1::PublishRequest;
use drover_proto::ingress::v1::ingress_client::IngressClient;
use drover_proto::rules::v1::outbox_entry::Work;
use drover_proto::rules::v1::{CommandOrder, FunctionCall, Notice, OutboxEntry, ShadowUpdate, StoredRow, Webhook};
use drover_proto::shadow::v1::commands_client::CommandsClient;
use drover_proto::shadow::v1::shadow_client::ShadowClient;
use drover_proto::shadow::v1::{SendCommandRequest, UpdateShadowRequest};
use drover_proto::storage::v1::StoreRowRequest;
use drover_proto::storage::v1::storage_client::StorageClient;
use drover_types::{Clock, RecordId, TenantId, hex};
use ring::digest::{SHA256, digest};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use super::clusters::Clusters;
use crate::domain::{Entry, RuleSet, Verdict};
use crate::functions::Functions;
use crate::mail::{Mail, Mailer};
use crate::platform::{SERVICE_TIMEOUT, publish, told};
use crate::turns::Turns;
use crate::webhook::{Post, Secrets, Webhooks, sign};

/// Longest wait for whoever tells people.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls of functions of one tenant at a time: half of the places that there are for all.
const CALLS_PER_TENANT: usize = 2;
/// Most messages that one call of a function may make.
const MESSAGES_MAX: usize = 100;
/// Entry of a secret: the key that signs.
const HMAC: &str = "hmac";
/// Entry of a secret: the addresses that a channel's mail goes to.
const EMAIL: &str = "email";
/// Entry of a secret: the address of a channel's webhook.
const URL: &str = "url";

/// What actions need. Shared by all that are under way.
pub struct Carrier {
    pub webhooks: Webhooks,
    pub secrets: Secrets,
    /// Absent: no mail is sent.
    pub mailer: Option<Mailer>,
    pub clusters: Arc<Clusters>,
    pub shadow: ShadowClient<Client>,
    pub commands: CommandsClient<Client>,
    pub storage: StorageClient<Client>,
    pub ingress: IngressClient<Client>,
    pub functions: Arc<Functions>,
    /// Turns of tenants whose functions are called.
    pub calls: Turns<TenantId>,
    pub rules: watch::Receiver<Arc<RuleSet>>,
    pub clock: Arc<dyn Clock>,
}

/// A message that a function wants to have published.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Made {
    topic: String,
    /// A text is sent as it is, any other value as JSON.
    payload: Value,
    #[serde(default)]
    qos: u32,
}

impl Carrier {
    /// Tries entries that go together: one, or the batch of a webhook.
    pub async fn carry_out(&self, entries: &[Arc<Entry>]) -> Verdict {
        let Some(entry) = entries.first() else { return Verdict::Done };
        let first = &entry.work;
        match &first.work {
            Some(Work::Webhook(webhook)) => self.webhook(webhook, entries).await,
            Some(Work::Shadow(update)) => self.shadow(first, update).await,
            Some(Work::Function(call)) => self.function(first, call).await,
            Some(Work::Command(order)) => self.command(first, order).await,
            Some(Work::Notice(notice)) => self.notice(first, notice).await,
            Some(Work::Store(row)) => self.store(first, row).await,
            Some(Work::Kafka(record)) => self.clusters.write(entry, record).await,
            Some(Work::Republish(_)) | None => Verdict::Refused("this version cannot do what it says".to_owned()),
        }
    }

    async fn webhook(&self, webhook: &Webhook, entries: &[Arc<Entry>]) -> Verdict {
        let (tenant, body) = (entries[0].work.tenant.as_str(), body(webhook, entries));
        let id = idempotency_key(entries, webhook.batch_records > 0);
        let seconds = self.clock.now_ms() / 1_000;
        let mut secret_headers = Vec::new();
        if !webhook.headers_secret.is_empty() {
            match self.secrets.entries(tenant, &webhook.headers_secret, HMAC).await {
                Ok(entries) => secret_headers.extend(entries),
                Err(reason) => return Verdict::Later(reason),
            }
        }
        let mut headers: Vec<(String, String)> = webhook.headers.clone().into_iter().collect();
        headers.push(("idempotency-key".to_owned(), id.clone()));
        headers.push(("webhook-id".to_owned(), id.clone()));
        headers.push(("webhook-timestamp".to_owned(), seconds.to_string()));
        if let Some(trace) = Some(&entries[0].work.traceparent).filter(|trace| !trace.is_empty()) {
            headers.push(("traceparent".to_owned(), trace.clone()));
        }
        if !webhook.signature_secret.is_empty() {
            let key = self.secrets.entry(tenant, &webhook.signature_secret, HMAC).await;
            match key.and_then(|key| sign(&key, &id, seconds, &body)) {
                Ok(signature) => headers.push(("webhook-signature".to_owned(), signature)),
                Err(reason) => return Verdict::Later(format!("signature: {reason}")),
            }
        }
        let (url, timeout) = (webhook.url.clone(), Duration::from_millis(webhook.timeout_ms.into()));
        let (tenant, action) = (tenant.to_owned(), action(&entries[0].work));
        self.webhooks.post(&Post { tenant, action, url, headers, secret_headers, body, timeout }).await
    }

    /// By mail where the channel has addresses, else by its webhook.
    async fn notice(&self, entry: &OutboxEntry, notice: &Notice) -> Verdict {
        match self.secrets.find(&entry.tenant, &notice.channel, EMAIL).await {
            Ok(Some(addresses)) => self.mail(entry, notice, &addresses).await,
            Ok(None) => self.post_notice(entry, notice).await,
            Err(reason) => Verdict::Later(reason),
        }
    }

    async fn mail(&self, entry: &OutboxEntry, notice: &Notice, addresses: &str) -> Verdict {
        let Some(mailer) = &self.mailer else {
            return Verdict::Later(format!("{} has addresses of mail, and rules.smtp is not set", notice.channel));
        };
        let (id, now_ms) = (hex(&entry.id), self.clock.now_ms());
        mailer.send(&Mail { tenant: &entry.tenant, addresses, text: &notice.text, id: &id, now_ms }).await
    }

    /// The address is a secret: nothing of it is told but the host.
    async fn post_notice(&self, entry: &OutboxEntry, notice: &Notice) -> Verdict {
        let url = match self.secrets.entry(&entry.tenant, &notice.channel, URL).await {
            Ok(url) => url,
            Err(reason) => return Verdict::Later(reason),
        };
        let body = serde_json::json!({"text": notice.text}).to_string().into();
        let headers = vec![("idempotency-key".to_owned(), hex(&entry.id))];
        let (tenant, action, secret_headers) = (entry.tenant.clone(), action(entry), Vec::new());
        let post = Post { tenant, action, url, headers, secret_headers, body, timeout: NOTICE_TIMEOUT };
        match self.webhooks.post(&post).await {
            Verdict::Refused(reason) if reason.starts_with("url: ") => {
                Verdict::Later(format!("{URL} of secret {} is no URL", notice.channel))
            }
            verdict @ (Verdict::Done | Verdict::Later(_) | Verdict::Away(_) | Verdict::Refused(_)) => verdict,
        }
    }

    async fn shadow(&self, entry: &OutboxEntry, update: &ShadowUpdate) -> Verdict {
        let request = UpdateShadowRequest {
            tenant: entry.tenant.clone(),
            device: update.device.clone(),
            name: update.name.clone(),
            document: update.document.clone(),
            id: entry.id.clone(),
        };
        let mut shadow = self.shadow.clone();
        told("shadow service", timeout(SERVICE_TIMEOUT, shadow.update_shadow(request)).await)
    }

    async fn command(&self, entry: &OutboxEntry, order: &CommandOrder) -> Verdict {
        let request = SendCommandRequest {
            tenant: entry.tenant.clone(),
            device: order.device.clone(),
            name: order.name.clone(),
            payload: order.payload.clone(),
            timeout_ms: order.timeout_ms,
            id: entry.id.clone(),
            hops: order.hops,
            idempotency_key: String::new(),
        };
        let mut commands = self.commands.clone();
        told("shadow service", timeout(SERVICE_TIMEOUT, commands.send_command(request)).await)
    }

    async fn store(&self, entry: &OutboxEntry, row: &StoredRow) -> Verdict {
        let request = StoreRowRequest {
            tenant: entry.tenant.clone(),
            device: row.device.clone(),
            table: row.table.clone(),
            id: entry.id.clone(),
            time_ms: entry.time_ms,
            row: row.row.clone(),
        };
        let mut storage = self.storage.clone();
        told("storage service", timeout(SERVICE_TIMEOUT, storage.store_row(request)).await)
    }

    async fn function(&self, entry: &OutboxEntry, call: &FunctionCall) -> Verdict {
        let name = &call.function;
        let Ok(tenant) = TenantId::new(&entry.tenant) else { return Verdict::Refused("tenant is none".to_owned()) };
        let function = self.rules.borrow().function(&tenant, name).cloned();
        let Some(function) = function else { return Verdict::Later(format!("function {name} does not exist")) };
        let turns = self.calls.of(tenant.clone(), CALLS_PER_TENANT);
        let Ok(turn) = turns.acquire().await else { return Verdict::Later("calls have ended".to_owned()) };
        let (functions, row) = (self.functions.clone(), String::from_utf8_lossy(&call.row).into_owned());
        let called = tokio::task::spawn_blocking(move || functions.call_alone(&tenant, &function, row)).await;
        drop(turn);
        let answer = match called {
            Ok(Ok(answer)) => answer,
            Ok(Err(error @ (CallError::Failed(_) | CallError::Slow(_)))) => {
                return Verdict::Refused(format!("function {name}: {error}"));
            }
            Ok(Err(error @ (CallError::Unavailable(_) | CallError::Busy))) => {
                return Verdict::Away(format!("function {name}: {error}"));
            }
            Err(error) => return Verdict::Refused(format!("function {name}: {error}")),
        };
        let made = match messages(answer.as_deref()) {
            Ok(made) => made,
            Err(reason) => return Verdict::Refused(format!("function {name}: {reason}")),
        };
        let Ok(id) = <[u8; 16]>::try_from(entry.id.as_slice()).map(RecordId) else {
            return Verdict::Refused("entry of the outbox has no id".to_owned());
        };
        for (number, made) in (0..).zip(made) {
            let request = PublishRequest {
                id: id.derived(name, number).0.to_vec(),
                tenant: entry.tenant.clone(),
                device: entry.device.clone(),
                client: format!("rule/{}", entry.rule),
                topic: made.topic,
                payload: match made.payload {
                    Value::String(text) => text.into_bytes(),
                    json => json.to_string().into_bytes(),
                },
                qos: made.qos,
                hops: call.hops,
                traceparent: entry.traceparent.clone(),
            };
            let verdict = publish(&self.ingress, request).await;
            if verdict != Verdict::Done {
                return verdict;
            }
        }
        Verdict::Done
    }
}

/// The body of a request: that of its one entry, or those of a batch as a JSON array.
fn body(webhook: &Webhook, entries: &[Arc<Entry>]) -> Bytes {
    if webhook.batch_records == 0 {
        return Bytes::copy_from_slice(&webhook.body);
    }
    let mut array = vec![b'['];
    for (i, entry) in entries.iter().enumerate() {
        if i > 0 {
            array.push(b',');
        }
        if let Some(Work::Webhook(webhook)) = &entry.work.work {
            array.extend_from_slice(&webhook.body);
        }
    }
    array.push(b']');
    array.into()
}

/// Which rule and which of its actions.
fn action(entry: &OutboxEntry) -> (String, u32) {
    (entry.rule.clone(), entry.action)
}

/// The same whenever the same entries are sent.
fn idempotency_key(entries: &[Arc<Entry>], is_batch: bool) -> String {
    if !is_batch {
        return hex(&entries[0].work.id);
    }
    let ids: Vec<u8> = entries.iter().flat_map(|entry| entry.work.id.iter().copied()).collect();
    hex(&digest(&SHA256, &ids).as_ref()[..16])
}

/// What a function wants to have published: nothing, a message, or a list of them.
fn messages(answer: Option<&str>) -> Result<Vec<Made>, String> {
    let Some(answer) = answer else { return Ok(Vec::new()) };
    let told = |error: serde_json::Error| format!("result is no message {{topic, payload, qos}}: {error}");
    let made: Vec<Made> = match serde_json::from_str::<Value>(answer).map_err(told)? {
        Value::Null => Vec::new(),
        Value::Array(list) if list.len() > MESSAGES_MAX => {
            return Err(format!("result has {} messages, limit is {MESSAGES_MAX}", list.len()));
        }
        list @ Value::Array(_) => serde_json::from_value(list).map_err(told)?,
        one => vec![serde_json::from_value(one).map_err(told)?],
    };
    match made.iter().find(|made| made.qos > 1) {
        Some(made) => Err(format!("result has a message of qos {}, limit is 1", made.qos)),
        None => Ok(made),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_makes_nothing_one_message_or_a_list() {
        let topics = |answer: Option<&str>| {
            messages(answer).map(|made| made.into_iter().map(|made| made.topic).collect::<Vec<_>>())
        };
        assert_eq!(topics(None), Ok(vec![]));
        assert_eq!(topics(Some("null")), Ok(vec![]));
        assert_eq!(topics(Some(r#"{"topic": "a", "payload": 1}"#)), Ok(vec!["a".to_owned()]));
        let two = r#"[{"topic": "a", "payload": "x", "qos": 1}, {"topic": "b", "payload": {}}]"#;
        assert_eq!(topics(Some(two)), Ok(vec!["a".to_owned(), "b".to_owned()]));
        for wrong in ["1", r#"{"topic": "a"}"#, r#"{"topic": "a", "payload": 1, "qos": 2}"#] {
            assert!(topics(Some(wrong)).is_err(), "{wrong}");
        }
        let many = |n: usize| format!("[{}]", vec![r#"{"topic": "a", "payload": 1}"#; n].join(","));
        assert!(topics(Some(&many(MESSAGES_MAX))).is_ok());
        assert!(topics(Some(&many(MESSAGES_MAX + 1))).is_err());
    }
}
