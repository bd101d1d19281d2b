//! Actions as declared, compiled: their templates, and what they make of a row.

use std::cell::Cell;

use drover_bus::Topic;
use drover_rule_sql::{Asked, CompiledRule, EvalError, Message, Row, Template};
use drover_types::limits::COMMAND_TIMEOUT_MS;
use drover_types::object::{Action, CommandAction, DEVICE_TAG, SecretRef, ShadowAction, TemplateField, WebhookAction};
use drover_types::{ApiError, Qos};
use serde_json::Value;

/// Partitions of an output topic whose action names no number.
pub const OUTPUT_PARTITIONS: u32 = 8;
/// Longest wait for a webhook's answer where its action names none, in milliseconds.
const TIMEOUT_MS: u32 = 5_000;

/// Compiles the templates of a rule's actions, and keeps in mind what they look up.
pub struct Templates<'a> {
    rule: &'a CompiledRule,
    asked: Cell<Asked>,
}

/// What is done with a row.
#[derive(Debug)]
pub enum CompiledAction {
    /// `key` absent: the device. `partition` absent: by the key. `partitions`: of a topic that has to be made. `cluster`
    /// absent: the platform's own.
    Kafka {
        topic: Topic,
        key: Option<Template>,
        partition: Option<Template>,
        headers: Vec<(String, Template)>,
        partitions: u32,
        cluster: Option<String>,
    },
    Republish {
        topic: Template,
        qos: Qos,
    },
    Webhook(CompiledWebhook),
    Shadow(CompiledShadow),
    /// `device` absent: that of the message.
    Store {
        table: String,
        device: Option<Template>,
    },
    Function {
        function: String,
    },
    Notify {
        channel: String,
        text: Template,
    },
    Command(CompiledCommand),
}

/// A webhook's templates and what its requests have in common.
#[derive(Debug)]
pub struct CompiledWebhook {
    pub url: Template,
    /// As declared: scheme, host and port are those of every request.
    pub address: String,
    pub headers: Vec<(String, Template)>,
    /// Absent: the row.
    pub body: Option<Template>,
    /// Names of secrets; empty: none.
    pub headers_secret: String,
    pub signature_secret: String,
    pub timeout_ms: u32,
    /// 0: a row is a request.
    pub batch_records: u32,
}

/// An update of a shadow.
#[derive(Debug)]
pub struct CompiledShadow {
    pub device: Template,
    /// Empty: the classic shadow.
    pub name: String,
    desired: Option<Pattern>,
    reported: Option<Pattern>,
}

/// A command to a device.
#[derive(Debug)]
pub struct CompiledCommand {
    pub device: Template,
    pub name: String,
    payload: Option<Pattern>,
    pub timeout_ms: u64,
}

/// JSON whose texts are templates.
#[derive(Debug)]
enum Pattern {
    Plain(Value),
    Text(Template),
    Array(Vec<Pattern>),
    Object(Vec<(String, Pattern)>),
}

impl CompiledAction {
    /// Compiles an action that was checked; the error names the field, from `field` on.
    pub fn compile(templates: &Templates<'_>, action: &Action, field: &str) -> Result<Self, ApiError> {
        let template = |pointer: &str, text: &str| templates.compile(field, pointer, text);
        if let Some(kafka) = &action.kafka {
            let mut headers = Vec::with_capacity(kafka.headers.len());
            for (name, value) in &kafka.headers {
                headers.push((name.clone(), template(&format!("/kafka/headers/{name}"), value)?));
            }
            return Ok(Self::Kafka {
                headers,
                cluster: kafka.cluster.clone(),
                topic: kafka.topic.as_str().into(),
                key: kafka.key.as_deref().map(|key| template("/kafka/key", key)).transpose()?,
                partition: kafka.partition.as_deref().map(|text| template("/kafka/partition", text)).transpose()?,
                partitions: kafka.create_topic.as_ref().map_or(OUTPUT_PARTITIONS, |create| create.partitions),
            });
        }
        if let Some(republish) = &action.republish {
            let topic = template("/republish/topic", &republish.topic)?;
            return Ok(Self::Republish { topic, qos: republish.qos });
        }
        if let Some(webhook) = &action.webhook {
            return CompiledWebhook::compile(templates, webhook, field).map(Self::Webhook);
        }
        if let Some(shadow) = &action.shadow {
            return CompiledShadow::compile(templates, shadow, field).map(Self::Shadow);
        }
        if let Some(store) = &action.store {
            let device = format!("${{{DEVICE_TAG}}}");
            let device = store.is_of_row().then(|| template("/store/tags", &device)).transpose()?;
            return Ok(Self::Store { table: store.table.clone(), device });
        }
        if let Some(function) = &action.function {
            return Ok(Self::Function { function: function.function.clone() });
        }
        if let Some(notify) = &action.notify {
            let text = template("/notify/text", &notify.text)?;
            return Ok(Self::Notify { channel: notify.channel.clone(), text });
        }
        if let Some(command) = &action.command {
            return CompiledCommand::compile(templates, command, field).map(Self::Command);
        }
        Err(ApiError::invalid(field, "an action has exactly one kind"))
    }

    /// The function it calls.
    pub fn function(&self) -> Option<&str> {
        match self {
            Self::Function { function } => Some(function),
            Self::Kafka { .. }
            | Self::Republish { .. }
            | Self::Webhook(_)
            | Self::Shadow(_)
            | Self::Store { .. }
            | Self::Notify { .. }
            | Self::Command(_) => None,
        }
    }
}

