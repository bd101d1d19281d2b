//! gRPC: decodes, asks the board or the language, encodes.

use std::sync::Arc;

use drover_proto::rules::v1 as wire;
use drover_proto::rules::v1::rules_server::Rules;
use drover_proto::to_status;
use drover_rule_sql::{Message, Outcome, Rule};
use drover_types::{ApiError, ErrorCode, TenantId};
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use crate::domain::{Board, InForce, Offsets, RuleState};
use crate::lag::Lag;
use crate::replay::{Part, Replayer, Wanted};

/// The service `drover.rules.v1.Rules`. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    pub board: Arc<Board>,
    pub in_force: Arc<InForce>,
    /// As it was when last looked at; `None` until then.
    pub lag: watch::Receiver<Option<Lag>>,
    /// `None` until rules are known.
    pub replayer: watch::Receiver<Option<Arc<Replayer>>>,
}

#[tonic::async_trait]
impl Rules for Server {
    async fn get_status(
        &self,
        request: Request<wire::GetStatusRequest>,
    ) -> Result<Response<wire::GetStatusResponse>, Status> {
        let wire::GetStatusRequest { tenant, name } = request.into_inner();
        let tenant =
            TenantId::new(&tenant).map_err(|error| to_status(&ApiError::invalid("tenant", error.to_string())))?;
        let unknown = || to_status(&ApiError::new(ErrorCode::NotFound, format!("rule {name} was not seen yet")));
        let key = (tenant, name.clone());
        let state = self.board.get(&key).ok_or_else(unknown)?;
        let since = self.in_force.since(&key, state.generation);
        let waits =
            || to_status(&ApiError::new(ErrorCode::Unavailable, "how far the rules are behind is not known yet"));
        let lag = self.lag.borrow().ok_or_else(waits)?;
        Ok(Response::new(wire::GetStatusResponse { status: Some(status(state, since, lag)) }))
    }

    async fn evaluate(
        &self,
        request: Request<wire::EvaluateRequest>,
    ) -> Result<Response<wire::EvaluateResponse>, Status> {
        let request = request.into_inner();
        let rule = Rule::compile(&request.sql).map_err(|error| to_status(&error.in_field("sql")))?;
        let client = Some(request.client_id.as_str()).filter(|client| !client.is_empty());
        let message = Message::new(&request.topic, client, request.timestamp_ms, &request.payload);
        let outcome = match rule.evaluate(&message) {
            Outcome::Row(row) => wire::evaluate_response::Outcome::Row(row.to_string()),
            Outcome::NoMatch => wire::evaluate_response::Outcome::NoMatch(true),
            Outcome::Error(error) => wire::evaluate_response::Outcome::Error(error.to_string()),
        };
        Ok(Response::new(wire::EvaluateResponse { outcome: Some(outcome) }))
    }

    async fn replay(&self, request: Request<wire::ReplayRequest>) -> Result<Response<wire::ReplayResponse>, Status> {
        let wire::ReplayRequest { tenant, name, errors, since_ms, cursor } = request.into_inner();
        let tenant =
            TenantId::new(&tenant).map_err(|error| to_status(&ApiError::invalid("tenant", error.to_string())))?;
        let replayer = self.replayer.borrow().clone();
        let waits = || to_status(&ApiError::new(ErrorCode::Unavailable, "rules are not known yet"));
        let replayer = replayer.ok_or_else(waits)?;
        let part = replayer.part(&(tenant, name), Wanted { errors, since_ms }, &cursor).await;
        let Part { read, replayed, emitted, failed, skipped, left, next } = part.map_err(|error| to_status(&error))?;
        Ok(Response::new(wire::ReplayResponse { read, replayed, emitted, failed, skipped, left, next }))
    }
}

fn status(state: RuleState, since: Offsets, lag: Lag) -> wire::RuleStatus {
    let accepted = wire::Condition {
        r#type: "Accepted".to_owned(),
        status: if state.accepted.holds { "True" } else { "False" }.to_owned(),
        reason: state.accepted.reason,
        message: state.accepted.message,
        last_transition_ms: state.accepted.since_ms,
    };
    let actions = state.counts.actions.iter().map(|(number, did)| wire::ActionStatus {
        action: *number,
        emitted: did.emitted,
        delivered: did.delivered,
        retried: did.retried,
        failed: did.failed,
    });
    wire::RuleStatus {
        actions: actions.collect(),
        observed_generation: state.generation,
        effective_from: since.into_iter().collect(),
        conditions: vec![accepted],
        matched: state.counts.matched,
        emitted: state.counts.emitted,
        failed: state.counts.failed,
        dropped: state.counts.dropped,
        groups: state.groups,
        lag: lag.records,
        lag_ms: lag.age_ms,
        last_error: state.counts.last_error.map(|error| wire::LastError {
            time_ms: error.time_ms,
            message: error.message,
            topic: error.topic,
            sample: error.sample,
            source: error.source,
        }),
    }
}
