//! The engine alone over an embedded store, with bounds that a test can reach.

use async_trait::async_trait;
use drover_types::{FixedClock, Qos, RecordId};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::*;
use crate::adapters::embedded::Embedded;
use crate::config::EmbeddedLimits;
use crate::conformance::{device, entry};
use crate::ports::{Registered, SeriesStore};
use crate::series::{Entry, Field, Message, Place, Value};

/// How long a question may take here.
const SHORT: Duration = Duration::from_secs(2);
/// What a question may take beyond that to be over, on a machine that does many other things: less than the pairs of one read.
const MARGIN: Duration = Duration::from_secs(5);
/// Pause between two looks at a state that is awaited.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A registry without devices.
struct Nobody;

#[async_trait]
impl DeviceList for Nobody {
    async fn page(&self, _: &TenantId, _: &str) -> Result<(Vec<Registered>, String), ApiError> {
        Ok((Vec::new(), String::new()))
    }
}

struct Engine {
    sql: Arc<Sql>,
    _directory: TempDir,
}

impl Engine {
    async fn over(entries: Vec<Entry>, bounds: Bounds) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let store = Embedded::open(directory.path(), EmbeddedLimits::default()).expect("opens");
        store.store(Arc::new(entries)).await.expect("writable");
        let queries = Queries { store: Arc::new(store), clock: Arc::new(FixedClock::at(0)), retention_ms: None };
        let sql = Sql::new(Arc::new(queries), Arc::new(Nobody), bounds).expect("threads");
        Self { sql: Arc::new(sql), _directory: directory }
    }

    async fn ask_as(&self, tenant: &str, sql: &str) -> Result<Vec<String>, ApiError> {
        let answer = self.sql.query(TenantId::new(tenant).expect("valid"), sql.to_owned()).await?;
        Ok(answer.rows)
    }

    async fn ask(&self, sql: &str) -> Result<Vec<String>, ApiError> {
        self.ask_as("home", sql).await
    }

    /// Waits until no question is worked on, which is soon.
    async fn idle(&self) {
        let idle = async {
            while !self.sql.turns.are_free() {
                sleep(LOOK_AGAIN).await;
            }
        };
        timeout(MARGIN, idle).await.expect("turns are given back");
    }
}

/// Points of each field of the device `d`: as many as one read brings, so that a scan looks for who waits only now and then.
const POINTS: u64 = 1_000;
/// Fields of it. Whoever compares all points with all does not end within any test, nor do those of one read with all.
const FIELDS: usize = 200;

fn many_points() -> Vec<Entry> {
    let values: Vec<_> =
        (0..FIELDS).map(|i| (Field::new(format!("f{i}")).expect("valid"), Value::Number(1.0))).collect();
    let message = |time_ms| Message {
        at: Place { time_ms, id: RecordId([1; 16]) },
        topic: "t/d".to_owned(),
        qos: Qos::AtLeastOnce,
        payload: "{}".into(),
        of_rule: false,
    };
    (0..POINTS).map(|i| Entry { device: device("d"), message: message(i), values: values.clone() }).collect()
}

/// Questions that compare each point with each, and of whose pairs none or one of a row comes out.
const ENDLESS: [&str; 4] = [
    "SELECT count(*) AS n FROM points a JOIN points b ON a.device = b.device AND a.double + b.double < 0",
    "SELECT count(*) AS n FROM points a LEFT JOIN points b ON a.device = b.device AND a.double + b.double < 0",
    "SELECT count(*) AS n FROM points a WHERE a.device IN (SELECT b.device FROM points b)",
    "SELECT count(*) AS n FROM points a WHERE NOT EXISTS (SELECT 1 FROM points b WHERE a.device = b.device)",
];

