//! Questions over a registry that answers when a test lets it.

use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use drover_proto::registry::v1::authenticate_request::Proof as WireProof;
use drover_proto::registry::v1::{
    AuthenticateAllRequest, AuthenticateAllResponse, AuthenticateRequest, AuthenticateResponse, Rights, Verdict,
};
use drover_proto::types::v1 as types;
use drover_types::{ApiError, ClientId, ErrorCode, FixedClock};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::questions::{CALLS_MAX, QUESTIONS_MAX};
use super::*;

const DEADLINE: Duration = Duration::from_secs(5);

/// Lets one call go on.
type Gate = oneshot::Receiver<Result<(), ApiError>>;

/// Knows every client but those whose id begins with `wrong`; one that begins with `brief` has a credential that ends.
#[derive(Default)]
struct Fake {
    /// Clients of each call.
    asked: Mutex<Vec<Vec<String>>>,
    /// Of the next calls; those after them are answered at once.
    gates: Mutex<VecDeque<Gate>>,
    /// Verdicts of one answer; 0: all.
    verdicts_max: usize,
}

struct Handle(Arc<Fake>);

#[async_trait]
impl Calls for Handle {
    async fn authenticate_all(&self, request: AuthenticateAllRequest) -> Result<AuthenticateAllResponse, ApiError> {
        let clients: Vec<String> = request.questions.into_iter().map(|question| client_of(question.proof)).collect();
        self.0.asked.lock().expect("not poisoned").push(clients.clone());
        let gate = self.0.gates.lock().expect("not poisoned").pop_front();
        if let Some(gate) = gate {
            gate.await.expect("the test opens it")?;
        }
        let all = if self.0.verdicts_max == 0 { clients.len() } else { self.0.verdicts_max };
        let verdicts = clients.into_iter().take(all).map(verdict).collect();
        let rights = vec![Rights { policies: vec!["p".into()], statements: Vec::new() }];
        Ok(AuthenticateAllResponse { verdicts, rights })
    }

    async fn authenticate(&self, request: AuthenticateRequest) -> Result<AuthenticateResponse, ApiError> {
        let client = client_of(request.proof);
        self.0.asked.lock().expect("not poisoned").push(vec![client.clone()]);
        let Verdict { identity, message, .. } = verdict(client);
        let identity = identity.ok_or_else(|| ApiError::new(ErrorCode::Unauthenticated, message))?;
        let policies = vec!["p".to_owned()];
        Ok(AuthenticateResponse { identity: Some(types::Identity { policies, ..identity }) })
    }
}

fn client_of(proof: Option<WireProof>) -> String {
    match proof {
        Some(WireProof::Anonymous(anonymous)) => anonymous.client_id,
        Some(WireProof::Token(token)) => token.user_name,
        other => panic!("unexpected proof {other:?}"),
    }
}

fn verdict(device: String) -> Verdict {
    if device.starts_with("wrong") {
        return Verdict { code: 16, message: "no".into(), ..Verdict::default() };
    }
    let expires_ms = if device.starts_with("brief") { 2_000 } else { 0 };
    let identity = types::Identity { tenant: "default".into(), device, expires_ms, ..types::Identity::default() };
    Verdict { identity: Some(identity), ..Verdict::default() }
}

struct Stage {
    fake: Arc<Fake>,
    registry: Arc<Registry>,
    feed: Arc<Freshness>,
    clock: Arc<FixedClock>,
    gauges: QuestionGauges,
}

impl Stage {
    fn new(verdicts_max: usize) -> Self {
        let fake = Arc::new(Fake { verdicts_max, ..Fake::default() });
        let (feed, clock) = (Arc::<Freshness>::default(), Arc::new(FixedClock::at(1_000)));
        feed.hear();
        let calls = Box::new(Handle(fake.clone()));
        let (keep, gauges) = (Duration::from_secs(3_600), QuestionGauges::default());
        let registry = Registry::over(calls, DEADLINE, keep, feed.clone(), clock.clone(), gauges.clone());
        Self { fake, registry: Arc::new(registry), feed, clock, gauges }
    }

    /// The next call without a gate waits until this is told how to go on.
    fn gate(&self) -> oneshot::Sender<Result<(), ApiError>> {
        let (open, gate) = oneshot::channel();
        self.fake.gates.lock().expect("not poisoned").push_back(gate);
        open
    }

