//! The rules service over gRPC.

use async_trait::async_trait;
use drover_host::{Network, grpc};
use drover_proto::rules::v1::GetStatusRequest;
use drover_proto::rules::v1::rules_client::RulesClient;
use drover_types::{ApiError, TenantId};

use super::backend::{Backend, unless_gone};
use crate::ports::{RuleError, RuleRun, RuleRuns};

/// The rules service of the network. Of several processes the sum is asked for, as far as each answers.
pub struct GrpcRules(Vec<Backend<RulesClient<grpc::Client>>>);

impl GrpcRules {
    /// Connects when first used.
    pub fn new(network: &Network) -> Self {
        let replicas = network.replicas("rules").into_iter();
        Self(replicas.map(|(_, client)| Backend::new("rules service", RulesClient::new(client))).collect())
    }
}

#[async_trait]
impl RuleRuns for GrpcRules {
    async fn run_of(&self, tenant: &TenantId, name: &str) -> Result<Option<RuleRun>, ApiError> {
        let (mut sum, mut refused) = (None::<RuleRun>, None);
        for replica in &self.0 {
            let request = GetStatusRequest { tenant: tenant.to_string(), name: name.to_owned() };
            match unless_gone(replica.call(async |mut client| client.get_status(request).await).await) {
                Ok(answer) => {
                    let run = answer.and_then(|answer| answer.status).map(run_of);
                    sum = [sum, run].into_iter().flatten().reduce(together);
                }
                Err(error) => refused = Some(error),
            }
        }
        match (sum, refused) {
            (None, Some(error)) => Err(error),
            (sum, _) => Ok(sum),
        }
    }
}

fn run_of(status: drover_proto::rules::v1::RuleStatus) -> RuleRun {
    let accepted = status.conditions.into_iter().find(|condition| condition.r#type == "Accepted").unwrap_or_default();
    RuleRun {
        generation: status.observed_generation,
        accepted: accepted.status == "True",
        reason: accepted.reason,
        message: accepted.message,
        matched: status.matched,
        emitted: status.emitted,
        failed: status.failed,
        dropped: status.dropped,
        lag: status.lag,
        lag_ms: status.lag_ms,
        last_error: status.last_error.map(|error| RuleError {
            time_ms: error.time_ms,
            message: error.message,
            topic: error.topic,
            sample: error.sample,
            source: error.source,
        }),
    }
}

/// Two processes that run the same rule: whoever is behind or refuses it speaks for both. Lag is of the whole log already.
fn together(one: RuleRun, other: RuleRun) -> RuleRun {
    let last_error = [&one.last_error, &other.last_error].into_iter().flatten().max_by_key(|e| e.time_ms).cloned();
    let (matched, emitted) = (one.matched + other.matched, one.emitted + other.emitted);
    let (failed, dropped) = (one.failed + other.failed, one.dropped + other.dropped);
    let (lag, lag_ms) = (one.lag.max(other.lag), one.lag_ms.max(other.lag_ms));
    let speaks = if (other.generation, other.accepted) < (one.generation, one.accepted) { other } else { one };
    RuleRun { matched, emitted, failed, dropped, lag, lag_ms, last_error, ..speaks }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_processes_numbers_are_added_and_the_one_behind_speaks() {
        let one = RuleRun { generation: 2, accepted: true, matched: 3, failed: 1, lag: 4, ..RuleRun::default() };
        let one = RuleRun { emitted: 6, lag_ms: 40, ..one };
        let error = RuleError { time_ms: 9, message: "bad".into(), ..RuleError::default() };
        let other =
            RuleRun { generation: 1, accepted: true, matched: 5, last_error: Some(error), ..RuleRun::default() };
        let other = RuleRun { emitted: 10, dropped: 2, lag_ms: 30, ..other };
        for (a, b) in [(one.clone(), other.clone()), (other, one)] {
            let sum = together(a, b);
            assert_eq!((sum.generation, sum.matched, sum.failed, sum.lag), (1, 8, 1, 4));
            assert_eq!((sum.emitted, sum.dropped, sum.lag_ms), (16, 2, 40));
            assert_eq!(sum.last_error.map(|error| error.time_ms), Some(9));
        }
    }
}
