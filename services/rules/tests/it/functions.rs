//! Rules that call functions: taken from the feed, waited for, and no harm to others when they go wrong.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering::Relaxed;

use drover_rules::ERRORS_TOPIC;
use serde_json::{Value, json};

use crate::world::{World, header, message, until};

fn calling(sql: &str, topic: &str) -> Value {
    json!({"sql": sql, "actions": [{"kafka": {"topic": topic}}]})
}

async fn accepted(world: &World, rule: &str) -> String {
    let status = world.status(rule).await;
    status.map_or_else(|error| error.message().to_owned(), |status| status.conditions[0].reason.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_waits_for_its_function_and_calls_the_one_in_force() {
    let (world, _dir) = World::embedded().await;
    let sql = "SELECT VALUE decode_climate({'bytes': bytes(*)}) FROM 'sensors/+'";
    world.rule("decoded", 1, Some(calling(sql, "home.decoded"))).await;
    let running = world.start("a");
    until("seen", async || accepted(&world, "decoded").await == "FunctionMissing").await;
    world.function("decode-climate", Some("function main(input) { return {t: input.bytes[0] / 2}; }")).await;
    until("in force", async || accepted(&world, "decoded").await == "Accepted").await;
    world.publish([message("d", 1, "-")]).await;
    until("an output", async || world.values("home.decoded").await == [r#"{"t":22.5}"#]).await;

    world.function("decode-climate", Some("const main = ({bytes}) => ({t: bytes[0]});")).await;
    let number = AtomicU16::new(1);
    until("the new one", async || {
        world.publish([message("d", number.fetch_add(1, Relaxed) + 1, "-")]).await;
        world.values("home.decoded").await.contains(&r#"{"t":45}"#.to_owned())
    })
    .await;
    running.stop().await;

    // Of another process: function and rule are there before it starts, in whichever order it reads them.
    let (other, _dir) = World::embedded().await;
    other.rule("decoded", 1, Some(calling(sql, "home.decoded"))).await;
    other.function("decode-climate", Some("function main(input) { return input.bytes.length; }")).await;
    other.publish([message("d", 1, "four")]).await;
    let running = other.start("a");
    until("an output", async || other.values("home.decoded").await == ["4"]).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_goes_wrong_costs_its_own_rows_only() {
    let (world, _dir) = World::embedded().await;
    let source = "function main(kind) { \
        if (kind === 'loop') { for (;;) {} } \
        if (kind === 'deep') { return main(kind) + 1; } \
        if (kind === 'big') { return 'x'.repeat(1e9 / 2) + 'y'.repeat(1e9 / 2); } \
        if (kind === 'bomb') { return /^(a+)+$/.test('a'.repeat(40) + 'b'); } \
        if (kind === 'long') { return 'x'.repeat(1e6); } \
        if (kind === 'throw') { throw new Error('too short'); } \
        if (kind === 'trick') { Object.prototype.toJSON = () => 'stolen'; Array.prototype.concat = null; return {}; } \
        return [kind].concat(typeof kind); }";
    world.function("risky", Some(source)).await;
    world.rule("risky", 1, Some(calling("SELECT risky(k) AS r, k FROM 'sensors/+'", "home.risky"))).await;
    world.rule("plain", 1, Some(calling("SELECT k FROM 'sensors/+'", "home.plain"))).await;
    let running = world.start("a");
    let kinds = ["loop", "deep", "big", "bomb", "long", "throw", "trick", "well"];
    for (number, kind) in (1..).zip(kinds) {
        world.publish([message("d", number, &json!({ "k": kind }).to_string())]).await;
    }
    until("all rows of the plain rule", async || world.values("home.plain").await.len() == kinds.len()).await;
    let letters = world.read(ERRORS_TOPIC).await;
    let causes: Vec<String> = letters.iter().map(|letter| header(letter, "error")).collect();
    let expected =
        ["processor time", "main threw: ", "memory", "processor time", "result: ", "main threw: Error: too short"];
    assert_eq!(causes.len(), expected.len(), "{causes:?}");
    for (cause, part) in causes.iter().zip(expected) {
        assert!(cause.starts_with("risky: ") && cause.contains(part), "{cause} has no {part}");
    }
    assert!(letters.iter().all(|letter| header(letter, "rule") == "risky"));
    // What one call has done to its globals is not there for the next.
    let rows = [r#"{"r":"stolen","k":"trick"}"#, r#"{"r":["well","string"],"k":"well"}"#];
    assert_eq!(world.values("home.risky").await.iter().map(String::as_str).collect::<BTreeSet<_>>(), rows.into());
    until("counted", async || world.status("risky").await.is_ok_and(|status| status.failed == 6)).await;

    world.function("risky", None).await;
    let number = AtomicU16::new(100);
    until("its end", async || {
        world.publish([message("d", number.fetch_add(1, Relaxed) + 1, r#"{"k": "well"}"#)]).await;
        let letters = world.read(ERRORS_TOPIC).await;
        letters.last().is_some_and(|letter| header(letter, "error") == "risky: there is no such function any more")
    })
    .await;
    running.stop().await;
}