    fn ask(&self, proof: Proof) -> JoinHandle<Result<Arc<Identity>, AuthenticateError>> {
        let registry = self.registry.clone();
        tokio::spawn(async move { registry.authenticate(proof, 7).await })
    }

    /// How many questions wait, and how many are asked, as metrics show them.
    fn shown(&self) -> (i64, i64) {
        (self.gauges.waiting.get(), self.gauges.asked.get())
    }

    /// How many questions each call had.
    fn calls(&self) -> Vec<usize> {
        self.fake.asked.lock().expect("not poisoned").iter().map(Vec::len).collect()
    }
}

fn anonymous(client: &str) -> Proof {
    Proof::Anonymous { client: ClientId::new(client).expect("valid") }
}

fn token(user_name: &str) -> Proof {
    Proof::Token { user_name: user_name.to_owned(), token: "secret".to_owned() }
}

/// Lets everybody do what they can without time going by.
async fn settle() {
    for _ in 0..QUESTIONS_MAX * 8 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_question_is_asked_at_once_and_those_that_come_meanwhile_go_together() {
    let stage = Stage::new(0);
    let open = stage.gate();
    let first = stage.ask(anonymous("a"));
    settle().await;
    assert_eq!(stage.calls(), [1]);
    let others: Vec<_> = ["b", "wrong", "c"].map(|client| stage.ask(anonymous(client))).into();
    settle().await;
    assert_eq!((stage.calls(), stage.shown()), (vec![1], (3, 1)), "one call is under way");
    open.send(Ok(())).expect("it waits");
    let identity = first.await.expect("no panic").expect("known");
    assert_eq!((identity.device.as_str(), identity.generation), ("a", 7));
    let mut answers = Vec::new();
    for other in others {
        answers.push(other.await.expect("no panic").map(|identity| identity.device.to_string()));
    }
    let wrong = Err(AuthenticateError::Wrong { reason: "no".to_owned() });
    assert_eq!(answers, [Ok("b".to_owned()), wrong, Ok("c".to_owned())], "each has its own answer");
    assert_eq!((stage.calls(), stage.shown()), (vec![1, 3], (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_keeps_only_its_own_questions_and_ends_at_its_deadline() {
    let stage = Stage::new(0);
    let _never_opened = stage.gate();
    let began = Instant::now();
    let slow = stage.ask(anonymous("slow"));
    settle().await;
    let next = stage.ask(anonymous("next"));
    next.await.expect("no panic").expect("answered by another call");
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    let late = slow.await.expect("no panic").expect_err("never answered");
    assert_eq!(late, wire::unavailable("no answer within 5s"));
    assert!(began.elapsed() < DEADLINE + Duration::from_millis(100), "{:?}", began.elapsed());
    stage.ask(anonymous("after")).await.expect("no panic").expect("answered");
    assert_eq!(stage.calls(), [1, 1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_as_many_questions_as_it_may_and_a_full_one_does_not_wait() {
    let stage = Stage::new(0);
    let open = stage.gate();
    let mut asked = vec![stage.ask(anonymous("first"))];
    settle().await;
    asked.extend((0..QUESTIONS_MAX).map(|i| stage.ask(anonymous(&format!("d{i}")))));
    settle().await;
    assert_eq!(stage.calls(), [1, QUESTIONS_MAX], "the second is full, and did not wait for the first");
    open.send(Ok(())).expect("it waits");
    settle().await;
    let large = |i: usize| Proof::Token { user_name: format!("{i}"), token: "x".repeat(65_535) };
    asked.extend((0..32).map(|i| stage.ask(large(i))));
    for answer in asked {
        answer.await.expect("no panic").expect("known");
    }
    assert_eq!(stage.calls()[2..], [15, 15, 2], "bytes are bounded as well");
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_refuses_nobody_and_the_next_one_works() {
    let stage = Stage::new(0);
    let open = stage.gate();
    let first = stage.ask(anonymous("a"));
    settle().await;
    let second = stage.ask(anonymous("b"));
    settle().await;
    open.send(Err(ApiError::new(ErrorCode::Unauthenticated, "no admin token"))).expect("it waits");
    let failed = first.await.expect("no panic").expect_err("nobody was judged");
    assert!(matches!(failed, AuthenticateError::Unavailable { .. }), "{failed}");
    second.await.expect("no panic").expect("asked by the next call");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_leaves_its_place_to_the_next() {
    let stage = Stage::new(0);
    let began = Instant::now();
    for _ in 0..=CALLS_MAX {
        let open = stage.gate();
        let asked = stage.ask(anonymous("a"));
        settle().await;
        drop(open); // the call panics
        let failed = asked.await.expect("no panic").expect_err("nobody answered");
        assert_eq!(failed, wire::unavailable("the call ended without an answer"));
        settle().await;
        assert_eq!(stage.shown(), (0, 0), "nor does it stay in the metrics");
    }
    stage.ask(anonymous("b")).await.expect("no panic").expect("answered");
    assert!(began.elapsed() < Duration::from_millis(1), "each is asked at once: {:?}", began.elapsed());
    assert_eq!(stage.calls(), [1; CALLS_MAX + 2]);
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_takes_one_question_in_a_call_is_asked_one_by_one() {
    let stage = Stage::new(0);
    let (first_gate, second_gate) = (stage.gate(), stage.gate());
    let first = stage.ask(anonymous("a"));
    settle().await;
    let others = ["b", "wrong"].map(|client| stage.ask(anonymous(client)));
    settle().await;
    for gate in [first_gate, second_gate] {
        gate.send(Err(ApiError::new(ErrorCode::Unimplemented, "of an earlier version"))).expect("it waits");
        settle().await;
    }
    let identity = first.await.expect("no panic").expect("known");
    assert_eq!((identity.device.as_str(), identity.policy.names().len()), ("a", 1));
    let [known, wrong] = others;
    assert_eq!(known.await.expect("no panic").expect("known").device.as_str(), "b");
    let reason = "no".to_owned();
    assert_eq!(wrong.await.expect("no panic").expect_err("wrong"), AuthenticateError::Wrong { reason });
    assert_eq!(stage.calls(), [1, 1, 2, 1, 1], "each call of many is tried first");
}

#[tokio::test(start_paused = true)]
async fn questions_that_an_answer_has_no_room_for_are_asked_again() {
    let stage = Stage::new(2);
    let open = stage.gate();
    let mut asked = vec![stage.ask(anonymous("a"))];
    settle().await;
    asked.extend(["b", "c", "d", "e"].map(|client| stage.ask(anonymous(client))));
    settle().await;
    open.send(Ok(())).expect("it waits");
    for answer in asked {
        answer.await.expect("no panic").expect("known");
    }
    assert_eq!(stage.calls(), [1, 4, 2]);
    assert_eq!(stage.fake.asked.lock().expect("not poisoned")[2], ["d", "e"], "in their order");
}

#[tokio::test(start_paused = true)]
async fn an_answer_overtaken_by_a_revocation_is_not_kept() {
    let stage = Stage::new(0);
    let open = stage.gate();
    let overtaken = stage.ask(token("a"));
    settle().await;
    stage.registry.forget(&Affected::All);
    open.send(Ok(())).expect("it waits");
    overtaken.await.expect("no panic").expect("known");
    assert_eq!(stage.registry.kept().counts(), (0, 0));
    for _ in 0..2 {
        stage.ask(token("a")).await.expect("no panic").expect("known");
    }
    assert_eq!(stage.calls(), [1, 1], "the second answer is kept, and the third question not asked");
    assert_eq!(stage.registry.kept().counts(), (1, 0));
    tokio::time::advance(Duration::from_secs(2)).await;
    stage.ask(token("a")).await.expect("no panic").expect("known");
    assert_eq!(stage.calls(), [1, 1, 1], "the feed is not heard: a revocation may be hidden");
}

#[tokio::test(start_paused = true)]
async fn an_identity_is_kept_no_longer_than_its_credential_lasts() {
    let stage = Stage::new(0);
    for (advance_ms, calls) in [(0, 2), (999, 2), (1, 3)] {
        stage.clock.advance(advance_ms);
        stage.feed.hear();
        for who in ["brief", "long"] {
            stage.ask(token(who)).await.expect("no panic").expect("known");
        }
        assert_eq!(stage.calls().len(), calls, "only the second lasts for ever");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_without_credentials_leaves_little_behind() {
    let stage = Stage::new(0);
    stage.ask(token("with")).await.expect("no panic").expect("known");
    let fleet: Vec<_> = (0..3_000).map(|i| stage.ask(anonymous(&format!("d{i}")))).collect();
    for client in fleet {
        client.await.expect("no panic").expect("known");
    }
    let (identities, anonymous) = stage.registry.kept().counts();
    assert!(identities == 1 && anonymous > 0 && anonymous <= 1_024, "{identities} and {anonymous}");
}