impl<'a> Templates<'a> {
    /// Those of the actions of `rule`.
    pub fn of(rule: &'a CompiledRule) -> Self {
        Self { rule, asked: Cell::new(rule.asked()) }
    }

    /// What the rule's statement and the templates so far look up.
    pub fn asked(&self) -> Asked {
        self.asked.get()
    }

    fn compile(&self, field: &str, pointer: &str, text: &str) -> Result<Template, ApiError> {
        let place = TemplateField { pointer: pointer.to_owned(), text };
        let template = self.rule.template(text).map_err(|error| error.in_field(place.name(field)))?;
        self.asked.set(self.asked.get().and(template.asked()));
        Ok(template)
    }
}

impl CompiledWebhook {
    fn compile(templates: &Templates<'_>, webhook: &WebhookAction, field: &str) -> Result<Self, ApiError> {
        let template = |pointer: &str, text: &str| templates.compile(field, pointer, text);
        let mut headers = Vec::with_capacity(webhook.headers.len());
        for (name, value) in &webhook.headers {
            headers.push((name.clone(), template(&format!("/webhook/headers/{name}"), value)?));
        }
        let secret =
            |secret: &Option<SecretRef>| secret.as_ref().map(|secret| secret.secret_ref.clone()).unwrap_or_default();
        Ok(Self {
            url: template("/webhook/url", &webhook.url)?,
            address: webhook.url.clone(),
            headers,
            body: webhook.body.as_deref().map(|body| template("/webhook/body", body)).transpose()?,
            headers_secret: secret(&webhook.headers_from),
            signature_secret: secret(&webhook.signature),
            timeout_ms: webhook.timeout.map_or(TIMEOUT_MS, |timeout| timeout.ms),
            batch_records: webhook.batch.map_or(0, |batch| batch.records),
        })
    }
}

impl CompiledShadow {
    fn compile(templates: &Templates<'_>, shadow: &ShadowAction, field: &str) -> Result<Self, ApiError> {
        let pattern = |part: &str, state: &Option<Value>| {
            state.as_ref().map(|state| Pattern::compile(templates, state, field, format!("/shadow/{part}"))).transpose()
        };
        Ok(Self {
            device: templates.compile(field, "/shadow/device", &shadow.device)?,
            name: shadow.name.clone().unwrap_or_default(),
            desired: pattern("desired", &shadow.desired)?,
            reported: pattern("reported", &shadow.reported)?,
        })
    }

    /// `{"state": {"desired": …, "reported": …}}` for one message and its row.
    pub fn document(&self, message: &Message<'_>, row: &Row<'_>) -> Result<String, EvalError> {
        let mut state = Vec::new();
        for (part, pattern) in [("desired", &self.desired), ("reported", &self.reported)] {
            if let Some(pattern) = pattern {
                state.push(format!("\"{part}\":{}", pattern.render(message, row)?));
            }
        }
        Ok(format!("{{\"state\":{{{}}}}}", state.join(",")))
    }
}

impl CompiledCommand {
    fn compile(templates: &Templates<'_>, command: &CommandAction, field: &str) -> Result<Self, ApiError> {
        let payload = command.payload.as_ref();
        let pattern = |json| Pattern::compile(templates, json, field, "/command/payload".to_owned());
        Ok(Self {
            device: templates.compile(field, "/command/device", &command.device)?,
            name: command.name.clone(),
            payload: payload.map(pattern).transpose()?,
            timeout_ms: command.timeout.map_or(COMMAND_TIMEOUT_MS, |timeout| timeout.ms.into()),
        })
    }

    /// The payload for one message and its row, JSON.
    pub fn payload(&self, message: &Message<'_>, row: &Row<'_>) -> Result<String, EvalError> {
        self.payload.as_ref().map_or_else(|| Ok("null".to_owned()), |pattern| pattern.render(message, row))
    }
}

impl Pattern {
    fn compile(templates: &Templates<'_>, value: &Value, field: &str, pointer: String) -> Result<Self, ApiError> {
        match value {
            Value::String(text) => templates.compile(field, &pointer, text).map(Self::Text),
            Value::Array(elements) => {
                let elements = elements.iter().enumerate();
                let elements =
                    elements.map(|(i, element)| Self::compile(templates, element, field, format!("{pointer}/{i}")));
                elements.collect::<Result<_, _>>().map(Self::Array)
            }
            Value::Object(members) => {
                let members = members.iter().map(|(name, member)| {
                    let member = Self::compile(templates, member, field, format!("{pointer}/{name}"))?;
                    Ok((name.clone(), member))
                });
                members.collect::<Result<_, ApiError>>().map(Self::Object)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(Self::Plain(value.clone())),
        }
    }

    /// It as JSON.
    fn render(&self, message: &Message<'_>, row: &Row<'_>) -> Result<String, EvalError> {
        Ok(match self {
            Self::Plain(value) => value.to_string(),
            Self::Text(template) => template.render_value(message, row)?,
            Self::Array(elements) => {
                let mut rendered = Vec::with_capacity(elements.len());
                for element in elements {
                    rendered.push(element.render(message, row)?);
                }
                format!("[{}]", rendered.join(","))
            }
            Self::Object(members) => {
                let mut rendered = Vec::with_capacity(members.len());
                for (name, member) in members {
                    let name = Value::from(name.as_str());
                    rendered.push(format!("{name}:{}", member.render(message, row)?));
                }
                format!("{{{}}}", rendered.join(","))
            }
        })
    }
}
