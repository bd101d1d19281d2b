//! One device publish is one trace, from the socket to the rule's output; and no collector can hold anything up.

use std::net::TcpListener;

use anyhow::Context;
use drover_tests::{Collector, Manner, Platform, publish, read_committed};
use drover_types::hex;
use serde_json::json;

fn apply(platform: &Platform) -> anyhow::Result<()> {
    let actions = json!([{"kafka": {"topic": "traced"}}, {"republish": {"topic": "traced/again"}}]);
    platform.apply_rule("traced", json!({"sql": "SELECT n FROM 'traced'", "actions": actions}))
}

#[test]
fn a_publish_is_one_trace_from_the_ingress_through_the_rule_to_the_output() -> anyhow::Result<()> {
    let collector = Collector::start(Manner::Takes)?;
    let mut platform = Platform::start_with(&["--set", &collector.setting()])?;
    apply(&platform)?;
    publish(platform.port(1883), "d", "traced", &[r#"{"n": 1}"#.to_owned()])?;
    let brokers = platform.brokers();
    platform.until("through the rule", |_| Ok(!read_committed(&brokers, "traced")?.is_empty()))?;
    platform.until("traced", |_| Ok(collector.spans().iter().filter(|span| span.name == "publish").count() >= 2))?;

    let spans = collector.spans();
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let first = named("publish").into_iter().find(|span| span.parent_span_id.is_empty()).context("the device's")?;
    let rule = named("rule").into_iter().find(|span| span.parent_span_id == first.span_id).context("the rule's")?;
    let again =
        named("publish").into_iter().find(|span| span.parent_span_id == rule.span_id).context("the action's")?;
    assert!([rule, again].iter().all(|span| span.trace_id == first.trace_id), "one trace");
    let output = read_committed(&brokers, "traced")?.swap_remove(0);
    let expected = format!("00-{}-{}-01", hex(&rule.trace_id), hex(&rule.span_id));
    assert_eq!(output.traceparent, Some(expected), "a consumer goes on with the rule's span");
    assert!(platform.stop()?.success());
    Ok(())
}

#[test]
fn a_post_goes_on_with_the_trace_of_its_client() -> anyhow::Result<()> {
    let collector = Collector::start(Manner::Takes)?;
    let mut platform = Platform::start_with(&["--set", &collector.setting()])?;
    let created: serde_json::Value = serde_json::from_str(&platform.cli(&["device", "create", "d", "-o", "json"])?)?;
    let authorization = format!("Bearer {}", created["token"].as_str().context("a token")?);
    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let url = format!("http://127.0.0.1:{}/v1/topics/traced", platform.port(8080));
    let post = ureq::post(&url).header("authorization", &authorization);
    post.header("traceparent", &format!("00-{trace}-{span}-01")).send("1")?;
    platform.until("traced", |_| Ok(collector.spans().iter().any(|span| span.name == "publish")))?;
    let published = collector.spans().into_iter().find(|span| span.name == "publish").context("its span")?;
    assert_eq!((hex(&published.trace_id), hex(&published.parent_span_id)), (trace.to_owned(), span.to_owned()));
    assert!(platform.stop()?.success());
    Ok(())
}

#[test]
fn what_is_not_sampled_is_not_sent_and_its_context_says_so() -> anyhow::Result<()> {
    let collector = Collector::start(Manner::Takes)?;
    let mut platform = Platform::start_with(&["--set", &collector.setting(), "--set", "otlp.sample_ratio=0.0"])?;
    apply(&platform)?;
    publish(platform.port(1883), "d", "traced", &[r#"{"n": 1}"#.to_owned()])?;
    let brokers = platform.brokers();
    platform.until("through the rule", |_| Ok(!read_committed(&brokers, "traced")?.is_empty()))?;
    let context = read_committed(&brokers, "traced")?.swap_remove(0).traceparent.context("a context")?;
    assert!(context.ends_with("-00"), "{context}");
    assert!(platform.stop()?.success(), "the last spans would have been sent by now");
    assert_eq!(collector.spans().len(), 0);
    Ok(())
}

/// Publishes while the collector is of no use, and looks at what the platform says of it.
fn goes_on_without(setting: &str) -> anyhow::Result<()> {
    let mut platform = Platform::start_with(&["--set", setting])?;
    apply(&platform)?;
    let payloads: Vec<String> = (0..500).map(|n| format!("{{\"n\": {n}}}")).collect();
    publish(platform.port(1883), "d", "traced", &payloads)?;
    let brokers = platform.brokers();
    platform.until("through the rule", |_| Ok(read_committed(&brokers, "traced")?.len() >= payloads.len()))?;
    let lost = "drover_trace_spans_lost_total ";
    platform.until("telling what is lost", |platform| {
        Ok(platform.admin("/metrics")?.lines().any(|line| line.strip_prefix(lost).is_some_and(|count| count != "0")))
    })?;
    publish(platform.port(1883), "e", "traced", &payloads)?;
    assert!(platform.stop()?.success(), "it ends although the last spans go nowhere");
    let log = std::fs::read_to_string(platform.log())?;
    assert_eq!(log.matches("takes no traces").count(), 1, "said once: {log}");
    Ok(())
}

#[test]
fn a_collector_that_is_away_holds_nothing_up_and_is_told_of_once() -> anyhow::Result<()> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    goes_on_without(&format!("otlp.endpoint=http://{address}"))
}

#[test]
fn a_collector_that_hangs_holds_nothing_up_and_is_told_of_once() -> anyhow::Result<()> {
    goes_on_without(&Collector::start(Manner::Hangs)?.setting())
}
