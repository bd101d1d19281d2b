//! Actions of rules: each kind of the one becomes the same kind of the other.

use drover_types::object::{
    Action, Batch, CommandAction, CreateTopic, FunctionAction, KafkaAction, NotifyAction, RepublishAction, SecretRef,
    ShadowAction, StoreAction, Timeout, WebhookAction,
};
use drover_types::{ApiError, Qos};
use serde_json::Value;

use super::Field;
use crate::types::v1 as wire;
use crate::types::v1::action::Action as Kind;

impl TryFrom<&wire::Action> for Action {
    type Error = ApiError;

    fn try_from(action: &wire::Action) -> Result<Self, ApiError> {
        let mut read = Self::default();
        match action.action.as_ref().required("action")? {
            Kind::Kafka(kafka) => {
                read.kafka = Some(KafkaAction {
                    topic: kafka.topic.clone(),
                    key: kafka.key.clone(),
                    partition: kafka.partition.clone(),
                    headers: kafka.headers.clone().into_iter().collect(),
                    create_topic: kafka.create_partitions.map(|partitions| CreateTopic { partitions }),
                    cluster: given(&kafka.cluster),
                });
            }
            Kind::Republish(republish) => {
                read.republish = Some(RepublishAction {
                    topic: republish.topic.clone(),
                    qos: u8::try_from(republish.qos)
                        .ok()
                        .and_then(|qos| Qos::try_from(qos).ok())
                        .ok_or_else(|| ApiError::invalid("republish.qos", "is 0 or 1").over(1, republish.qos))?,
                });
            }
            Kind::Webhook(webhook) => {
                let secret = |name: &str| given(name).map(|secret_ref| SecretRef { secret_ref });
                read.webhook = Some(WebhookAction {
                    url: webhook.url.clone(),
                    headers: webhook.headers.clone().into_iter().collect(),
                    headers_from: secret(&webhook.headers_secret),
                    signature: secret(&webhook.signature_secret),
                    body: webhook.body.clone(),
                    timeout: Some(webhook.timeout_ms).filter(|ms| *ms > 0).map(|ms| Timeout { ms }),
                    batch: Some(webhook.batch_records).filter(|r| *r > 0).map(|records| Batch { records }),
                });
            }
            Kind::Shadow(shadow) => {
                read.shadow = Some(ShadowAction {
                    device: shadow.device.clone(),
                    name: given(&shadow.name),
                    desired: state("shadow.desired", &shadow.desired)?,
                    reported: state("shadow.reported", &shadow.reported)?,
                });
            }
            Kind::Store(store) => {
                read.store = Some(StoreAction { table: store.table.clone(), tags: store.tags.clone() });
            }
            Kind::Function(function) => {
                read.function = Some(FunctionAction { function: function.function.clone() });
            }
            Kind::Notify(notify) => {
                read.notify = Some(NotifyAction { channel: notify.channel.clone(), text: notify.text.clone() });
            }
            Kind::Command(command) => {
                read.command = Some(CommandAction {
                    device: command.device.clone(),
                    name: command.name.clone(),
                    payload: state("command.payload", &command.payload)?,
                    timeout: Some(command.timeout_ms).filter(|ms| *ms > 0).map(|ms| Timeout { ms }),
                });
            }
        }
        Ok(read)
    }
}

fn given(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

fn state(field: &str, json: &str) -> Result<Option<Value>, ApiError> {
    let read = |json: String| {
        serde_json::from_str(&json).map_err(|error| ApiError::invalid(field, format!("is no JSON: {error}")))
    };
    given(json).map(read).transpose()
}

impl From<Action> for wire::Action {
    fn from(action: Action) -> Self {
        let kafka = action.kafka.map(|kafka| {
            Kind::Kafka(wire::KafkaAction {
                topic: kafka.topic,
                key: kafka.key,
                partition: kafka.partition,
                create_partitions: kafka.create_topic.map(|create| create.partitions),
                headers: kafka.headers.into_iter().collect(),
                cluster: kafka.cluster.unwrap_or_default(),
            })
        });
        let republish = action.republish.map(|republish| {
            Kind::Republish(wire::RepublishAction { topic: republish.topic, qos: republish.qos as u32 })
        });
        let webhook = action.webhook.map(|webhook| {
            let secret = |secret: Option<SecretRef>| secret.map(|secret| secret.secret_ref).unwrap_or_default();
            Kind::Webhook(wire::WebhookAction {
                url: webhook.url,
                headers: webhook.headers.into_iter().collect(),
                headers_secret: secret(webhook.headers_from),
                signature_secret: secret(webhook.signature),
                body: webhook.body,
                timeout_ms: webhook.timeout.map_or(0, |timeout| timeout.ms),
                batch_records: webhook.batch.map_or(0, |batch| batch.records),
            })
        });
        let shadow = action.shadow.map(|shadow| {
            let json = |state: Option<Value>| state.map(|state| state.to_string()).unwrap_or_default();
            Kind::Shadow(wire::ShadowAction {
                device: shadow.device,
                name: shadow.name.unwrap_or_default(),
                desired: json(shadow.desired),
                reported: json(shadow.reported),
            })
        });
        let store = action.store.map(|store| Kind::Store(wire::StoreAction { table: store.table, tags: store.tags }));
        let function =
            action.function.map(|function| Kind::Function(wire::FunctionAction { function: function.function }));
        let notify =
            action.notify.map(|notify| Kind::Notify(wire::NotifyAction { channel: notify.channel, text: notify.text }));
        let command = action.command.map(|command| {
            Kind::Command(wire::CommandAction {
                device: command.device,
                name: command.name,
                payload: command.payload.map(|payload| payload.to_string()).unwrap_or_default(),
                timeout_ms: command.timeout.map_or(0, |timeout| timeout.ms),
            })
        });
        Self { action: kafka.or(republish).or(webhook).or(shadow).or(store).or(function).or(notify).or(command) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn actions_survive_the_wire() {
        for json in [
            json!({"webhook": {"url": "https://h/${d}", "headers": {"x-a": "b"}, "headersFrom": {"secretRef": "s"},
                "signature": {"secretRef": "t"}, "body": "${t}", "timeout": "1500ms"}}),
            json!({"webhook": {"url": "https://h", "timeout": "5s", "batch": {"records": 100}}}),
            json!({"shadow": {"device": "${d}", "name": "n", "desired": {"fan": "on"}, "reported": {"t": ["${t}"]}}}),
            json!({"store": {"table": "hot", "tags": ["device"]}}),
            json!({"function": {"ref": "decode-v2"}}),
            json!({"kafka": {"topic": "t", "key": "${d}", "headers": {"room": "${r}"}, "cluster": "other"}}),
            json!({"notify": {"channel": "ops", "text": "${d} is at ${t}"}}),
            json!({"command": {"device": "${d}", "name": "fan", "payload": {"on": "${t}"}, "timeout": "30s"}}),
            json!({"command": {"device": "d", "name": "reboot"}}),
        ] {
            let action: Action = serde_json::from_value(json).expect("an action");
            assert_eq!(Action::try_from(&wire::Action::from(action.clone())), Ok(action));
        }
        let shadow = wire::ShadowAction { desired: "{".into(), ..wire::ShadowAction::default() };
        let refused = Action::try_from(&wire::Action { action: Some(Kind::Shadow(shadow)) }).expect_err("refused");
        assert_eq!(refused.field.as_deref(), Some("shadow.desired"));
    }
}
