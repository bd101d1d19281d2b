//! `rules` and `rules/{rule}`: the registry's definition with the rules service's status.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use drover_host::{Network, grpc};
use drover_proto::Field;
use drover_proto::registry::v1::{DeleteRuleRequest, GetRuleRequest, ListRulesRequest, PutRuleRequest};
use drover_proto::rules::v1::rules_client::RulesClient;
use drover_proto::rules::v1::{self as wire_status, GetStatusRequest};
use drover_proto::types::v1 as wire;
use drover_types::object::{Action, RuleSpec};
use drover_types::{ApiError, ErrorCode, TenantId};
use futures::future::join_all;
use serde_json::Value;
use tokio::time::Instant;

use super::Api;
use super::backend::within;
use super::body::{Body, Params};
use super::objects::{Answer, List, Page};
use super::path::{At, RuleParam};
use super::unanswered::Unanswered;
use crate::domain::declared::{Declared, Metadata};
use crate::domain::status;
use drover_host::http::Failure;

type Rule = Declared<RuleSpec>;

/// How long the rules service may take to tell a status; a definition is shown without it rather than late.
const STATUS_DEADLINE: Duration = Duration::from_secs(2);
/// Rules asked for at once when the owner of a topic is looked up.
const OWNER_PAGE_ITEMS: u32 = 1_000;

/// How long an answer to a change waits for the rules service to work by it.
const IN_FORCE_DEADLINE: Duration = Duration::from_secs(5);
/// Between two looks at whether it does.
const IN_FORCE_LOOK: Duration = Duration::from_millis(10);

/// The way to the rules service: to each of its replicas, which share the partitions of the log.
pub struct RuleStatuses {
    replicas: Vec<RulesClient<grpc::Client>>,
    unanswered: Unanswered,
}

impl RuleStatuses {
    /// Connects when first used.
    pub fn new(network: &Network) -> Self {
        let replicas = network.replicas("rules").into_iter().map(|(_, client)| RulesClient::new(client)).collect();
        Self { replicas, unanswered: Unanswered::default() }
    }

    /// A question that any answer, even "not found", shows to be heard.
    pub async fn ping(&self) -> Result<(), ApiError> {
        match self.ask("default", "ping").await {
            Err(error) if error.code != ErrorCode::NotFound => Err(error),
            Err(_) | Ok(_) => Ok(()),
        }
    }

    /// What all replicas that answer say together. Not found as long as one of them has not seen the rule.
    async fn ask(&self, tenant: &str, name: &str) -> Result<Option<wire_status::RuleStatus>, ApiError> {
        let unanswered = &self.unanswered;
        let ask = |client: &RulesClient<grpc::Client>| {
            let mut client = client.clone();
            let request = GetStatusRequest { tenant: tenant.to_owned(), name: name.to_owned() };
            async move { within("rules service", unanswered, STATUS_DEADLINE, client.get_status(request)).await }
        };
        let mut merged: Option<wire_status::RuleStatus> = None;
        let mut unreachable = None;
        for answer in join_all(self.replicas.iter().map(ask)).await {
            match answer {
                Ok(answer) => merged = status::merged(merged, answer.status),
                Err(error) if error.code == ErrorCode::NotFound => return Err(error),
                Err(error) => unreachable = Some(error),
            }
        }
        match (merged, unreachable) {
            (None, Some(error)) => Err(error),
            (merged, _) => Ok(merged),
        }
    }

    /// The status of a rule; why it is unknown stands in its condition.
    async fn of(&self, meta: &wire::Meta) -> Value {
        told(self.ask(&meta.tenant, &meta.name).await)
    }

    /// The status of a rule once the rules service works by this generation of it, or says why it does not; not waited
    /// for long. Who is answered may publish and rely on the rule.
    async fn observed(&self, meta: &wire::Meta) -> Value {
        let until = Instant::now() + IN_FORCE_DEADLINE;
        loop {
            let answer = self.ask(&meta.tenant, &meta.name).await;
            let settled = match &answer {
                Ok(Some(status)) => status.observed_generation >= meta.generation,
                Ok(None) => false,
                Err(error) => error.code != ErrorCode::NotFound,
            };
            if settled || Instant::now() >= until {
                return told(answer);
            }
            tokio::time::sleep(IN_FORCE_LOOK).await;
        }
    }
}

fn told(answer: Result<Option<wire_status::RuleStatus>, ApiError>) -> Value {
    match answer {
        Ok(Some(status)) => status::rule(status),
        Ok(None) => not_observed(),
        Err(error) if error.code == ErrorCode::NotFound => not_observed(),
        Err(error) => status::unknown_rule("StatusUnavailable", &error.message),
    }
}

fn not_observed() -> Value {
    status::unknown_rule("NotObserved", "the rules service has not seen the rule yet")
}

