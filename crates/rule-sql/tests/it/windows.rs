//! Windows, sessions and patterns over streams: what comes out, when, and that a naive replay agrees.

use std::collections::{BTreeMap, BTreeSet};

use drover_rule_sql::{
    CompiledRule, Due, GROUP_BYTES_MAX, Groups, IDLE_MS, Message, Origin, Outcome, PATTERN_KEPT_MS, Room, Rule, Taken,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// When the streams of these tests begin, milliseconds since the Unix epoch; divides by every window.
const BASE_MS: u64 = 1_700_000_000_000 / 86_400_000 * 86_400_000;
/// More than any test needs.
const ROOM: Room = Room { groups: 1_000, bytes: 1 << 24, groups_max: 1_000, bytes_max: 1 << 24 };

/// One rule, its groups, and all that came out so far.
struct Stream {
    rule: CompiledRule,
    groups: Groups,
    kept: BTreeMap<String, Vec<u8>>,
    order: u64,
    rows: Vec<String>,
    late: usize,
}

impl Stream {
    fn of(sql: &str) -> Self {
        let rule = Rule::compile(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        Self { rule, groups: Groups::default(), kept: BTreeMap::new(), order: 0, rows: Vec::new(), late: 0 }
    }

    /// A message of `device`, received `at_ms` after the beginning.
    fn message(&mut self, device: &str, at_ms: u64, payload: &Value) -> Taken {
        let payload = payload.to_string();
        let mut message = Message::new("a/b", Some(device), BASE_MS + at_ms, payload.as_bytes());
        message.origin = Origin { device: Some(device), ..Origin::default() };
        self.order += 1;
        let taken = self.groups.take(&self.rule, &message, self.order, 0, ROOM);
        self.late += usize::from(taken.late);
        if taken.turned {
            self.rows.push(text(self.rule.grouped_row(&message)));
        }
        self.come_out(&taken.due);
        self.close();
        taken
    }

    /// The clock says so, and nothing came.
    fn tick(&mut self, at_ms: u64) {
        self.groups.tick(&self.rule, BASE_MS + at_ms);
        self.close();
    }

    fn close(&mut self) {
        while let Some(due) = self.groups.close_next(&self.rule) {
            self.come_out(&due.expect("readable"));
        }
    }

    fn come_out(&mut self, due: &[Due]) {
        let plan = self.rule.plan().expect("grouped");
        for Due { group, closed } in due {
            let payload = plan.payload(group, closed).expect("a payload");
            let message = Message::new("window", None, closed.end_ms, payload.as_bytes());
            self.rows.push(text(self.rule.grouped_row(&message)));
        }
    }

    /// What is kept replaces what is in memory, as after a crash.
    fn restart(&mut self) {
        self.keep();
        self.groups = Groups::default();
        for (key, state) in &self.kept {
            self.groups.restore(key, Some(state)).expect("readable");
        }
    }

    fn keep(&mut self) {
        for (key, state) in self.groups.changes() {
            match state {
                Some(state) => drop(self.kept.insert(key.to_string(), state)),
                None => drop(self.kept.remove(&*key)),
            }
        }
    }

    fn sorted(mut self) -> Vec<String> {
        self.rows.sort_unstable();
        self.rows
    }
}

fn text(outcome: Outcome<'_>) -> String {
    match outcome {
        Outcome::Row(row) => row.to_string(),
        Outcome::NoMatch => "no match".to_owned(),
        Outcome::Error(error) => format!("error: {error}"),
    }
}

/// Rows after messages of device `d` at seconds with values, and a long silence.
fn rows(sql: &str, messages: &[(u64, i64)]) -> Vec<String> {
    let mut stream = Stream::of(sql);
    for (second, value) in messages {
        stream.message("d", second * 1_000, &json!({"v": value}));
    }
    stream.tick(100_000_000);
    stream.rows
}

#[test]
fn a_tumbling_window_makes_one_row_of_its_messages_and_empty_ones_none() {
    let sql = "SELECT device().name AS d, count(*) AS n, sum(v) AS s, avg(v) AS a, min(v) AS lo, max(v) AS hi, \
               window_end() - window_start() AS ms FROM '#' GROUP BY device(), TUMBLING(1m)";
    let expected = [
        r#"{"d":"d","n":3,"s":7,"a":2.333333333333333333333333333333333,"lo":1,"hi":4,"ms":60000}"#,
        r#"{"d":"d","n":1,"s":9,"a":9,"lo":9,"hi":9,"ms":60000}"#,
    ];
    assert_eq!(rows(sql, &[(0, 1), (30, 2), (59, 4), (180, 9)]), expected);
}

#[test]
fn hopping_windows_overlap_and_sliding_ones_end_with_each_message() {
    let hopping = "SELECT sum(v) AS s FROM '#' GROUP BY device(), HOPPING(3m, 1m)";
    assert_eq!(
        rows(hopping, &[(0, 1), (60, 2), (150, 4)]),
        ["1", "3", "7", "6", "4"].map(|s| format!("{{\"s\":{s}}}"))
    );
    let sliding = "SELECT sum(v) AS s FROM '#' GROUP BY device(), SLIDING(1m)";
    assert_eq!(
        rows(sliding, &[(0, 1), (59, 2), (60, 4), (200, 8)]),
        ["1", "3", "6", "8"].map(|s| format!("{{\"s\":{s}}}"))
    );
}

#[test]
fn a_session_ends_after_its_gap_and_absence_is_told_once() {
    let session = "SELECT count(*) AS n, first(v) AS f, last(v) AS l FROM '#' GROUP BY device(), SESSION(30s)";
    let messages = [(0, 1), (29, 2), (59, 3), (100, 4)];
    assert_eq!(
        rows(session, &messages),
        [r#"{"n":2,"f":1,"l":2}"#, r#"{"n":1,"f":3,"l":3}"#, r#"{"n":1,"f":4,"l":4}"#]
    );
    let absent = "SELECT device().name AS d, last(v) AS v, window_end() AS at FROM '#' GROUP BY device(), ABSENT(5m)";
    let mut stream = Stream::of(absent);
    stream.message("d", 0, &json!({"v": 1}));
    stream.message("d", 200_000, &json!({"v": 2}));
    let due_ms = 200_000 + 300_000;
    // Lateness is a second unless the rule says more.
    stream.tick(due_ms + 1_000 + IDLE_MS - 1);
    assert!(stream.rows.is_empty(), "{:?}", stream.rows);
    stream.tick(due_ms + 1_000 + IDLE_MS);
    stream.tick(due_ms * 10);
    assert_eq!(stream.rows, [format!(r#"{{"d":"d","v":2,"at":{}}}"#, BASE_MS + due_ms)]);
    assert!(stream.groups.is_empty(), "nothing is kept of an absent device");
}

#[test]
fn devices_and_keys_are_groups_of_their_own() {
    let sql =
        "SELECT device().name AS d, room, count(v) AS n FROM '#' WHERE v > 0 GROUP BY device(), room, TUMBLING(1m)";
    let mut stream = Stream::of(sql);
    for (device, room, v) in [("a", "x", 1), ("b", "x", 1), ("a", "y", 1), ("a", "x", 1), ("a", "x", 0)] {
        stream.message(device, 0, &json!({"room": room, "v": v}));
    }
    stream.message("a", 0, &json!({"v": 5}));
    stream.tick(1_000_000);
    let expected = [
        r#"{"d":"a","room":"x","n":2}"#,
        r#"{"d":"a","room":"y","n":1}"#,
        r#"{"d":"a","room":null,"n":1}"#,
        r#"{"d":"b","room":"x","n":1}"#,
    ];
    assert_eq!(stream.sorted(), expected);
}

#[test]
fn time_is_that_of_the_event_and_lateness_says_how_long_is_waited() {
    let sql = "SELECT window_start() AS s, collect(v) AS all FROM '#' \
               GROUP BY device(), TUMBLING(10s) EVENT TIME t LATENESS 5s";
    let mut stream = Stream::of(sql);
    let event = |t: u64, v: u64| json!({"t": BASE_MS + t, "v": v});
    for (t, v) in [(1_000, 1), (12_000, 2), (9_999, 3), (14_999, 4)] {
        stream.message("d", 50_000, &event(t, v));
    }
    assert!(stream.rows.is_empty());
    stream.message("d", 50_000, &event(15_000, 5));
    assert_eq!(stream.rows, [format!(r#"{{"s":{BASE_MS},"all":[1,3]}}"#)]);
    assert!(stream.message("d", 50_000, &event(9_999, 6)).late);
    let told = |taken: Taken| taken.error.map(|error| error.to_string());
    let words = told(stream.message("d", 50_000, &json!({"t": "soon"})));
    assert_eq!(words.as_deref(), Some("event time \"soon\" is no number of milliseconds since the Unix epoch"));
    let ahead = told(stream.message("d", 50_000, &event(50_000 + 3_600_001, 1)));
    assert_eq!(ahead.as_deref(), Some("event time is 3600001 ms ahead of the clock, limit is 3600000"));
}

#[test]
fn a_late_message_is_left_out_and_counted_or_makes_a_row_of_its_own() {
    for (policy, expected) in [("DROP", vec![]), ("EMIT", vec![r#"{"n":1,"late":true,"v":7}"#])] {
        let sql = format!(
            "SELECT count(*) AS n, window_late() AS late, last(v) AS v FROM '#' \
             GROUP BY device(), TUMBLING(10s) EVENT TIME t LATENESS 0s LATE {policy}"
        );
        let mut stream = Stream::of(&sql);
        stream.message("d", 60_000, &json!({"t": BASE_MS + 30_000, "v": 1}));
        assert!(stream.message("d", 60_000, &json!({"t": BASE_MS + 19_999, "v": 7})).late);
        assert_eq!((stream.rows, stream.late), (expected.iter().map(|row| (*row).to_owned()).collect(), 1));
    }
}

#[test]
fn patterns_make_a_row_of_the_message_that_turned_them() {
    let changed = "SELECT v FROM '#' GROUP BY device(), CHANGED(v)";
    assert_eq!(rows(changed, &[(0, 1), (1, 1), (2, 2), (3, 1)]), [r#"{"v":1}"#, r#"{"v":2}"#, r#"{"v":1}"#]);
    let values = [(0, 10), (1, 31), (2, 29), (3, 31), (4, 28), (5, 40)];
    let rising = "SELECT v FROM '#' GROUP BY device(), RISING(v > 30, HYSTERESIS 2)";
    assert_eq!(rows(rising, &values), [r#"{"v":31}"#, r#"{"v":40}"#]);
    let falling = "SELECT v FROM '#' GROUP BY device(), FALLING(v > 30, HYSTERESIS 2)";
    assert_eq!(rows(falling, &values), [r#"{"v":28}"#]);
    let below = "SELECT v FROM '#' GROUP BY device(), RISING(v < 10, HYSTERESIS 2)";
    assert_eq!(rows(below, &[(0, 9), (1, 11), (2, 9), (3, 12), (4, 9)]), [r#"{"v":9}"#, r#"{"v":9}"#]);
    let plain = "SELECT v FROM '#' GROUP BY device(), RISING(v = 5)";
    assert_eq!(rows(plain, &[(0, 5), (1, 5), (2, 4), (3, 5)]), [r#"{"v":5}"#, r#"{"v":5}"#]);
}

#[test]
fn a_pattern_forgets_a_group_that_was_not_heard_of_for_its_time() {
    const DAY_MS: u64 = 24 * 3_600_000;
    let mut stream = Stream::of("SELECT v FROM '#' GROUP BY device(), CHANGED(v)");
    stream.message("a", 0, &json!({"v": 1}));
    stream.message("b", 0, &json!({"v": 1}));
    stream.restart();
    stream.message("b", PATTERN_KEPT_MS, &json!({"v": 1}));
    assert_eq!((stream.rows.len(), stream.groups.len()), (2, 2), "both are known");
    stream.tick(PATTERN_KEPT_MS + 9 * DAY_MS);
    assert!(!stream.groups.waits_for_time(), "time goes on with messages");
    stream.message("b", PATTERN_KEPT_MS + DAY_MS, &json!({"v": 1}));
    assert_eq!((stream.rows.len(), stream.groups.len()), (2, 1), "the other one is forgotten");
    stream.restart();
    assert_eq!(stream.groups.len(), 1, "and is removed from what is kept");
    stream.message("b", 2 * PATTERN_KEPT_MS + 3 * DAY_MS, &json!({"v": 1}));
    assert_eq!(stream.rows.len(), 3, "what comes after its time counts as the first");
}

#[test]
fn an_edge_that_was_forgotten_rises_again_and_does_not_fall() {
    const DAY_MS: u64 = 24 * 3_600_000;
    for (pattern, then, known, forgotten) in [
        ("RISING(v > 30, HYSTERESIS 2)", 40, vec![r#"{"v":31}"#], vec![r#"{"v":31}"#, r#"{"v":40}"#]),
        ("FALLING(v > 30, HYSTERESIS 2)", 20, vec![r#"{"v":20}"#], vec![]),
    ] {
        let rows = |after_ms: u64| {
            let mut stream = Stream::of(&format!("SELECT v FROM '#' GROUP BY device(), {pattern}"));
            stream.message("d", 0, &json!({"v": 31}));
            stream.restart();
            stream.message("d", after_ms, &json!({"v": then}));
            stream.rows
        };
        // A group that is heard of at the beginning of a day is kept for a day longer.
        assert_eq!(rows(PATTERN_KEPT_MS + DAY_MS - 1), known, "{pattern}");
        assert_eq!(rows(PATTERN_KEPT_MS + DAY_MS), forgotten, "{pattern}");
    }
}

#[test]
fn a_value_that_is_not_there_is_no_turn() {
    let mut stream = Stream::of("SELECT v FROM '#' GROUP BY device(), RISING(v > 30)");
    for payload in
        [json!({"v": 31}), json!({}), json!({"v": 32}), json!({"v": "hot"}), json!({"v": 30}), json!({"v": 33})]
    {
        stream.message("d", 0, &payload);
        stream.restart();
    }
    assert_eq!(stream.rows, [r#"{"v":31}"#, r#"{"v":33}"#]);
}

#[test]
fn what_is_as_it_was_is_not_written_and_a_condition_that_does_not_hold_is_not_kept() {
    let written = |pattern: &str, values: [u32; 5]| {
        let mut stream = Stream::of(&format!("SELECT v FROM '#' GROUP BY device(), {pattern}"));
        let written = values.map(|v| {
            stream.message("d", 0, &json!({ "v": v }));
            stream.groups.changes().len()
        });
        (written, stream.groups.len())
    };
    assert_eq!(written("RISING(v > 30)", [20, 31, 32, 20, 20]), ([0, 1, 0, 1, 0], 0));
    assert_eq!(written("CHANGED(v)", [1, 1, 2, 2, 1]), ([1, 0, 1, 0, 1], 1));
}

#[test]
fn a_window_was_republished_as_often_as_its_own_messages_and_no_more() {
    let rule = Rule::compile("SELECT count(*) AS n FROM '#' GROUP BY device(), TUMBLING(1m)").expect("compiles");
    let (mut groups, mut hops) = (Groups::default(), Vec::new());
    for (minute, behind) in [(0, 3), (0, 1), (1, 0), (2, 2), (3, 0), (4, 0)] {
        let mut message = Message::new("a", None, BASE_MS + minute * 60_000, b"{}");
        message.origin.device = Some("d");
        let taken = groups.take(&rule, &message, 0, behind, ROOM);
        assert_eq!(taken.error, None);
        hops.extend(taken.due.iter().map(|due| due.closed.hops));
        while let Some(due) = groups.close_next(&rule) {
            hops.extend(due.expect("readable").iter().map(|due| due.closed.hops));
        }
    }
    assert_eq!(hops, [3, 0, 2]);
}

#[test]
fn a_group_has_a_largest_state_and_a_rule_so_many_groups() {
    let mut stream = Stream::of("SELECT collect(v, 1000) AS all FROM '#' GROUP BY device(), TUMBLING(1h)");
    let long = "x".repeat(GROUP_BYTES_MAX / 4);
    let errors: Vec<_> = (0..5).filter_map(|_| stream.message("d", 0, &json!({"v": long})).error).collect();
    assert_eq!(errors.len(), 2, "three quarters fit");
    assert!(errors[0].to_string().ends_with("limit is 65536"), "{}", errors[0]);

    let rule = Rule::compile("SELECT count(*) AS n FROM '#' GROUP BY device(), TUMBLING(1h)").expect("compiles");
    let mut groups = Groups::default();
    let mut take = |device: &str, groups_max: usize, bytes: usize| {
        let mut message = Message::new("a", None, BASE_MS, b"{}");
        message.origin.device = Some(device);
        let room = Room { groups: groups_max - groups.len(), bytes, groups_max, bytes_max: 99 };
        groups.take(&rule, &message, 0, 0, room).error.map(|error| error.to_string())
    };
    assert_eq!((take("a", 2, 1_000), take("b", 2, 1_000), take("a", 2, 1_000)), (None, None, None));
    assert_eq!(take("c", 2, 1_000).as_deref(), Some("there is no room for another group, limit is 2"));
    assert_eq!(take("c", 3, 5).as_deref(), Some("there is no room for more state, limit is 99 bytes"));
}

#[test]
fn a_window_that_is_over_comes_out_with_a_message_that_there_is_no_room_for() {
    let rule = Rule::compile("SELECT count(*) AS n FROM '#' GROUP BY device(), TUMBLING(1m)").expect("compiles");
    let mut groups = Groups::default();
    let mut take = |at_ms: u64, room: Room| {
        let mut message = Message::new("a", None, BASE_MS + at_ms, b"{}");
        message.origin.device = Some("d");
        groups.take(&rule, &message, 0, 0, room)
    };
    assert_eq!(take(0, ROOM).error, None);
    let taken = take(100_000_000, Room { groups: 0, ..ROOM });
    assert_eq!((taken.due.len(), taken.error.is_some()), (1, true));
    assert!(groups.is_empty(), "its window does not come out again");
}

#[test]
fn a_group_that_cannot_be_closed_is_given_up_and_told_as_removed() {
    let rule = Rule::compile("SELECT count(*) AS n FROM '#' GROUP BY device(), TUMBLING(1m)").expect("compiles");
    let mut groups = Groups::default();
    let mut message = Message::new("a", None, BASE_MS, b"{}");
    message.origin.device = Some("d");
    assert_eq!(groups.take(&rule, &message, 0, 0, ROOM).error, None);
    groups.forget_due();
    assert_eq!(groups.len(), 1, "it is not due");
    groups.tick(&rule, BASE_MS + 100_000_000);
    groups.forget_due();
    assert!(groups.is_empty() && groups.bytes() == 0 && groups.close_next(&rule).is_none());
    assert!(groups.changes().values().any(Option::is_none), "what is kept of it goes");
}

#[test]
fn what_does_not_group_says_what_is_missing() {
    let told = |sql: &str| Rule::compile(sql).expect_err(sql).to_string();
    for (sql, message) in [
        (
            "SELECT count(*) AS n FROM 'a'",
            "line 1, column 8: count is made of many messages: it stands in SELECT, with GROUP BY and a window",
        ),
        (
            "SELECT a FROM 'a' WHERE sum(a) > 1",
            "line 1, column 25: sum is made of many messages: it stands in SELECT, with GROUP BY and a window",
        ),
        (
            "SELECT count(*) AS n FROM 'a' GROUP BY device(), CHANGED(a)",
            "line 1, column 8: count is made of many messages: it stands in SELECT, with GROUP BY and a window",
        ),
        (
            "SELECT sum(max(a)) AS n FROM 'a' GROUP BY device(), TUMBLING(1m)",
            "line 1, column 12: max is made of many messages: it stands in SELECT, with GROUP BY and a window",
        ),
        (
            "SELECT a FROM 'a' GROUP BY device(), TUMBLING(1m)",
            "line 1, column 1: SELECT a is of a single message: put it into GROUP BY, or into an aggregate as last(…)",
        ),
        (
            "SELECT topic(2) AS t FROM 'a' GROUP BY device(), TUMBLING(1m)",
            "line 1, column 1: SELECT topic(2) is of a single message: put it into GROUP BY, or into an aggregate as last(…)",
        ),
        (
            "SELECT * FROM 'a' GROUP BY device(), TUMBLING(1m)",
            "line 1, column 1: SELECT * is of a single message: put it into GROUP BY, or into an aggregate as last(…)",
        ),
        (
            "SELECT count(*) AS n FROM 'a' GROUP BY TUMBLING(1m)",
            "line 1, column 31: GROUP BY needs device(): messages of one device only are in one place",
        ),
        (
            "SELECT count(*) AS n FROM 'a' GROUP BY device()",
            "line 1, column 48: expected , and a window or a pattern, found the end",
        ),
        (
            "SELECT count(*) AS n FROM 'a' GROUP BY device(), TUMBLING(1x)",
            "line 1, column 60: expected a span of time as 30s, 5m or 1h, found x",
        ),
        (
            "SELECT count(*) AS n FROM 'a' GROUP BY device(), TUMBLING(32d)",
            "line 1, column 59: span is 2764800000 ms, expected 1 to 2678400000",
        ),
        (
            "SELECT count(*) AS n FROM 'a' GROUP BY device(), HOPPING(5m, 2m)",
            "line 1, column 50: a window of 300000 ms is not 1 to 1000 hops of 120000 ms",
        ),
        (
            "SELECT percentile(a, 101) AS n FROM 'a' GROUP BY device(), TUMBLING(1m)",
            "line 1, column 22: percentile takes a number from 0 to 100, found 101",
        ),
        (
            "SELECT collect(a, 1001) AS n FROM 'a' GROUP BY device(), TUMBLING(1m)",
            "line 1, column 19: collect takes a number from 1 to 1000, found 1001",
        ),
        ("SELECT sum(*) AS n FROM 'a' GROUP BY device(), TUMBLING(1m)", "line 1, column 8: expected a value, found *"),
        (
            "SELECT a FROM 'a' GROUP BY device(), RISING(a, HYSTERESIS 2)",
            "line 1, column 48: HYSTERESIS needs a comparison by <, <=, > or >=",
        ),
        (
            "SELECT a FROM 'a' GROUP BY device(), CHANGED(a) LATENESS 5s",
            "line 1, column 49: expected the end, found LATENESS",
        ),
        (
            "SELECT count(*) AS n FROM 'a' GROUP BY device(), TUMBLING(1m) LATE KEEP",
            "line 1, column 68: expected DROP or EMIT, found KEEP",
        ),
    ] {
        assert_eq!(told(sql), message, "{sql}");
    }
}

#[test]
fn templates_of_a_windows_rows_have_what_was_selected() {
    let rule = Rule::compile("SELECT device().name AS d, max(v) AS hi FROM 'a' GROUP BY device(), TUMBLING(1m)")
        .expect("compiles");
    assert!(rule.template("${d}/${hi + 1}/${upper(d)}").is_ok());
    for (text, expression) in [("${v}", "v"), ("x-${topic(2)}", "topic(2)"), ("${d + clientid()}", "clientid()")] {
        let error = rule.template(text).expect_err(text).to_string();
        assert_eq!(
            error,
            format!("line 1, column 1: {expression} is not selected, and a row of many messages has nothing else")
        );
    }
    let pattern = Rule::compile("SELECT v FROM 'a' GROUP BY device(), CHANGED(v)").expect("compiles");
    assert!(pattern.template("${topic(2)}").is_ok());
}

#[test]
fn names_of_windows_and_aggregates_stay_names_of_fields() {
    let sql = "SELECT count, first, tumbling, window_start FROM 'a' WHERE last > 1 AND group = 2";
    let payload = br#"{"count":1,"first":2,"tumbling":3,"window_start":4,"last":5,"group":2}"#;
    assert_eq!(crate::ask(sql, "a", payload), r#"{"count":1,"first":2,"tumbling":3,"window_start":4}"#);
    let grouped = crate::ask("SELECT count(*) AS n FROM 'a' GROUP BY device(), SESSION(1m)", "a", b"{}");
    assert_eq!(grouped, "error: the rule groups messages: one message alone has no answer");
}

/// One message of a generated stream.
#[derive(Clone, Debug)]
struct Event {
    device: u8,
    time_ms: u64,
    value: i64,
    /// How long it is on its way.
    delay_ms: u64,
}

/// A window of the generated rules.
#[derive(Clone, Copy, Debug)]
enum Window {
    Fixed { size_ms: u64, hop_ms: u64 },
    Sliding { size_ms: u64 },
    Session { gap_ms: u64 },
}

const WINDOWS: [Window; 5] = [
    Window::Fixed { size_ms: 10_000, hop_ms: 10_000 },
    Window::Fixed { size_ms: 20_000, hop_ms: 5_000 },
    Window::Fixed { size_ms: 6_000, hop_ms: 2_000 },
    Window::Sliding { size_ms: 7_000 },
    Window::Session { gap_ms: 4_000 },
];

/// Between two times that messages of generated streams may have.
const STEP_MS: u64 = 500;
/// Longest way of a message.
const DELAY_MS_MAX: u64 = 12_000;

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = (0u8..3, 0u64..120, -50i64..50, 0u64..=24).prop_map(|(device, half_seconds, value, delay)| Event {
        device,
        time_ms: BASE_MS + half_seconds * STEP_MS,
        value,
        delay_ms: delay * STEP_MS,
    });
    // In the order they arrive in.
    prop::collection::vec(event, 0..60).prop_map(|mut events| {
        events.sort_by_key(|event| event.time_ms + event.delay_ms);
        events
    })
}

impl Window {
    fn sql(self, lateness_ms: u64) -> String {
        let window = match self {
            Window::Fixed { size_ms, hop_ms } if size_ms == hop_ms => format!("TUMBLING({size_ms}ms)"),
            Window::Fixed { size_ms, hop_ms } => format!("HOPPING({size_ms}ms, {hop_ms}ms)"),
            Window::Sliding { size_ms } => format!("SLIDING({size_ms}ms)"),
            Window::Session { gap_ms } => format!("SESSION({gap_ms}ms)"),
        };
        format!(
            "SELECT device().name AS d, window_start() AS s, window_end() AS e, count(v) AS n, sum(v) AS sum, \
             min(v) AS lo, max(v) AS hi, first(v) AS f, last(v) AS l, collect(v, 4) AS some, \
             sum(v) * 2 - sum(v) AS again FROM '#' GROUP BY device(), {window} EVENT TIME t LATENESS {lateness_ms}ms"
        )
    }

    /// The ends of the windows that a message of this time is in.
    fn ends(self, time_ms: u64) -> Vec<u64> {
        match self {
            Window::Fixed { size_ms, hop_ms } => {
                (time_ms + 1..=time_ms + size_ms).filter(|end| end % hop_ms == 0).collect()
            }
            // Only where messages may be.
            Window::Sliding { size_ms } => (time_ms + 1..=time_ms + size_ms).step_by(STEP_MS as usize).collect(),
            Window::Session { .. } => Vec::new(),
        }
    }
}

/// The row of these messages, which stand in the order they came in.
fn row(device: u8, start_ms: u64, end_ms: u64, mut events: Vec<&Event>) -> String {
    events.sort_by_key(|event| event.time_ms);
    let values: Vec<i64> = events.iter().map(|event| event.value).collect();
    let sum: i64 = values.iter().sum();
    let some: Vec<String> = values.iter().take(4).map(ToString::to_string).collect();
    format!(
        "{{\"d\":\"d{device}\",\"s\":{start_ms},\"e\":{end_ms},\"n\":{},\"sum\":{sum},\"lo\":{},\"hi\":{},\"f\":{},\"l\":{},\
         \"some\":[{}],\"again\":{sum}}}",
        values.len(),
        values.iter().min().expect("a message"),
        values.iter().max().expect("a message"),
        values[0],
        values[values.len() - 1],
        some.join(","),
    )
}

/// Replays messages in the order they come, looking at all of them each time; rows and how many came late.
fn naive(window: Window, lateness_ms: u64, events: &[Event]) -> (Vec<String>, usize) {
    let (mut rows, mut late) = (Vec::new(), 0);
    let watermark = |before: &[Event]| {
        before.iter().map(|event| event.time_ms.saturating_sub(lateness_ms)).max().unwrap_or_default()
    };
    for device in 0..3 {
        if let Window::Session { gap_ms } = window {
            let mut open: Vec<&Event> = Vec::new();
            for (i, event) in events.iter().enumerate().filter(|(_, event)| event.device == device) {
                let mark = watermark(&events[..i]);
                let over = |session: &[&Event]| session.iter().all(|event| event.time_ms + gap_ms <= mark);
                let (closed, rest): (Vec<_>, Vec<_>) =
                    sessions(&open, gap_ms).into_iter().partition(|session| over(session));
                rows.extend(closed.into_iter().map(|session| session_row(device, gap_ms, session)));
                open = rest.into_iter().flatten().collect();
                let joins = open.iter().any(|other| other.time_ms.abs_diff(event.time_ms) < gap_ms);
                if !joins && event.time_ms + gap_ms <= mark {
                    late += 1;
                } else {
                    open.push(event);
                }
            }
            rows.extend(sessions(&open, gap_ms).into_iter().map(|session| session_row(device, gap_ms, session)));
            continue;
        }
        let mut windows: BTreeMap<u64, Vec<&Event>> = BTreeMap::new();
        let mut own: BTreeSet<u64> = BTreeSet::new();
        for (i, event) in events.iter().enumerate().filter(|(_, event)| event.device == device) {
            let mark = watermark(&events[..i]);
            let in_time: Vec<u64> = window.ends(event.time_ms).into_iter().filter(|end| *end > mark).collect();
            let first = window.ends(event.time_ms)[0];
            late += usize::from(first <= mark);
            own.extend(Some(first).filter(|end| *end > mark));
            for end in in_time {
                windows.entry(end).or_default().push(event);
            }
        }
        for (end, events) in windows {
            match window {
                Window::Fixed { size_ms, .. } => rows.push(row(device, end - size_ms, end, events)),
                Window::Sliding { size_ms } if own.contains(&end) => rows.push(row(device, end - size_ms, end, events)),
                Window::Sliding { .. } | Window::Session { .. } => {}
            }
        }
    }
    rows.sort_unstable();
    (rows, late)
}

/// Messages with less than a gap between them, in the order they came in.
fn sessions<'e>(events: &[&'e Event], gap_ms: u64) -> Vec<Vec<&'e Event>> {
    let mut sorted: Vec<&Event> = events.to_vec();
    sorted.sort_by_key(|event| event.time_ms);
    let mut sessions: Vec<Vec<&Event>> = Vec::new();
    for event in sorted {
        match sessions.last_mut() {
            Some(session) if event.time_ms - session[session.len() - 1].time_ms < gap_ms => session.push(event),
            _ => sessions.push(vec![event]),
        }
    }
    sessions
}

fn session_row(device: u8, gap_ms: u64, session: Vec<&Event>) -> String {
    let (start, last) = (session[0].time_ms, session[session.len() - 1].time_ms);
    row(device, start, last + gap_ms, session)
}

/// The same by the machine, with a restart after `restart_after` messages.
fn machine(window: Window, lateness_ms: u64, events: &[Event], restart_after: usize) -> (Vec<String>, usize) {
    let mut stream = Stream::of(&window.sql(lateness_ms));
    for (i, event) in events.iter().enumerate() {
        // All are received long after they happened, and at once: the clock closes nothing.
        let payload = json!({"t": event.time_ms, "v": event.value});
        stream.message(&format!("d{}", event.device), 200_000, &payload);
        if i == restart_after {
            stream.restart();
        } else if i % 3 == 0 {
            stream.keep();
        }
    }
    stream.tick(10_000_000);
    assert!(stream.groups.is_empty(), "all is closed");
    stream.keep();
    assert!(stream.kept.len() <= 1, "nothing but the watermark is kept: {:?}", stream.kept.keys());
    let late = stream.late;
    (stream.sorted(), late)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn within_its_lateness_a_shuffled_stream_gives_the_rows_of_a_sorted_one(
        events in events(), window in prop::sample::select(WINDOWS.to_vec()), restart_after in 0usize..60
    ) {
        let mut sorted = events.clone();
        sorted.sort_by_key(|event| event.time_ms);
        let (expected, _) = naive(window, DELAY_MS_MAX, &sorted);
        let (rows, late) = machine(window, DELAY_MS_MAX, &events, restart_after);
        prop_assert_eq!(late, 0);
        prop_assert_eq!(rows, expected);
    }

    #[test]
    fn whatever_comes_late_a_naive_replay_agrees(
        events in events(), window in prop::sample::select(WINDOWS.to_vec()), lateness in 0u64..12, restart_after in 0usize..60
    ) {
        let expected = naive(window, lateness * 1_000, &events);
        prop_assert_eq!(machine(window, lateness * 1_000, &events, restart_after), expected);
    }

    #[test]
    fn grouped_statements_print_and_parse_back(
        window in prop::sample::select(vec![
            "TUMBLING(1m)", "HOPPING(5m, 1m)", "SLIDING(90s)", "SESSION(250ms)", "ABSENT(1d)", "CHANGED(a + 1)",
            "RISING(a > 30, HYSTERESIS 2)", "FALLING(a.b = 'x')",
        ]),
        times in prop::sample::select(vec!["", " EVENT TIME a.t * 1000 LATENESS 3s LATE EMIT", " LATENESS 0s", " LATE DROP"])
    ) {
        let pattern = window.contains('a') && !window.contains("AB");
        let select = if pattern { "a, topic(2) AS b" } else { "percentile(a, 99.5) + count(*) AS p, collect(a.b, 7) AS c, k, [window_late()] AS l" };
        let sql = format!("SELECT {select} FROM 'x' WHERE a > 1 GROUP BY k, device(), {window}{}", if pattern { "" } else { times });
        let statement = drover_rule_sql::parse(&sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
        prop_assert_eq!(drover_rule_sql::parse(&statement.to_string()), Ok(statement));
    }
}
