//! Whose Kafka topics are.

use drover_host::grpc;
use drover_proto::from_status;
use drover_proto::registry::v1::api_tokens_client::ApiTokensClient;
use drover_proto::registry::v1::topics_client::TopicsClient;
use drover_proto::registry::v1::*;
use drover_proto::types::v1::ApiTokenRole;
use drover_types::{ApiError, ErrorCode};

use crate::objects::rule_to;
use crate::stage::Stage;

async fn owners(stage: &Stage, topics: &[&str]) -> Result<Vec<String>, ApiError> {
    let mut client: TopicsClient<grpc::Client> = TopicsClient::new(stage.network.client("registry"));
    let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
    let answer = client.find_topic_owners(FindTopicOwnersRequest { topics }).await;
    answer.map(|answer| answer.into_inner().tenants).map_err(|status| from_status(&status))
}

#[tokio::test]
async fn a_topic_is_its_claimants_else_whom_it_is_named_for_and_those_of_the_platform_are_nobodys() {
    let mut stage = Stage::new().await;
    let topics = ["hot", "home.hot", "away.hot", "drover.telemetry", "free"];
    stage.client.put_rule(rule_to("home", "r", &["hot", "home.hot"], Some("errors"))).await.expect("free");
    assert_eq!(owners(&stage, &topics).await.expect("told"), ["home", "home", "away", "", ""]);
    assert_eq!(owners(&stage, &["errors"]).await.expect("told"), ["home"]);
    let delete = DeleteRuleRequest { tenant: "home".into(), name: "r".into() };
    stage.client.delete_rule(delete).await.expect("deleted");
    assert_eq!(owners(&stage, &topics).await.expect("told"), ["", "home", "away", "", ""]);
}

#[tokio::test]
async fn a_claim_on_what_is_named_for_another_tenant_counts_as_long_as_nobody_can_come_for_that_tenant() {
    let mut stage = Stage::new().await;
    stage.client.put_rule(rule_to("default", "r", &["home.hot"], None)).await.expect("free");
    assert_eq!(owners(&stage, &["home.hot", "home.cold"]).await.expect("told"), ["default", "home"]);
    let mut tokens: ApiTokensClient<grpc::Client> = ApiTokensClient::new(stage.network.client("registry"));
    let (tenant, name, created_by) = ("home".to_owned(), "ci".to_owned(), String::new());
    let role = ApiTokenRole::Viewer.into();
    let wanted = CreateApiTokenRequest { tenant, name, role, duration_s: 0, created_by };
    tokens.create_api_token(wanted).await.expect("made");
    let told = owners(&stage, &["home.hot", "home.cold"]).await.expect("told");
    assert_eq!(told, ["", "home"], "neither reads what the other has written");
}

#[tokio::test]
async fn the_topics_of_one_question_are_bounded() {
    let stage = Stage::new().await;
    let topics = ["home.x"; 257];
    assert_eq!(owners(&stage, &topics[..256]).await.expect("at the limit").len(), 256);
    let refused = owners(&stage, &topics).await.expect_err("one more");
    assert_eq!((refused.code, refused.limit.as_deref()), (ErrorCode::InvalidArgument, Some("256")));
}
