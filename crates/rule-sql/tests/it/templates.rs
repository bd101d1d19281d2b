//! `${…}` in the fields of actions.

use drover_rule_sql::{Message, Outcome, Rule, Template};

fn render(template: &str, sql: &str, payload: &str) -> String {
    let rule = Rule::compile(sql).expect("sql");
    let message = Message::new("home/kitchen", Some("c"), 5, payload.as_bytes());
    let Outcome::Row(row) = rule.evaluate(&message) else { panic!("{sql} gives no row") };
    match Template::compile(template).expect(template).render(&message, &row) {
        Ok(text) => text,
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn names_are_looked_up_in_the_row_first_and_then_in_the_payload() {
    let sql = "SELECT topic(2) AS room, n + 1 AS n, missing AS m FROM '#'";
    for (template, expected) in [
        ("plain", "plain"),
        ("", ""),
        ("${room}", "kitchen"),
        ("${n}", "2"),
        ("${o.k}", "v"),
        ("${m}", "in the payload"),
        ("a/${room}/${n * 10}/$b}", "a/kitchen/20/$b}"),
        ("${topic(1)}-${'}'}", "home-}"),
        ("${nil}", "error: ${nil} is undefined for this message"),
        ("${absent.x}", "error: ${absent.x} is undefined for this message"),
    ] {
        assert_eq!(render(template, sql, r#"{"n": 1, "o": {"k": "v"}, "nil": null, "m": "in the payload"}"#), expected);
    }
}

#[test]
fn a_template_without_fields_needs_no_json() {
    assert_eq!(render("${topic(2)}", "SELECT * FROM '#'", "not json"), "kitchen");
    let error = "error: payload is not JSON: line 1, column 1: expected a JSON value";
    assert_eq!(render("${a}", "SELECT * FROM '#'", "not json"), error);
}

#[test]
fn errors_name_the_place_within_the_template() {
    for (template, message) in [
        ("a${", "line 1, column 4: expected an expression, found the end"),
        ("${a", "line 1, column 4: expected }, found the end"),
        ("${a b}", "line 1, column 5: expected }, found b"),
        ("x${nope()}", "line 1, column 4: unknown function nope"),
    ] {
        assert_eq!(Template::compile(template).expect_err(template).to_string(), message);
    }
    let error = Template::compile("${").expect_err("open").in_field("spec.actions[0].kafka.key");
    assert_eq!(error.field.as_deref(), Some("spec.actions[0].kafka.key"));
}

#[test]
fn a_template_that_is_one_expression_keeps_its_type_where_a_value_is_wanted() {
    let sql = "SELECT n + 1 AS n FROM '#'";
    let rule = Rule::compile(sql).expect("sql");
    let message = Message::new("t", Some("c"), 5, br#"{"n": 1, "o": {"k": [true]}, "nil": null}"#);
    let Outcome::Row(row) = rule.evaluate(&message) else { panic!("{sql} gives no row") };
    for (template, expected) in [
        ("${n}", "2"),
        ("${o}", r#"{"k":[true]}"#),
        ("${nil}", "null"),
        ("${n} °C", r#""2 °C""#),
        ("on", r#""on""#),
        ("", r#""""#),
    ] {
        let template = Template::compile(template).expect(template);
        assert_eq!(template.render_value(&message, &row).expect("a value"), expected);
    }
    let undefined = Template::compile("${absent}").expect("a template").render_value(&message, &row);
    assert_eq!(undefined.expect_err("undefined").to_string(), "${absent} is undefined for this message");
}
