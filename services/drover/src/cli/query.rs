//! `drover query`: SQL over what the platform keeps.

use std::io::{self, Write};

use clap::Args;
use serde_json::{Value, json};

use super::connection::Connection;
use super::output::{aligned, plain};

/// SQL over messages (table telemetry), their values (points) and the registry (devices).
#[derive(Debug, Args)]
pub struct Query {
    #[command(flatten)]
    connection: Connection,
    /// One statement, for example "SELECT device, avg(double) FROM points WHERE field = 'temperature' GROUP BY device"
    #[arg(value_name = "SQL")]
    sql: String,
}

impl Query {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = self.connection.open()?;
        let found = client.post(&["query"], &json!({"sql": self.sql}))?;
        if found["truncated"] == true {
            writeln!(io::stderr(), "there are more rows: LIMIT, or a narrower question, brings fewer")?;
        }
        self.connection.output.object(out, &found, |out| out.write_all(table(&found).as_bytes()))
    }
}

/// The rows under the names of their columns.
fn table(found: &Value) -> String {
    let names = found["columns"].as_array().into_iter().flatten().filter_map(|column| column["name"].as_str());
    let names: Vec<&str> = names.collect();
    let rows = found["rows"].as_array().into_iter().flatten();
    let rows = rows.map(|row| names.iter().map(|name| row.get(*name)).collect());
    aligned(names.iter().map(|name| plain(name)).collect(), rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_come_in_the_order_of_the_question_and_names_may_be_anything() {
        let columns = json!([{"name": "n"}, {"name": "a/b ~"}, {"name": "none"}]);
        let found =
            json!({"columns": columns, "rows": [{"a/b ~": "x", "n": 1, "none": null}, {"n": 22, "a/b ~": "y"}]});
        assert_eq!(table(&found), "n   a/b ~  none\n1   x      -\n22  y      -\n");
        assert_eq!(table(&json!({"columns": [{"name": "n"}], "rows": []})), "n\n");
    }
}
