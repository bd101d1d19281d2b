//! API tokens: made, shown, ended, deleted, bounded, and told on the change feed.

use drover_host::grpc;
use drover_proto::from_status;
use drover_proto::registry::v1::api_tokens_client::ApiTokensClient;
use drover_proto::registry::v1::*;
use drover_proto::types::v1::{ApiToken, ApiTokenRole};
use drover_registry::CHANGES_TOPIC;
use drover_types::{ApiError, ErrorCode};
use prost::Message;

use crate::stage::{Stage, until};

type Client = ApiTokensClient<grpc::Client>;

fn client(stage: &Stage) -> Client {
    ApiTokensClient::new(stage.network.client("registry"))
}

fn wanted(tenant: &str, name: &str, duration_s: u64) -> CreateApiTokenRequest {
    let (tenant, name, created_by) = (tenant.to_owned(), name.to_owned(), "administrator".to_owned());
    CreateApiTokenRequest { tenant, name, role: ApiTokenRole::Editor.into(), duration_s, created_by }
}

async fn create(client: &Client, wanted: CreateApiTokenRequest) -> Result<CreateApiTokenResponse, ApiError> {
    let made = client.clone().create_api_token(wanted).await;
    made.map(|made| made.into_inner()).map_err(|status| from_status(&status))
}

async fn verify(client: &Client, token: &str) -> Result<ApiToken, ApiError> {
    let verified = client.clone().verify_api_token(VerifyApiTokenRequest { token: token.to_owned() }).await;
    verified.map(|verified| verified.into_inner().api_token.expect("a token")).map_err(|status| from_status(&status))
}

async fn delete(client: &Client, tenant: &str, name: &str) -> Result<(), ApiError> {
    let request = DeleteApiTokenRequest { tenant: tenant.to_owned(), name: name.to_owned() };
    client.clone().delete_api_token(request).await.map(drop).map_err(|status| from_status(&status))
}

#[tokio::test]
async fn a_token_is_good_until_it_is_deleted_and_no_other_text_is() {
    let mut stage = Stage::new().await;
    let made = create(&client(&stage), wanted("home", "ci", 0)).await.expect("made");
    let token = made.token.as_str();
    assert!(token.starts_with("drt_home.ci.") && token.len() == 12 + 43, "{}", token.len());
    let of_other = create(&client(&stage), wanted("away", "ci", 0)).await.expect("each tenant has its names").token;
    stage.restart().await;
    let client = client(&stage);
    let known = verify(&client, token).await.expect("in force");
    let meta = known.meta.as_ref().expect("meta");
    assert_eq!((meta.tenant.as_str(), meta.name.as_str(), known.role()), ("home", "ci", ApiTokenRole::Editor));
    assert_eq!((known.created_by.as_str(), known.digest.len(), known.expires_ms), ("administrator", 0, 0));

    let secret = token.rsplit('.').next().expect("a secret");
    let not_theirs = format!("drt_away.ci.{secret}");
    let wrong = ["", "drt_", "drt_home.ci.", "drt_home.none.x", &token[..token.len() - 1], &not_theirs];
    let mut answers = Vec::new();
    for wrong in wrong {
        answers.push(verify(&client, wrong).await.expect_err(wrong));
    }
    let unknown = ApiError::new(ErrorCode::Unauthenticated, "the API token is not one in force");
    assert!(answers.iter().all(|answer| *answer == unknown), "{answers:?}");

    delete(&client, "home", "ci").await.expect("deleted");
    assert_eq!(verify(&client, token).await, Err(unknown.clone()));
    assert_eq!(delete(&client, "home", "ci").await.expect_err("gone").code, ErrorCode::NotFound);
    let again = create(&client, wanted("home", "ci", 0)).await.expect("the name is free").token;
    assert_eq!((verify(&client, token).await, verify(&client, &again).await.is_ok()), (Err(unknown), true));
    assert!(verify(&client, &of_other).await.is_ok());
}

#[tokio::test]
async fn a_token_ends_in_time_and_only_who_has_it_hears_of_that() {
    let stage = Stage::new().await;
    let client = client(&stage);
    let token = create(&client, wanted("home", "brief", 60)).await.expect("made").token;
    stage.clock.advance(59_999);
    assert!(verify(&client, &token).await.is_ok());
    stage.clock.advance(1);
    let ended = verify(&client, &token).await.expect_err("ended");
    assert_eq!(
        (ended.code, ended.message.contains("brief of tenant home has expired")),
        (ErrorCode::Unauthenticated, true)
    );
    let guessed = verify(&client, "drt_home.brief.guessed").await.expect_err("not its secret");
    assert!(!guessed.message.contains("brief"), "{guessed:?}");
    let too_long = create(&client, wanted("home", "long", 3_651 * 24 * 3600)).await.expect_err("refused");
    assert_eq!(too_long.field.as_deref(), Some("duration_s"));
}

#[tokio::test]
async fn names_are_checked_and_a_thousand_tokens_are_the_most_of_a_tenant() {
    let stage = Stage::new().await;
    let client = client(&stage);
    for name in ["", "A", "a/b", "a..b"] {
        assert_eq!(create(&client, wanted("home", name, 0)).await.expect_err(name).field.as_deref(), Some("name"));
    }
    let roleless = CreateApiTokenRequest { role: 0, ..wanted("home", "a", 0) };
    assert_eq!(create(&client, roleless).await.expect_err("no role").field.as_deref(), Some("role"));
    for i in 0..1_000 {
        create(&client, wanted("home", &format!("t{i:03}"), 1)).await.expect("made");
    }
    let over = create(&client, wanted("home", "one-more", 0)).await.expect_err("too many");
    assert_eq!((over.code, over.limit.as_deref()), (ErrorCode::ResourceExhausted, Some("1000")));
    create(&client, wanted("away", "first", 0)).await.expect("each tenant for itself");
    let twice = create(&client, wanted("away", "first", 0)).await.expect_err("taken");
    assert_eq!(twice.code, ErrorCode::AlreadyExists);
    let request = ListApiTokensRequest { tenant: "home".into(), page_size: 2, page_token: "t003".into() };
    let page = client.clone().list_api_tokens(request).await.expect("listed").into_inner();
    let names: Vec<_> = page.api_tokens.iter().map(|token| token.meta.clone().expect("meta").name).collect();
    assert_eq!((names, page.next_page_token.as_str()), (vec!["t004".to_owned(), "t005".to_owned()], "t005"));
    assert!(page.api_tokens.iter().all(|token| token.digest.is_empty()));
}

#[tokio::test]
async fn making_and_deleting_are_told_on_the_change_feed() {
    let stage = Stage::new().await;
    let client = client(&stage);
    create(&client, wanted("home", "ci", 0)).await.expect("made");
    delete(&client, "home", "ci").await.expect("deleted");
    let values = async || {
        let records = stage.records(CHANGES_TOPIC).await;
        let of_key = records.into_iter().filter(|stored| stored.record.key.as_deref() == Some(b"api_token/home/ci"));
        of_key.map(|stored| stored.record.value).collect::<Vec<_>>()
    };
    until(async || values().await.len() >= 3).await;
    let told: Vec<_> =
        values().await.iter().map(|value| value.as_deref().map(|v| Change::decode(v).expect("a change"))).collect();
    let ends = |change: &Option<Change>| change.as_ref().map(|c| (c.before.is_some(), c.after.is_some()));
    assert_eq!(told.iter().map(ends).collect::<Vec<_>>(), [Some((false, true)), Some((true, false)), None]);
}
