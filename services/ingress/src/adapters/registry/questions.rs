//! Questions to the registry, many in a call.
//!
//! One that comes after a quiet time is asked at once. Those that come while a call is under way, or within [`GATHER`] of
//! its beginning, wait and go together in the next: the more there are, the less each costs. A further call, up to [`CALLS_MAX`], begins when a whole call's worth
//! waits, or one of them has waited for [`PATIENCE`]: a call that is slow keeps only its own questions. A registry that does not
//! know calls of many, as one does that is upgraded after this node, is asked one by one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use drover_host::{Counted, Network, grpc};
use drover_proto::registry::v1::registry_client::RegistryClient;
use drover_proto::registry::v1::{
    AuthenticateAllRequest, AuthenticateAllResponse, AuthenticateRequest, AuthenticateResponse, Rights, Verdict,
};
use drover_types::{ApiError, ErrorCode};
use futures::stream::{self, StreamExt};
use prost::Message;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::wire::{self, Answer, Common, unavailable};
use crate::domain::identity::{AuthenticateError, Proof};
use crate::telemetry::QuestionGauges;

/// Questions of one call, as many as the registry takes.
pub const QUESTIONS_MAX: usize = 256;
/// Bytes of the questions of one call, but for one that alone is larger: passwords have up to 64 KiB.
const CALL_BYTES_MAX: usize = 1024 * 1024;
/// Calls under way at the same time.
pub const CALLS_MAX: usize = 4;
/// Questions of one such call under way at the same time where the registry takes no more than one in a call.
const SINGLE_AT_ONCE: usize = 32;
/// Time from one call to the next, for a call costs both processes whether it has one question or many.
const GATHER: Duration = Duration::from_millis(1);
/// How long a question waits for a call that is under way before it has another one begin.
const PATIENCE: Duration = Duration::from_millis(20);
/// Questions waiting for a call: beyond that the registry is too slow for all of them to be answered in time.
const WAITING_MAX: usize = 100_000;

/// The registry's calls that are used here.
#[async_trait]
pub trait Calls: Send + Sync + 'static {
    /// The error: nobody was judged.
    async fn authenticate_all(&self, request: AuthenticateAllRequest) -> Result<AuthenticateAllResponse, ApiError>;
    /// The error: also of who is not who they say.
    async fn authenticate(&self, request: AuthenticateRequest) -> Result<AuthenticateResponse, ApiError>;
}

struct Client(RegistryClient<grpc::Client>);

#[async_trait]
impl Calls for Client {
    async fn authenticate_all(&self, request: AuthenticateAllRequest) -> Result<AuthenticateAllResponse, ApiError> {
        let answer = self.0.clone().authenticate_all(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| drover_proto::from_status(&status))
    }

    async fn authenticate(&self, request: AuthenticateRequest) -> Result<AuthenticateResponse, ApiError> {
        let answer = self.0.clone().authenticate(request).await;
        answer.map(tonic::Response::into_inner).map_err(|status| drover_proto::from_status(&status))
    }
}

/// The registry that `network` reaches.
pub fn over(network: &Network) -> Box<dyn Calls> {
    Box::new(Client(RegistryClient::new(network.client("registry"))))
}

/// The questions that wait, and the calls under way.
pub struct Questions {
    calls: Box<dyn Calls>,
    deadline: Duration,
    pub common: Common,
    gauges: QuestionGauges,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Question>,
    under_way: usize,
}

/// A place among the calls under way, which is given back when nothing waits, or with its end: a panic keeps none.
struct Place {
    questions: Arc<Questions>,
    is_held: bool,
}

struct Question {
    request: AuthenticateRequest,
    until: Instant,
    answer: oneshot::Sender<Result<Answer, AuthenticateError>>,
}

impl Questions {
    /// Nobody is asked before the first question, each of which is answered within `deadline`.
    pub fn new(calls: Box<dyn Calls>, deadline: Duration, gauges: QuestionGauges) -> Self {
        Self { calls, deadline, common: Common::default(), gauges, state: Mutex::default() }
    }

    /// Who it is.
    pub async fn ask(self: &Arc<Self>, proof: Proof) -> Result<Answer, AuthenticateError> {
        let until = Instant::now() + self.deadline;
        let (answer, mut answered) = oneshot::channel();
        self.add(Question { request: wire::question(proof), until, answer })?;
        let first = timeout(PATIENCE.min(self.deadline), &mut answered).await;
        let outcome = match first {
            Ok(outcome) => outcome,
            Err(_) => {
                self.begin_if(|state| !state.waiting.is_empty());
                timeout_at(until, answered).await.map_err(|_| self.late())?
            }
        };
        outcome.unwrap_or_else(|_| Err(unavailable("the call ended without an answer")))
    }

    fn add(self: &Arc<Self>, question: Question) -> Result<(), AuthenticateError> {
        {
            let mut state = self.state();
            if state.waiting.len() >= WAITING_MAX {
                return Err(unavailable(format!("more than {WAITING_MAX} questions wait")));
            }
            state.waiting.push_back(question);
            self.show(&state);
        }
        self.begin_if(|state| state.under_way == 0 || state.waiting.len() >= QUESTIONS_MAX);
        Ok(())
    }

