//! Functions that the language does not have, and what they take: `bytes`.

use std::cell::RefCell;

use drover_rule_sql::{
    Groups, LookupError, Message, Origin, Outcome, Room, Rule, USER_CALLS_MAX, UserFunctions, is_built_in,
};

use crate::ask;

/// Notes its calls; answers by the function's name.
#[derive(Default)]
struct Calls(RefCell<Vec<String>>);

impl UserFunctions for Calls {
    fn call(&self, function: &str, arguments: &[String]) -> Result<Option<String>, LookupError> {
        self.0.borrow_mut().push(format!("{function}({})", arguments.join(",")));
        match function {
            "nothing" => Ok(None),
            "damaged" => Ok(Some("{".to_owned())),
            "fails" => Err(LookupError { reason: "f threw: Error: no".to_owned() }),
            _ => Ok(Some(arguments.first().cloned().unwrap_or("null".to_owned()))),
        }
    }
}

fn called(sql: &str, payload: &str) -> (String, Vec<String>) {
    let rule = Rule::compile_open(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let calls = Calls::default();
    let mut message = Message::new("a/b", None, 0, payload.as_bytes());
    message.origin = Origin { functions: Some(&calls), ..Origin::default() };
    let answer = match rule.evaluate(&message) {
        Outcome::Row(row) => row.to_string(),
        Outcome::NoMatch => "no match".to_owned(),
        Outcome::Error(error) => format!("error: {error}"),
    };
    drop(message);
    (answer, calls.0.into_inner())
}

#[test]
fn a_statement_says_which_functions_it_needs_and_where() {
    let sql = "SELECT My_Fn(a) AS x, my_fn(b) AS y FROM 'a' WHERE other(abs(c)) = 1";
    let rule = Rule::compile_open(sql).expect("compiles");
    let needed: Vec<_> = rule.user_functions().iter().map(|f| (f.name.as_str(), f.unknown.to_string())).collect();
    let expected =
        [("my-fn", "line 1, column 8: unknown function My_Fn"), ("other", "line 1, column 52: unknown function other")];
    assert_eq!(needed, expected.map(|(name, unknown)| (name, unknown.to_owned())));
    assert_eq!(Rule::compile(sql).expect_err("strict").to_string(), expected[0].1);
    let printed = rule.statement().to_string();
    assert_eq!(Rule::compile_open(&printed).expect("prints as it reads").statement(), rule.statement());
    assert!(is_built_in("ABS") && is_built_in("cast") && is_built_in("aws_lambda") && !is_built_in("my_fn"));
}

#[test]
fn arguments_and_results_are_json() {
    let (row, calls) = called("SELECT VALUE echo(*, o.k, [1, 'x']) FROM '#'", r#"{"o": {"k": 1.5}, "u": null}"#);
    assert_eq!(calls, [r#"echo({"o":{"k":1.5},"u":null},1.5,[1,"x"])"#]);
    assert_eq!(row, r#"{"o":{"k":1.5},"u":null}"#);
    assert_eq!(called("SELECT echo(a).b AS c FROM '#' WHERE echo(a).b > 1", r#"{"a": {"b": 2}}"#).0, r#"{"c":2}"#);
    assert_eq!(called("SELECT echo(a) AS c FROM '#' WHERE echo(a) > 1", r#"{"a": 1}"#).0, "no match");
}

#[test]
fn what_has_no_result_is_undefined_and_what_fails_is_an_error_of_the_row() {
    assert_eq!(called("SELECT nothing(1) AS a, 2 AS b FROM '#'", "{}").0, r#"{"b":2}"#);
    let (row, calls) = called("SELECT echo(missing) AS a, 2 AS b FROM '#'", "{}");
    assert_eq!((row.as_str(), calls.len()), (r#"{"b":2}"#, 0));
    assert_eq!(called("SELECT fails(1) AS a FROM '#'", "{}").0, "error: fails: f threw: Error: no");
    assert!(called("SELECT damaged(1) AS a FROM '#'", "{}").0.starts_with("error: damaged: result: "));
    assert_eq!(called("SELECT get_or_default(fails(1), 7) AS a FROM '#'", "{}").0, r#"{"a":7}"#);
    let rule = Rule::compile_open("SELECT echo(1) AS a FROM '#'").expect("compiles");
    let nobody = Message::new("a", None, 0, b"{}");
    assert!(matches!(rule.evaluate(&nobody), Outcome::Error(e) if e.to_string() == "echo: cannot be called here"));
}

#[test]
fn calls_of_one_evaluation_are_bounded() {
    let list = |n: usize| format!("{{\"l\": {:?}}}", vec![1; n]);
    let sql = "SELECT (SELECT VALUE echo(e) FROM l AS e) AS all FROM '#'";
    assert_eq!(called(sql, &list(USER_CALLS_MAX)).1.len(), USER_CALLS_MAX);
    let (row, calls) = called(sql, &list(50_000));
    assert_eq!(row, format!("error: the rule calls functions more than {USER_CALLS_MAX} times for this message"));
    assert_eq!(calls.len(), USER_CALLS_MAX);
}

#[test]
fn rules_over_many_messages_call_functions_for_each_message_and_for_each_row() {
    let sql = "SELECT Kind(k) AS k, size(sum(weight(v))) AS s FROM '#' WHERE wanted(v) > 0 \
               GROUP BY device(), kind(k), TUMBLING(1s) LATENESS 0s";
    let rule = Rule::compile_open(sql).expect("compiles");
    let needed: Vec<&str> = rule.user_functions().iter().map(|function| function.name.as_str()).collect();
    assert_eq!(needed, ["kind", "size", "weight", "wanted"]);
    let printed = Rule::compile_open(&rule.statement().to_string()).expect("prints as it reads");
    assert_eq!((printed.statement(), printed.digest()), (rule.statement(), rule.digest()));
    let (calls, mut groups) = (Calls::default(), Groups::default());
    let room = Room { groups: 9, bytes: 1 << 20, groups_max: 9, bytes_max: 1 << 20 };
    let functions: Option<&dyn UserFunctions> = Some(&calls);
    for (order, payload) in (0..).zip([r#"{"k": "a", "v": 2}"#, r#"{"k": "a", "v": 3}"#, r#"{"k": "a", "v": 0}"#]) {
        let mut message = Message::new("t", None, order, payload.as_bytes());
        message.origin = Origin { device: Some("d"), functions, ..Origin::default() };
        assert_eq!(groups.take(&rule, &message, order, 0, room).error, None);
    }
    groups.tick(&rule, 1_000_000);
    let due = groups.close_next(&rule).expect("it is over").expect("readable");
    let plan = rule.plan().expect("grouped");
    let payload = plan.payload(&due[0].group, &due[0].closed).expect("a payload");
    let mut window = Message::new("window", None, due[0].closed.end_ms, payload.as_bytes());
    let row = |message: &Message<'_>| match rule.grouped_row(message) {
        Outcome::Row(row) => row.to_string(),
        Outcome::NoMatch => "no match".to_owned(),
        Outcome::Error(error) => error.to_string(),
    };
    assert_eq!(row(&window), "size: cannot be called here");
    window.origin = Origin { functions, ..Origin::default() };
    assert_eq!(row(&window), r#"{"k":"a","s":5}"#);
    let of_messages = "wanted(2) kind(\"a\") weight(2) wanted(3) kind(\"a\") weight(3) wanted(0)";
    assert_eq!(calls.0.borrow().join(" "), format!("{of_messages} size(5)"));
    for name in ["count", "Percentile", "window_end", "tumbling", "CHANGED"] {
        assert!(is_built_in(name), "{name}");
    }
    let alone = Rule::compile_open("SELECT f(v) AS x FROM '#' GROUP BY device(), TUMBLING(1s)").expect_err("ungrouped");
    assert!(alone.to_string().contains("SELECT v is of a single message"), "{alone}");
}

#[test]
fn bytes_are_numbers() {
    assert_eq!(ask("SELECT VALUE bytes(*) FROM '#'", "a", &[0, 255, 128]), "[0,255,128]");
    assert_eq!(
        ask("SELECT bytes(p, 'base64') AS b, bytes(t) AS t FROM '#'", "a", br#"{"p": "CMpa", "t": "\u00e9"}"#),
        r#"{"b":[8,202,90],"t":[195,169]}"#
    );
    assert_eq!(ask("SELECT bytes(p, 'base64') AS b, bytes(p, 'hex') AS h FROM '#'", "a", br#"{"p": "?"}"#), "{}");
}