#[tokio::test]
async fn a_join_that_compares_very_many_rows_ends_with_its_time_and_gives_its_turn_back() {
    let engine = Engine::over(many_points(), Bounds { deadline: SHORT, ..Bounds::default() }).await;
    for sql in ENDLESS {
        let began = Instant::now();
        let error = engine.ask(sql).await.expect_err(sql);
        assert_eq!((error.code, error.limit.as_deref()), (ErrorCode::DeadlineExceeded, Some("2s")), "{error:?}");
        assert!(began.elapsed() < SHORT + MARGIN, "{sql}: {:?}", began.elapsed());
        engine.idle().await;
        assert_eq!(engine.ask("SELECT 1 AS n").await.as_deref(), Ok([r#"{"n":1}"#.to_owned()].as_slice()));
    }
}

#[tokio::test]
async fn a_question_whose_asker_has_gone_gives_its_turn_back() {
    let engine = Engine::over(many_points(), Bounds::default()).await;
    for sql in ENDLESS {
        timeout(SHORT, engine.ask(sql)).await.expect_err("not answered yet");
        engine.idle().await;
    }
}

#[tokio::test]
async fn slow_questions_of_one_tenant_do_not_hold_up_those_of_another() {
    let engine = Engine::over(many_points(), Bounds::default()).await;
    let slow = futures::future::join_all([0; 6].map(|_| engine.ask(ENDLESS[0])));
    let others = async {
        while !engine.sql.turns.are_waited_for() {
            sleep(LOOK_AGAIN).await;
        }
        let began = Instant::now();
        // While the slow ones begin, and while they compare.
        while began.elapsed() < 2 * SHORT {
            let answer = engine.ask_as("away", "SELECT count(*) AS n FROM points").await;
            assert_eq!(answer.as_deref(), Ok([r#"{"n":0}"#.to_owned()].as_slice()));
        }
    };
    tokio::select! {
        () = others => {}
        answers = slow => panic!("answered first: {answers:?}"),
    }
}

/// Messages of the device `d`, one a millisecond, each with a point of the field `t`.
fn many_messages() -> Vec<Entry> {
    (0..ROWS).map(|i| entry("d", i, 1, &i.to_string())).collect()
}

/// How many of them.
const ROWS: u64 = 12_000;

#[tokio::test]
async fn a_question_may_read_as_many_rows_as_its_bound_from_all_of_its_tables_together() {
    let engine = Engine::over(many_messages(), Bounds { rows_read_max: ROWS - 1_000, ..Bounds::default() }).await;
    let until = |rows: u64| format!("FROM telemetry WHERE time < to_timestamp_millis({rows})");
    let fits = engine.ask(&format!("SELECT count(*) AS n {}", until(ROWS - 1_000))).await;
    assert_eq!(fits.as_deref(), Ok([r#"{"n":11000}"#.to_owned()].as_slice()));
    let both = format!("SELECT topic {0} UNION SELECT topic {0}", until(ROWS / 2));
    for too_many in [format!("SELECT count(*) AS n {}", until(ROWS - 999)), both] {
        let error = engine.ask(&too_many).await.expect_err(&too_many);
        assert_eq!((error.code, error.limit.as_deref()), (ErrorCode::ResourceExhausted, Some("11000")), "{error:?}");
        assert!(error.message.starts_with("reads more than 11000 rows"), "{}", error.message);
    }
}

#[tokio::test]
async fn the_newest_rows_of_a_device_are_found_without_reading_all() {
    let engine = Engine::over(many_messages(), Bounds { rows_read_max: ROWS / 2, ..Bounds::default() }).await;
    let newest = ["11999.0", "11998.0", "11997.0"].map(|value| format!(r#"{{"double":{value}}}"#));
    let of_field = "SELECT double FROM points WHERE device = 'd' AND field = 't' ORDER BY time";
    assert_eq!(engine.ask(&format!("{of_field} DESC LIMIT 3")).await.as_deref(), Ok(newest.as_slice()));
    let messages =
        "SELECT payload_text AS p FROM telemetry WHERE device = 'd' AND topic = 't/d' ORDER BY time DESC LIMIT 1";
    assert_eq!(engine.ask(messages).await.as_deref(), Ok([r#"{"p":"11999"}"#.to_owned()].as_slice()));
    let of_device = "SELECT double FROM points WHERE device = 'd' ORDER BY time DESC LIMIT 3";
    for reads_all in [&format!("{of_field} LIMIT 3"), of_device] {
        let error = engine.ask(reads_all).await.expect_err(reads_all);
        assert_eq!(error.code, ErrorCode::ResourceExhausted, "{error:?}");
    }
}
