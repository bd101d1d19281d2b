//! Questions in SQL over what was published.

use std::time::Duration;

use drover_proto::from_status;
use drover_proto::storage::v1::{QueryRequest, QueryResponse};
use drover_storage::StorageConfig;
use drover_types::{ApiError, ErrorCode, Telemetry, TenantId};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::stage::{NOW_MS, Stage, message};

/// How long the engine may think about any statement that reads next to nothing, on a machine that does many other things.
const PATIENCE: Duration = Duration::from_secs(25);
/// Half an hour, in milliseconds.
const HALF_HOUR: u64 = 30 * 60 * 1000;

async fn stage_of(messages: impl IntoIterator<Item = Telemetry>) -> (Stage, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let stage = Stage::on(directory.path(), StorageConfig::default()).await;
    stage.publish(messages).await;
    (stage, directory)
}

async fn asked(stage: &Stage, tenant: &str, sql: &str) -> Result<QueryResponse, ApiError> {
    let request = QueryRequest { tenant: tenant.into(), sql: sql.into() };
    stage.client().query(request).await.map(tonic::Response::into_inner).map_err(|status| from_status(&status))
}

/// The rows of an answer about the tenant `home`.
async fn rows(stage: &Stage, sql: &str) -> Vec<Value> {
    let answer = asked(stage, "home", sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    answer.rows.iter().map(|row| serde_json::from_str(row).expect("JSON")).collect()
}

async fn refused(stage: &Stage, sql: &str) -> ApiError {
    let sql_shown: String = sql.chars().take(80).collect();
    asked(stage, "home", sql).await.map(|answer| answer.rows).expect_err(&sql_shown)
}

#[tokio::test]
async fn points_and_messages_are_rows_with_the_columns_of_the_contract() {
    let payload = r#"{"temperature": 31.5, "open": true, "mode": "eco"}"#;
    let (stage, _directory) =
        stage_of([message("d", 1, NOW_MS, payload), message("d", 2, NOW_MS + 5, [0xff, 0])]).await;
    let answer = asked(&stage, "home", "SELECT * FROM points ORDER BY field").await.expect("answered");
    let columns: Vec<_> = answer.columns.iter().map(|column| (column.name.as_str(), column.r#type.as_str())).collect();
    let expected = [
        ("time", "timestamp with time zone"),
        ("device", "text"),
        ("topic", "text"),
        ("field", "text"),
        ("double", "double precision"),
        ("text", "text"),
        ("bool", "boolean"),
    ];
    assert_eq!((columns.as_slice(), answer.truncated), (expected.as_slice(), false));
    let point = |field: &str, double: Value, text: Value, truth: Value| {
        json!({"time": "2026-11-18T11:06:40Z", "device": "d", "topic": "sensors/d", "field": field,
            "double": double, "text": text, "bool": truth})
    };
    let points = [
        point("mode", Value::Null, json!("eco"), Value::Null),
        point("open", Value::Null, Value::Null, json!(true)),
        point("temperature", json!(31.5), Value::Null, Value::Null),
    ];
    assert_eq!(rows(&stage, "SELECT * FROM points ORDER BY field").await, points);
    let messages = rows(&stage, "SELECT * FROM telemetry ORDER BY time").await;
    let id = message("d", 1, NOW_MS, payload).id.to_string();
    assert_eq!(messages[0]["payload_text"], payload);
    assert_eq!((&messages[0]["id"], &messages[0]["qos"]), (&json!(id), &json!(1)));
    assert_eq!((&messages[1]["payload"], &messages[1]["payload_text"]), (&json!("/wA="), &Value::Null));
    assert_eq!(messages[1]["time"], "2026-11-18T11:06:40.005Z");
    // Two messages of one second, one of which lies behind its beginning.
    let sql = "SELECT count(*) AS n FROM telemetry WHERE time::timestamp(0) <= TIMESTAMP '2026-11-18 11:06:40'";
    assert_eq!(rows(&stage, sql).await, [json!({"n": 2})]);
}

/// Devices `a` to `d`, a message each half hour with two fields.
fn history() -> impl Iterator<Item = Telemetry> {
    ["a", "b", "c", "d"].into_iter().enumerate().flat_map(|(of, device)| {
        (0..12_u16).map(move |i| {
            let payload = format!(r#"{{"t": {}, "h": {i}}}"#, of * 10 + usize::from(i));
            message(device, i, NOW_MS - 11 * HALF_HOUR + u64::from(i) * HALF_HOUR, payload)
        })
    })
}

#[tokio::test]
async fn what_a_condition_leaves_out_is_what_the_rows_say() {
    let (stage, _directory) = stage_of(history()).await;
    let all = rows(&stage, "SELECT device, field, double, time FROM points").await;
    assert_eq!(all.len(), 4 * 12 * 2);
    let last_hours = "2026-11-18T08:06:40Z";
    let is = |row: &Value, column: &str, value: &str| row[column] == value;
    type Holds<'c> = Box<dyn Fn(&Value) -> bool + 'c>;
    let conditions: Vec<(String, Holds)> = vec![
        ("device = 'a'".into(), Box::new(|row| is(row, "device", "a"))),
        ("'a' = device AND field = 't'".into(), Box::new(|row| is(row, "device", "a") && is(row, "field", "t"))),
        ("device IN ('a', 'c')".into(), Box::new(|row| is(row, "device", "a") || is(row, "device", "c"))),
        ("device IN ('a', 'b', 'c', 'x', 'y')".into(), Box::new(|row| !is(row, "device", "d"))),
        ("device NOT IN ('a', 'b')".into(), Box::new(|row| !is(row, "device", "a") && !is(row, "device", "b"))),
        ("NOT device = 'a'".into(), Box::new(|row| !is(row, "device", "a"))),
        ("device = 'a' OR field = 'h'".into(), Box::new(|row| is(row, "device", "a") || is(row, "field", "h"))),
        ("device LIKE 'a%' OR double > 30".into(), {
            Box::new(|row| is(row, "device", "a") || row["double"].as_f64() > Some(30.0))
        }),
        ("device = 'a' AND device = 'b'".into(), Box::new(|_| false)),
        (format!("time >= '{last_hours}'"), Box::new(|row| row["time"].as_str() >= Some(last_hours))),
        (format!("time > TIMESTAMP '{last_hours}'"), Box::new(|row| row["time"].as_str() > Some(last_hours))),
        (format!("time < '{last_hours}' AND device = 'b'"), {
            Box::new(|row| row["time"].as_str() < Some(last_hours) && is(row, "device", "b"))
        }),
        (format!("time BETWEEN '{last_hours}' AND '2026-11-18T09:06:40Z'"), {
            Box::new(|row| {
                row["time"].as_str() >= Some(last_hours) && row["time"].as_str() <= Some("2026-11-18T09:06:40Z")
            })
        }),
        (format!("time = '{last_hours}'"), Box::new(|row| is(row, "time", last_hours))),
        (format!("time != '{last_hours}'"), Box::new(|row| !is(row, "time", last_hours))),
        (format!("time < TIMESTAMP '{last_hours}' + INTERVAL '1 hour'"), {
            Box::new(|row| row["time"].as_str() < Some("2026-11-18T09:06:40Z"))
        }),
    ];
    for (condition, holds) in conditions {
        let sql = format!("SELECT device, field, double, time FROM points WHERE {condition}");
        let (mut found, mut expected) = (rows(&stage, &sql).await, all.clone());
        expected.retain(|row| holds(row));
        found.sort_by_key(Value::to_string);
        expected.sort_by_key(Value::to_string);
        assert_eq!(found, expected, "{condition}");
    }
}

#[tokio::test]
async fn rows_are_grouped_joined_sorted_and_cut() {
    let (stage, _directory) = stage_of(history()).await;
    let sql = "SELECT device, avg(double) AS mean, max(double), count(*) AS n FROM points WHERE field = 't' \
        GROUP BY device ORDER BY mean DESC LIMIT 2";
    let expected = [
        json!({"device": "d", "mean": 35.5, "max(points.double)": 41.0, "n": 12}),
        json!({"device": "c", "mean": 25.5, "max(points.double)": 31.0, "n": 12}),
    ];
    assert_eq!(rows(&stage, sql).await, expected);
    let sql = "SELECT date_bin(INTERVAL '3 hours', time) AS bin, sum(double) AS s FROM points \
        WHERE device = 'a' AND field = 'h' GROUP BY bin ORDER BY bin";
    let sums = rows(&stage, sql).await;
    assert_eq!(sums.iter().map(|row| row["s"].as_f64().expect("a number")).sum::<f64>(), 66.0);
    assert_eq!(sums[1]["bin"], "2026-11-18T06:00:00Z");
    let sql = "SELECT t.device, t.double - h.double AS d FROM points t JOIN points h \
        ON t.device = h.device AND t.time = h.time WHERE t.field = 't' AND h.field = 'h' AND t.double = 41";
    assert_eq!(rows(&stage, sql).await, [json!({"device": "d", "d": 30.0})]);
    let newest = rows(&stage, "SELECT payload_text FROM telemetry WHERE device = 'b' ORDER BY time DESC LIMIT 1").await;
    assert_eq!(newest, [json!({"payload_text": r#"{"t": 21, "h": 11}"#})]);
    assert_eq!(rows(&stage, "SELECT count(*) AS n FROM telemetry").await, [json!({"n": 48})]);
    assert_eq!(rows(&stage, "SELECT 1 AS one").await, [json!({"one": 1})]);
    assert_eq!(rows(&stage, "SELECT * FROM points WHERE device = 'nobody'").await, [] as [Value; 0]);
}

#[tokio::test]
async fn rows_come_in_the_order_asked_for_whatever_order_they_are_read_in() {
    let (stage, _directory) = stage_of(history()).await;
    let conditions =
        ["device = 'b' AND field = 't'", "device = 'b'", "device IN ('a', 'b') AND field = 't'", "field = 'h'"];
    for condition in conditions {
        let all = rows(&stage, &format!("SELECT time, device, field FROM points WHERE {condition}")).await;
        for (order, is_descending) in [("time", false), ("time DESC", true), ("time DESC NULLS LAST", true)] {
            for limit in [3, 12, 1_000] {
                let mut expected: Vec<_> = all.iter().map(|row| row["time"].to_string()).collect();
                expected.sort();
                if is_descending {
                    expected.reverse();
                }
                expected.truncate(limit);
                let sql = format!("SELECT time FROM points WHERE {condition} ORDER BY {order} LIMIT {limit}");
                let found: Vec<_> = rows(&stage, &sql).await.iter().map(|row| row["time"].to_string()).collect();
                assert_eq!(found, expected, "{sql}");
            }
        }
    }
    let sql = "SELECT payload_text AS p FROM telemetry WHERE device = 'b' ORDER BY time DESC LIMIT 2";
    assert_eq!(rows(&stage, sql).await, [json!({"p": r#"{"t": 21, "h": 11}"#}), json!({"p": r#"{"t": 20, "h": 10}"#})]);
    let sql = "SELECT a.double AS t, b.double AS h FROM points a JOIN points b USING (time) WHERE a.device = 'c' \
        AND b.device = 'd' AND a.field = 't' AND b.field = 'h' ORDER BY time DESC LIMIT 2";
    assert_eq!(rows(&stage, sql).await, [json!({"t": 31.0, "h": 11.0}), json!({"t": 30.0, "h": 10.0})]);
    let sql = "SELECT date_bin(INTERVAL '1 hour', time) AS hour, count(*) AS n FROM points WHERE device = 'b' \
        AND field = 't' GROUP BY hour ORDER BY hour DESC LIMIT 2";
    assert_eq!(rows(&stage, sql).await.iter().map(|row| row["n"].clone()).collect::<Vec<_>>(), [json!(1), json!(2)]);
}

#[tokio::test]
async fn a_tenant_sees_its_own_rows_and_no_others() {
    let theirs = Telemetry { tenant: TenantId::new("away").expect("valid"), ..message("d", 1, NOW_MS, "17") };
    let (stage, _directory) = stage_of([message("d", 2, NOW_MS, "1"), message("e", 3, NOW_MS, "2"), theirs]).await;
    let sql = "SELECT device, double FROM points ORDER BY double";
    assert_eq!(rows(&stage, sql).await, [json!({"device": "d", "double": 1.0}), json!({"device": "e", "double": 2.0})]);
    let away = asked(&stage, "away", sql).await.expect("answered");
    assert_eq!(away.rows, [r#"{"device":"d","double":17.0}"#]);
    assert_eq!(asked(&stage, "nobody", sql).await.expect("answered").rows, [""; 0]);
    for table in ["away.points", "drover.away.points", "home.points"] {
        assert_eq!(refused(&stage, &format!("SELECT * FROM {table}")).await.code, ErrorCode::InvalidArgument);
    }
    let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY table_name";
    assert_eq!(rows(&stage, tables).await, [json!({"table_name": "points"}), json!({"table_name": "telemetry"})]);
}

#[tokio::test]
async fn what_does_not_read_or_reads_something_else_is_refused_as_sql() {
    let (stage, directory) = stage_of([message("d", 1, NOW_MS, "1")]).await;
    let file = directory.path().join("secret.csv");
    std::fs::write(&file, "a\n1\n").expect("written");
    let file = file.display();
    for sql in [
        "",
        "   ",
        "SELEKT 1",
        "SELECT",
        "SELECT 1; SELECT 2",
        "SELECT nothing FROM points",
        "SELECT * FROM nowhere",
        "SELECT no_such_function(1)",
        "SELECT double + text FROM points GROUP BY",
        "INSERT INTO points SELECT * FROM points",
        "DELETE FROM points",
        "UPDATE points SET double = 1",
        "DROP TABLE points",
        "TRUNCATE TABLE points",
        "CREATE TABLE t AS SELECT 1",
        "CREATE VIEW v AS SELECT 1",
        "CREATE DATABASE d",
        "SET datafusion.execution.batch_size = 1",
        "PREPARE p AS SELECT 1",
        "BEGIN",
        "SELECT repeat('x', 1000000000)",
        "SELECT lpad('x', 1000000000, 'x')",
        "SELECT rpad('x', 1000000000, 'x')",
        "SELECT replace('xxx', 'x', 'yyyy')",
        "SELECT regexp_replace('xxx', 'x', 'yyyy', 'g')",
        "SELECT levenshtein('a', 'b')",
        "SELECT 'a' || 'b'",
        "SELECT concat('a', 'b')",
        "SELECT encode('a', 'hex')",
        "SELECT overlay('a' PLACING 'b' FROM 1)",
        "SELECT array_agg(payload) FROM telemetry",
        "SELECT approx_percentile_cont(0.5, 100000000000000) WITHIN GROUP (ORDER BY double) FROM points",
        "SELECT * FROM generate_series(1, 1000000000000)",
        "SELECT * FROM range(1, 1000000000000)",
        "SELECT count(*) OVER () FROM points",
        "SELECT * FROM (VALUES (1), (2)) AS v",
        "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n FROM r) SELECT n FROM r",
        "SELECT count(*) FROM points a CROSS JOIN points b",
        "SELECT count(*) FROM points a JOIN points b ON a.double < b.double",
        "SELECT a.double, b.double FROM points a JOIN points b USING (device)",
        "SELECT 1 / 0",
        "SELECT 'a'::int",
    ] {
        let error = refused(&stage, sql).await;
        assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidArgument, Some("sql")), "{sql}: {error:?}");
        assert!(!error.message.is_empty() && !error.message.contains("backtrace"), "{sql}: {}", error.message);
    }
    for sql in [
        format!("SELECT * FROM '{file}'"),
        format!("SELECT * FROM \"{file}\""),
        format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{file}'"),
        format!("COPY (SELECT 1) TO '{}.out'", file),
        format!("COPY points TO '{}.out' STORED AS CSV", file),
    ] {
        assert_eq!(refused(&stage, &sql).await.code, ErrorCode::InvalidArgument, "{sql}");
    }
    assert!(!directory.path().join("secret.csv.out").exists());
    assert_eq!(rows(&stage, "SELECT double FROM points").await, [json!({"double": 1.0})]);
}

/// `double+1, double+2, …`
fn sums(count: usize) -> String {
    (1..=count).map(|i| format!("double+{i}")).collect::<Vec<_>>().join(", ")
}

/// Names of `WITH`, each of which stands for twice the one before.
fn doubling_names(count: usize) -> String {
    (0..count).map(|i| format!(", c{} AS (SELECT n FROM c{i} UNION ALL SELECT n FROM c{i})", i + 1)).collect()
}

#[tokio::test]
async fn sql_of_any_size_and_depth_ends_in_an_answer() {
    let (stage, _directory) = stage_of([message("d", 1, NOW_MS, "1")]).await;
    let long = format!("SELECT 1 -- {}", "x".repeat(64 * 1024));
    let error = refused(&stage, &long).await;
    assert_eq!((error.field.as_deref(), error.limit.as_deref()), (Some("sql"), Some("65536")));
    assert_eq!(error.value, Some(long.len().to_string()));
    let fits = format!("SELECT 1 AS n -- {}", "x".repeat(64 * 1024 - 17));
    assert_eq!(rows(&stage, &fits).await, [json!({"n": 1})]);
    let chain = |start: &str, link: &str, parts: usize| format!("{start}{}", link.repeat(parts));
    let nested = |open: &str, core: &str, close: &str, parts: usize| {
        format!("{}{core}{}", open.repeat(parts), close.repeat(parts))
    };
    for deep in [
        // Too many parts.
        chain("SELECT 1", "+1", 20_000),
        nested("SELECT * FROM (", "SELECT 1", ")", 3_000),
        // As many as there may be, in every form that makes a tree of them.
        chain("SELECT 1", "+1", 2_499),
        chain("SELECT 'a'", "||'a'", 2_499),
        chain("SELECT 1", "::int", 1_249),
        chain("SELECT true", " AND true", 1_248),
        chain("SELECT * FROM points WHERE double=1", " OR double=1", 830),
        chain("SELECT 1", " UNION ALL SELECT 1", 832),
        chain("SELECT 1 FROM points", " CROSS JOIN points", 800),
        chain("SELECT * FROM points", " NATURAL JOIN telemetry", 800),
        chain("SELECT 1", " IS NULL", 1_249),
        chain("SELECT now()", " AT TIME ZONE 'UTC'", 800),
        chain("SELECT 1 WHERE true", " AND EXISTS (SELECT 1)", 490),
        format!("SELECT {}", nested("(", "1", ")", 1_249)),
        format!("SELECT {}", nested("abs(", "1", ")", 830)),
        format!("SELECT {}", nested("CASE WHEN true THEN ", "1", " END", 490)),
        format!("SELECT {}true", "NOT ".repeat(2_490)),
        format!("SELECT {}1", "- ".repeat(2_490)),
        nested("SELECT * FROM (", "SELECT 1", ") AS t", 350),
        format!("SELECT {}", vec!["'x'"; 12_000].join(",")),
        // What would grow without bound.
        format!("SELECT count(*) FROM points GROUP BY device, CUBE({})", sums(35)),
        format!("SELECT count(*) FROM points GROUP BY CUBE({})", sums(35)),
        format!("WITH c0 AS (SELECT 1 AS n){} SELECT n FROM c40", doubling_names(40)),
        format!(
            "SELECT * FROM {} WHERE n > 1",
            nested("(SELECT n+n AS n FROM ", "(SELECT double AS n FROM points)", ") AS t", 40)
        ),
        chain("SELECT payload FROM telemetry", " UNION ALL SELECT payload FROM telemetry", 100),
        format!("SELECT {} FROM telemetry", "payload,".repeat(2_000) + "1"),
        format!("SELECT 1 WHERE 1 IN ({})", vec!["1"; 30_000].join(",")),
    ] {
        let began = Instant::now();
        let code = asked(&stage, "home", &deep).await.map(drop).map_err(|error| error.code);
        let told = matches!(code, Ok(()) | Err(ErrorCode::InvalidArgument | ErrorCode::ResourceExhausted));
        let shown: String = deep.chars().take(80).collect();
        assert!(told && began.elapsed() < PATIENCE, "{code:?} after {:?}: {shown}", began.elapsed());
        assert_eq!(rows(&stage, "SELECT 1 AS n").await, [json!({"n": 1})]);
    }
}

#[tokio::test]
async fn an_answer_has_its_bounds_and_says_where_there_is_more() {
    let numbers = (0..10_001_u16).map(|i| message("d", i, NOW_MS + u64::from(i), i.to_string()));
    let large = (0..13_u8).map(|i| message("large", i.into(), NOW_MS + u64::from(i), vec![b'x'; 256 * 1024]));
    let (stage, _directory) = stage_of(numbers.chain(large)).await;
    let some = asked(&stage, "home", "SELECT double FROM points WHERE device = 'd'").await.expect("answered");
    assert_eq!((some.rows.len(), some.truncated), (10_000, true));
    let all = asked(&stage, "home", "SELECT double FROM points WHERE double < 10000").await.expect("answered");
    assert_eq!((all.rows.len(), all.truncated), (10_000, false));
    let sql = "SELECT payload_text FROM telemetry WHERE device = 'large'";
    let some = asked(&stage, "home", sql).await.expect("answered");
    assert_eq!((some.rows.len(), some.truncated), (11, true), "3 MiB");
    let error = refused(&stage, "SELECT string_agg(payload_text, '') FROM telemetry WHERE device = 'large'").await;
    assert_eq!((error.code, error.limit.as_deref()), (ErrorCode::ResourceExhausted, Some("3145728")));
}

#[tokio::test]
async fn a_question_that_needs_too_much_memory_is_refused_and_the_next_is_answered() {
    let large = (0..160_u8).map(|i| message("large", i.into(), NOW_MS + u64::from(i), vec![b'x'; 256 * 1024]));
    let (stage, _directory) = stage_of([message("d", 1, NOW_MS, "1")].into_iter().chain(large)).await;
    let error =
        refused(&stage, "SELECT payload_text FROM telemetry WHERE device = 'large' ORDER BY payload_text").await;
    assert_eq!(error.code, ErrorCode::ResourceExhausted, "{error:?}");
    let ask = || rows(&stage, "SELECT avg(double) AS mean FROM points");
    let answers = futures::future::join_all((0..16).map(|_| ask())).await;
    assert_eq!(answers, vec![vec![json!({"mean": 1.0})]; 16]);
}

#[tokio::test]
async fn what_is_older_than_the_retention_is_not_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let hour = drover_host::Duration::from_secs(3600);
    let config = StorageConfig { retention: Some(hour), ..StorageConfig::default() };
    let stage = Stage::on(directory.path(), config).await;
    stage.publish([message("d", 1, NOW_MS - 2 * HALF_HOUR - 1, "1"), message("d", 2, NOW_MS - HALF_HOUR, "2")]).await;
    assert_eq!(rows(&stage, "SELECT double FROM points").await, [json!({"double": 2.0})]);
    assert_eq!(
        rows(&stage, "SELECT payload_text AS p FROM telemetry WHERE time >= '2000-01-01'").await,
        [json!({"p": "2"})]
    );
}

#[tokio::test]
async fn without_the_registry_its_devices_are_unavailable_and_all_else_is_answered() {
    let (stage, _directory) = stage_of([message("d", 1, NOW_MS, "1")]).await;
    let error = refused(&stage, "SELECT * FROM points JOIN devices USING (device)").await;
    assert_eq!(error.code, ErrorCode::Unavailable, "{error:?}");
    assert_eq!(rows(&stage, "SELECT 1 AS devices FROM points").await, [json!({"devices": 1})]);
}
