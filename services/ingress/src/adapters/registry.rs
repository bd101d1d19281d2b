//! Who somebody is, asked of the registry over gRPC, and kept for a short time.
//!
//! Adapter of [`Authenticator`]. Questions go many in a call ([`questions`]). An answer is kept only if nothing was revoked
//! while it was on its way, and used only while the change feed is heard: a node that may have missed a revocation asks
//! again each time (P5).

mod kept;
mod questions;
pub mod wire;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drover_host::Network;
use drover_types::Clock;

use super::changes::Freshness;
use crate::domain::identity::{AuthenticateError, Identity, Proof};
use crate::domain::reverify::Affected;
use crate::ports::Authenticator;
use crate::telemetry::QuestionGauges;
use kept::{Kept, Token};
use questions::{Calls, Questions};

/// The registry, asked over gRPC.
pub struct Registry {
    questions: Arc<Questions>,
    keep: Duration,
    feed: Arc<Freshness>,
    clock: Arc<dyn Clock>,
    kept: Mutex<Kept>,
}

impl Registry {
    /// Connects when first asked. Answers come within `deadline` and are kept for `keep`, or until their credential
    /// ends by `clock`. What waits meanwhile is shown in `gauges`.
    pub fn new(
        network: &Network,
        deadline: Duration,
        keep: Duration,
        feed: Arc<Freshness>,
        clock: Arc<dyn Clock>,
        gauges: QuestionGauges,
    ) -> Self {
        Self::over(questions::over(network), deadline, keep, feed, clock, gauges)
    }

    fn over(
        calls: Box<dyn Calls>,
        deadline: Duration,
        keep: Duration,
        feed: Arc<Freshness>,
        clock: Arc<dyn Clock>,
        gauges: QuestionGauges,
    ) -> Self {
        let questions = Arc::new(Questions::new(calls, deadline, gauges));
        Self { questions, keep, feed, clock, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of it without asking.
    fn known(&self, token: &Token) -> Option<Arc<Identity>> {
        if !self.feed.is_fresh() {
            return None;
        }
        let identity = self.kept().get(token, self.keep)?;
        let ended = identity.lasts_ms(self.clock.now_ms()) == Some(0);
        (!ended).then_some(identity)
    }
}

#[async_trait]
impl Authenticator for Registry {
    async fn authenticate(&self, proof: Proof, generation: u64) -> Result<Arc<Identity>, AuthenticateError> {
        let token = Token::of(&proof);
        if let Some(identity) = token.as_ref().and_then(|token| self.known(token)) {
            return Ok(identity);
        }
        let forgotten = self.kept().forgotten();
        let answer = self.questions.ask(proof).await?;
        let identity = answer.identity(&self.questions.common, generation).map_err(|error| {
            AuthenticateError::Unavailable { reason: format!("the answer is not an identity: {error}") }
        })?;
        let identity = Arc::new(identity);
        if let Some(token) = token {
            self.kept().keep(token, &identity, forgotten, self.keep);
        }
        Ok(identity)
    }

    fn forget(&self, affected: &Affected) {
        self.kept().forget(affected);
    }
}

#[cfg(test)]
mod tests;
