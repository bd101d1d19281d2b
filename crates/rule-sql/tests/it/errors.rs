//! A text that is no rule: the answer names the place, what was expected and what was found.

use drover_rule_sql::{EXPRESSION_DEPTH_MAX, Problem, Rule, SqlError};
use drover_types::limits::SQL_BYTES_MAX;
use drover_types::{ApiError, ErrorCode};

fn refused(sql: &str) -> SqlError {
    match Rule::compile(sql) {
        Ok(rule) => panic!("{sql} was taken for {}", rule.statement()),
        Err(error) => error,
    }
}

#[test]
fn errors_name_the_place_and_what_was_expected() {
    for (sql, message) in [
        ("", "line 1, column 1: expected SELECT, found the end"),
        ("SELECT FROM 'a'", "line 1, column 8: expected an expression, found FROM"),
        ("SELECT a,\n  FROM 'a'", "line 2, column 3: expected an expression, found FROM"),
        ("SELECT a", "line 1, column 9: expected FROM, found the end"),
        ("SELECT a b FROM 'x'", "line 1, column 10: expected FROM, found b"),
        ("SELECT a FROM x", "line 1, column 15: expected a topic filter in quotes, found x"),
        ("SELECT a FROM 'x' WHERE", "line 1, column 24: expected an expression, found the end"),
        ("SELECT a FROM 'x' LIMIT 5", "line 1, column 19: expected the end, found LIMIT"),
        ("SELECT a FROM 'x' WHERE a >", "line 1, column 28: expected an expression, found the end"),
        ("SELECT a FROM 'x' WHERE (a = 1", "line 1, column 31: expected ), found the end"),
        ("SELECT a FROM 'x' WHERE a = 'open", "line 1, column 29: text has no closing '"),
        ("SELECT a FROM 'x' WHERE é = 1 ; ", "line 1, column 31: ';' has no meaning here"),
        ("SELECT a.1 FROM 'x'", "line 1, column 10: expected a field name, found 1"),
        ("SELECT a AS from FROM 'x'", "line 1, column 13: expected a name, found from"),
        ("SELECT a + 1 FROM 'x'", "line 1, column 8: this expression needs a name: add AS name"),
        ("SELECT topic() FROM 'x'", "line 1, column 8: this expression needs a name: add AS name"),
        ("SELECT a, lenght(b) AS l FROM 'x'", "line 1, column 11: unknown function lenght"),
        ("SELECT topic(1, 2) AS t FROM 'x'", "line 1, column 8: function topic takes 0 to 1 arguments, found 2"),
        ("SELECT get(a) AS t FROM 'x'", "line 1, column 8: function get takes 2 to 2 arguments, found 1"),
        ("SELECT 1e9999 AS t FROM 'x'", "line 1, column 8: number 1e9999 is out of range"),
        ("SELECT a FROM 'x/#/y'", "line 1, column 15: FROM \"x/#/y\": wildcard '#' is not the last level"),
        ("SELECT a FROM '', 'x'", "line 1, column 15: FROM '' stands alone: it means messages by Basic Ingest only"),
        ("SELECT a FROM 'x', ''", "line 1, column 20: FROM \"\": topic is empty"),
        ("SELECT a FROM '$share/g/x'", "line 1, column 15: FROM \"$share/g/x\": a rule cannot share a subscription"),
        ("SELECT a FROM 'x' WHERE 'x' 'y'", "line 1, column 29: expected the end, found \"y\""),
    ] {
        assert_eq!(refused(sql).to_string(), message, "{sql}");
    }
}

#[test]
fn the_api_names_the_field_and_the_limit() {
    let error = ApiError::from(refused("SELECT FROM 'a'"));
    assert_eq!((error.code, error.field.as_deref()), (ErrorCode::InvalidArgument, Some("spec.sql")));
    assert_eq!(error.message, "line 1, column 8: expected an expression, found FROM");
    let error = ApiError::from(refused(&" ".repeat(SQL_BYTES_MAX + 1)));
    assert_eq!((error.limit.as_deref(), error.value.as_deref()), (Some("65536"), Some("65537")));
}

#[test]
fn a_text_is_accepted_at_its_longest() {
    let sql = "SELECT a FROM 'x' WHERE a = 1";
    assert!(Rule::compile(&format!("{sql}{}", " ".repeat(SQL_BYTES_MAX - sql.len()))).is_ok());
}

#[test]
fn nesting_is_accepted_at_the_limit_and_refused_above_in_every_form() {
    type Form = (&'static str, fn(usize) -> String);
    let forms: [Form; 5] = [
        ("parentheses", |n| format!("{}1{}", "(".repeat(n - 1), ")".repeat(n - 1))),
        ("prefixes", |n| format!("{}1", "- ".repeat(n - 1))),
        ("members", |n| format!("a{}", ".a".repeat(n - 1))),
        ("operators", |n| format!("1{}", "+1".repeat(n - 1))),
        ("calls", |n| format!("{}1{}", "topic(".repeat(n - 1), ")".repeat(n - 1))),
    ];
    for (form, expression) in forms {
        let sql = |n| format!("SELECT {} AS x FROM 'x'", expression(n));
        assert!(Rule::compile(&sql(EXPRESSION_DEPTH_MAX)).is_ok(), "{form}");
        assert_eq!(refused(&sql(EXPRESSION_DEPTH_MAX + 1)).problem, Problem::TooDeep, "{form}");
        assert_eq!(refused(&sql(9_000)).problem, Problem::TooDeep, "{form}");
    }
}
