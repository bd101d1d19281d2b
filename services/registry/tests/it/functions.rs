//! Functions: tried when they are written, versioned, told in the feed, refused by field.

use drover_host::grpc;
use drover_proto::from_status;
use drover_proto::registry::v1::functions_client::FunctionsClient;
use drover_proto::registry::v1::*;
use drover_proto::types::v1::{Function, FunctionExample, Meta};
use drover_registry::CHANGES_TOPIC;
use drover_types::ErrorCode;

use crate::stage::{Stage, meta, until};

fn client(stage: &Stage) -> FunctionsClient<grpc::Client> {
    FunctionsClient::new(stage.network.client("registry"))
}

fn function(name: &str, source: &str, examples: &[(&str, &str)]) -> PutFunctionRequest {
    let example = |(input, output): &(&str, &str)| FunctionExample {
        input: (*input).to_owned(),
        output: (*output).to_owned(),
        ..FunctionExample::default()
    };
    let examples = examples.iter().map(example).collect();
    let function = Function { meta: meta(name), source: source.into(), routine: "main".into(), examples };
    PutFunctionRequest { function: Some(function) }
}

const DOUBLE: &str = "function main(x) { return 2 * x; }";

#[tokio::test]
async fn a_function_is_versioned_and_outlives_a_restart() {
    let mut stage = Stage::new().await;
    let generation = |kept: PutFunctionResponse| kept.function.and_then(|f| f.meta).expect("meta").generation;
    let put = async |request| generation(client(&stage).put_function(request).await.expect("kept").into_inner());
    assert_eq!(put(function("double", DOUBLE, &[("2", "4")])).await, 1);
    assert_eq!(put(function("double", DOUBLE, &[("2", "4")])).await, 1, "nothing has changed");
    assert_eq!(put(function("double", DOUBLE, &[("2", "4.0")])).await, 2);
    let stale = Meta { revision: 99, ..meta("double").expect("meta") };
    let mut request = function("double", "function main() {}", &[]);
    request.function.as_mut().expect("there").meta = Some(stale);
    let refused = from_status(&client(&stage).put_function(request).await.expect_err("somebody else's"));
    assert_eq!(refused.code, ErrorCode::Aborted);

    stage.restart().await;
    let get = GetFunctionRequest { name: "double".into(), ..Default::default() };
    let found = client(&stage).get_function(get.clone()).await.expect("there").into_inner().function.expect("one");
    assert_eq!((found.source.as_str(), found.meta.expect("meta").generation), (DOUBLE, 2));
    let elsewhere = ListFunctionsRequest { tenant: "other".into(), ..Default::default() };
    assert!(client(&stage).list_functions(elsewhere).await.expect("listed").into_inner().functions.is_empty());
    let delete = DeleteFunctionRequest { name: "double".into(), ..Default::default() };
    client(&stage).delete_function(delete.clone()).await.expect("deleted");
    assert_eq!(client(&stage).delete_function(delete).await.expect_err("gone").code(), tonic::Code::NotFound);
    assert_eq!(client(&stage).get_function(get).await.expect_err("gone").code(), tonic::Code::NotFound);
    // Two writes, the deletion and its tombstone; what a restart interrupts may be sent again.
    until(async || {
        let records = stage.records(CHANGES_TOPIC).await;
        records
            .iter()
            .filter(|stored| stored.record.key.as_deref() == Some(b"function/default/double".as_slice()))
            .count()
            >= 4
    })
    .await;
}

#[tokio::test]
async fn pages_of_functions_are_bounded_in_number_and_bytes() {
    let stage = Stage::new().await;
    let padding = "x".repeat(250 * 1024);
    let names: Vec<String> = (0..12).map(|n| format!("f-{n:02}")).collect();
    for name in &names {
        let source = format!("{DOUBLE} // {padding}");
        client(&stage).put_function(function(name, &source, &[])).await.expect("kept");
    }
    let list = async |page_size, page_token: &str| {
        let request = ListFunctionsRequest { tenant: String::new(), page_size, page_token: page_token.into() };
        let page = client(&stage).list_functions(request).await.expect("listed").into_inner();
        let names: Vec<String> = page.functions.into_iter().filter_map(|f| Some(f.meta?.name)).collect();
        (names, page.next_page_token)
    };
    assert_eq!(list(3, "").await, (names[..3].to_vec(), "f-02".to_owned()));
    assert_eq!(list(9, "f-02").await.0.len(), 8, "2 MiB");
    assert_eq!(list(0, "f-10").await, (names[11..].to_vec(), String::new()));
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let (page, next) = list(1_000, &token).await;
        seen.extend(page);
        token = next;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen, names);
}

#[tokio::test]
async fn what_does_not_do_as_its_examples_say_is_refused_by_the_example() {
    let stage = Stage::new().await;
    for (request, field, message) in [
        (function("f", DOUBLE, &[("1", "2"), ("2", "5")]), "spec.examples[1]", "answered 4, expected 5"),
        (function("f", "function main() {}", &[("1", "2")]), "spec.examples[0]", "answered nothing, expected 2"),
        (function("f", "function main() { for (;;) {} }", &[("1", "2")]), "spec.examples[0]", "took more than 50 ms"),
        (function("f", "function (", &[]), "spec.source", "SyntaxError"),
        (function("f", "for (;;) {}", &[]), "spec.source", "took more than 50 ms"),
        (function("f", "function other() {}", &[]), "spec.source", "no function main"),
        (function("f", DOUBLE, &[("{", "2")]), "examples.input", "is no JSON"),
        (function("F", DOUBLE, &[]), "metadata.name", "a name is"),
        (function("a.b", DOUBLE, &[]), "metadata.name", "no dots"),
        (function("1st", DOUBLE, &[]), "metadata.name", "begins with a letter"),
        (function("parse-time", DOUBLE, &[]), "metadata.name", "of its own"),
    ] {
        let refused = from_status(&client(&stage).put_function(request).await.expect_err(message));
        assert_eq!((refused.code, refused.field.as_deref()), (ErrorCode::InvalidArgument, Some(field)), "{message}");
        assert!(refused.message.contains(message), "{}", refused.message);
    }
    let list = ListFunctionsRequest::default();
    assert!(client(&stage).list_functions(list).await.expect("listed").into_inner().functions.is_empty());
}
