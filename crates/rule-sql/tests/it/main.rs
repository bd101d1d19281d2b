//! The rule language through its public interface.

mod bad_input;
mod cases;
mod conformance;
mod errors;
mod functions;
mod laws;
mod templates;
mod windows;

use drover_rule_sql::{Message, Outcome, Rule};

/// What `sql` says to a message, as text: the row, `no match`, or `error: …`.
fn ask(sql: &str, topic: &str, payload: &[u8]) -> String {
    let rule = Rule::compile(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let message = Message::new(topic, Some("client-7"), 1_700_000_000_123, payload);
    match rule.evaluate(&message) {
        Outcome::Row(row) => String::from_utf8_lossy(&row.to_bytes()).into_owned(),
        Outcome::NoMatch => "no match".to_owned(),
        Outcome::Error(error) => format!("error: {error}"),
    }
}