/// Rules with their status, in the order of their names.
#[utoipa::path(get, path = "/rules", operation_id = "listRules", tag = "rules", params(Page),
    responses((status = 200, body = List<Declared<RuleSpec>>, description = "One page.")))]
pub async fn list(State(api): State<Arc<Api>>, at: At, Params(page): Params<Page>) -> Answer<List<Rule>> {
    let request = ListRulesRequest {
        tenant: at.tenant.into(),
        page_size: page.size(api.config.page_items_max)?,
        page_token: page.page_token,
    };
    let listed = api.registry.call(async |mut client| client.list_rules(request).await).await?;
    // Statuses are asked for one by one: without an answer to this, a long page would take as many deadlines.
    let reachable = api.statuses.ping().await;
    let mut items = Vec::with_capacity(listed.rules.len());
    for rule in &listed.rules {
        items.push(match &reachable {
            Ok(()) => with_status(&api, rule).await?,
            Err(error) => shown(rule, status::unknown_rule("StatusUnavailable", &error.message))?,
        });
    }
    Ok(Json(List { items, next_page_token: listed.next_page_token }))
}

/// One rule with its status.
#[utoipa::path(get, path = "/rules/{rule}", operation_id = "getRule", tag = "rules", params(RuleParam),
    responses((status = 200, body = Declared<RuleSpec>, description = "The rule.")))]
pub async fn get(State(api): State<Arc<Api>>, at: At) -> Answer<Rule> {
    let request = GetRuleRequest { tenant: at.tenant.to_string(), name: at.name("rule")?.to_owned() };
    let found = api.registry.call(async |mut client| client.get_rule(request).await).await?;
    Ok(Json(with_status(&api, found.rule.as_ref().required("rule")?).await?))
}

/// Makes or replaces a rule; SQL that does not compile is refused with its line and column. Messages published after
/// the answer meet the rule if its status says `Accepted`.
#[utoipa::path(put, path = "/rules/{rule}", operation_id = "putRule", tag = "rules", params(RuleParam),
    request_body = Declared<RuleSpec>, responses((status = 200, body = Declared<RuleSpec>, description = "The rule as it is now.")))]
pub async fn put(State(api): State<Arc<Api>>, at: At, Body(body): Body) -> Answer<Rule> {
    let object = Rule::read(body)?;
    let meta = object.metadata.to_wire(&at.tenant, Some(at.name("rule")?))?;
    object.spec.check()?;
    let request = PutRuleRequest { rule: Some(wire::Rule::of(meta, object.spec)) };
    let kept = api.registry.call(async |mut client| client.put_rule(request).await).await?;
    let rule = kept.rule.as_ref().required("rule")?;
    let status = api.statuses.observed(rule.meta.as_ref().required("rule.meta")?).await;
    Ok(Json(shown(rule, status)?))
}

/// Deletes a rule.
#[utoipa::path(delete, path = "/rules/{rule}", operation_id = "deleteRule", tag = "rules", params(RuleParam),
    responses((status = 204, description = "It is deleted.")))]
pub async fn delete(State(api): State<Arc<Api>>, at: At) -> Result<StatusCode, Failure> {
    let request = DeleteRuleRequest { tenant: at.tenant.to_string(), name: at.name("rule")?.to_owned() };
    api.registry.call(async |mut client| client.delete_rule(request).await).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a rule of `tenant` writes to the Kafka topic `topic`.
pub async fn writes_to(api: &Api, tenant: &TenantId, topic: &str) -> Result<bool, ApiError> {
    let mut page_token = String::new();
    loop {
        let request = ListRulesRequest {
            tenant: tenant.to_string(),
            page_size: OWNER_PAGE_ITEMS,
            page_token: page_token.clone(),
        };
        let page = api.registry.call(async |mut client| client.list_rules(request).await).await?;
        for rule in &page.rules {
            let spec = RuleSpec::try_from(rule)?;
            let writes = |action: &Action| {
                action.kafka.as_ref().is_some_and(|kafka| kafka.cluster.is_none() && kafka.topic == topic)
            };
            if spec.actions.iter().chain(&spec.error_action).any(writes) {
                return Ok(true);
            }
        }
        if page.next_page_token.is_empty() {
            return Ok(false);
        }
        page_token = page.next_page_token;
    }
}

async fn with_status(api: &Api, rule: &wire::Rule) -> Result<Rule, ApiError> {
    let status = api.statuses.of(rule.meta.as_ref().required("rule.meta")?).await;
    shown(rule, status)
}

fn shown(rule: &wire::Rule, status: Value) -> Result<Rule, ApiError> {
    let metadata = Metadata::from(rule.meta.as_ref().required("rule.meta")?);
    Ok(Declared::new(metadata, RuleSpec::try_from(rule)?, Some(status)))
}