    /// Begins a call, if it is time and there may be one more.
    fn begin_if(self: &Arc<Self>, time: impl FnOnce(&State) -> bool) {
        let mut state = self.state();
        if state.under_way < CALLS_MAX && time(&state) {
            state.under_way += 1;
            drop(state);
            let mut place = Place { questions: Arc::clone(self), is_held: true };
            tokio::spawn(async move {
                while let Some(together) = place.next_call() {
                    let next = Instant::now() + GATHER;
                    place.questions.call(together).await;
                    sleep_until(next).await;
                }
            });
        }
    }

    async fn call(&self, together: Vec<Question>) {
        let Some(until) = together.iter().map(|question| question.until).max() else { return };
        let _asked = Counted::new(&self.gauges.asked, together.len());
        let questions = together.iter().map(|question| question.request.clone()).collect();
        let call = self.calls.authenticate_all(AuthenticateAllRequest { questions });
        match timeout_at(until, call).await {
            Ok(Ok(answer)) => self.tell(together, answer),
            Ok(Err(error)) if error.code == ErrorCode::Unimplemented => self.call_each(together).await,
            Ok(Err(error)) => refuse(together, &unavailable(error.to_string())),
            Err(_) => refuse(together, &self.late()),
        }
    }

    /// Asks one by one, each within its own time.
    async fn call_each(&self, together: Vec<Question>) {
        let calls: Vec<_> = together.into_iter().map(|question| self.call_one(question)).collect();
        stream::iter(calls).buffer_unordered(SINGLE_AT_ONCE).collect::<Vec<()>>().await;
    }

    async fn call_one(&self, question: Question) {
        let call = self.calls.authenticate(question.request.clone());
        let outcome = match timeout_at(question.until, call).await {
            Ok(Ok(answer)) => self.alone(answer),
            Ok(Err(error)) => Err(wire::refusal(error)),
            Err(_) => Err(self.late()),
        };
        tell(question, outcome);
    }

    /// The answer of a call of one question.
    fn alone(&self, answer: AuthenticateResponse) -> Result<Answer, AuthenticateError> {
        let mut identity = answer.identity.ok_or_else(|| unavailable("the answer names nobody"))?;
        let (policies, statements) = (std::mem::take(&mut identity.policies), std::mem::take(&mut identity.statements));
        let rights = self.common.compile(&Rights { policies, statements });
        Answer::of(Verdict { identity: Some(identity), ..Verdict::default() }, &[rights])
    }

    /// Hands out verdicts. Questions that have none go first in the next call.
    fn tell(&self, together: Vec<Question>, answer: AuthenticateAllResponse) {
        if answer.verdicts.is_empty() {
            return refuse(together, &unavailable("the answer names nobody"));
        }
        let rights: Vec<_> = answer.rights.iter().map(|rights| self.common.compile(rights)).collect();
        let mut questions = together.into_iter();
        for (verdict, question) in answer.verdicts.into_iter().zip(&mut questions) {
            tell(question, Answer::of(verdict, &rights));
        }
        let mut state = self.state();
        for question in questions.rev() {
            state.waiting.push_front(question);
        }
        self.show(&state);
    }

    /// The gauge is set under the lock, so that it is never behind.
    fn show(&self, state: &State) {
        self.gauges.waiting.set(i64::try_from(state.waiting.len()).unwrap_or(i64::MAX));
    }

    fn late(&self) -> AuthenticateError {
        unavailable(format!("no answer within {:?}", self.deadline))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Of those that wait, what goes in one call.
    fn take(&mut self) -> Vec<Question> {
        let (mut together, mut bytes) = (Vec::new(), 0);
        while let Some(question) = self.waiting.pop_front() {
            if question.answer.is_closed() {
                continue; // nobody waits for it any more
            }
            bytes += question.request.encoded_len();
            if together.len() == QUESTIONS_MAX || (bytes > CALL_BYTES_MAX && !together.is_empty()) {
                self.waiting.push_front(question);
                break;
            }
            together.push(question);
        }
        together
    }
}

impl Place {
    /// What goes in the next call; `None`: nothing waits, and there is one call less for whoever looks next.
    fn next_call(&mut self) -> Option<Vec<Question>> {
        let mut state = self.questions.state();
        let together = state.take();
        self.questions.show(&state);
        if together.is_empty() {
            state.under_way -= 1;
            self.is_held = false;
            return None;
        }
        Some(together)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_held {
            self.questions.state().under_way -= 1;
        }
    }
}

fn refuse(together: Vec<Question>, error: &AuthenticateError) {
    together.into_iter().for_each(|question| tell(question, Err(error.clone())));
}

fn tell(question: Question, outcome: Result<Answer, AuthenticateError>) {
    // Whoever asked may have gone.
    drop(question.answer.send(outcome));
}
