//! `drover audit`: who changed what and when.

use std::io::{self, Write};

use clap::Args;
use serde_json::{Value, json};

use super::connection::Connection;
use super::output::Column;

const COLUMNS: [Column; 6] = [
    ("TIME", "/time"),
    ("ACTOR", "/actor"),
    ("ACTION", "/action"),
    ("KIND", "/kind"),
    ("NAME", "/name"),
    ("CHANGED", "/changed"),
];
/// Most entries that are printed, and that one page has.
const ENTRIES_MAX: usize = 10_000;
const PAGE_ITEMS_MAX: usize = 1_000;

/// Who changed what and when, newest first.
#[derive(Debug, Args)]
pub struct Audit {
    #[command(flatten)]
    connection: Connection,
    /// Only of this kind: device, credential, policy, rule, api_token, function or certificate_authority
    #[arg(long)]
    kind: Option<String>,
    /// Only of the object of this name; of a device, with its credentials
    #[arg(long)]
    name: Option<String>,
    /// Only by: administrator, "token NAME", operator, registration or unknown
    #[arg(long)]
    actor: Option<String>,
    /// Only since so long ago, 1h or 7d for example; without, all of the last 90 days
    #[arg(long, value_name = "DURATION", value_parser = ago)]
    since: Option<String>,
    /// How many at most, the newest
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = entries)]
    limit: usize,
}

/// A duration with its unit, as a time before now.
fn ago(text: &str) -> Result<String, String> {
    let duration: drover_host::Duration = text.parse().map_err(|e: drover_host::InvalidQuantity| e.to_string())?;
    Ok(format!("-{}ms", duration.as_millis()))
}

fn entries(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit) if (1..=ENTRIES_MAX).contains(&limit) => Ok(limit),
        Ok(_) | Err(_) => Err(format!("is no number from 1 to {ENTRIES_MAX}")),
    }
}

impl Audit {
    pub fn run(self, out: &mut dyn Write) -> anyhow::Result<()> {
        let client = self.connection.open()?;
        let filters = [("kind", &self.kind), ("name", &self.name), ("actor", &self.actor), ("from", &self.since)];
        let filters: Vec<(&str, &str)> =
            filters.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect();
        let (mut found, mut token): (Vec<Value>, _) = (Vec::new(), String::new());
        let more = loop {
            let size = (self.limit - found.len()).min(PAGE_ITEMS_MAX).to_string();
            let mut query = filters.clone();
            query.extend([("pageSize", size.as_str()), ("pageToken", token.as_str())]);
            let mut page = client.query(&["audit"], &query)?;
            found.extend(page["items"].as_array_mut().map(std::mem::take).unwrap_or_default());
            match page["nextPageToken"].as_str() {
                None => break false,
                Some(_) if found.len() >= self.limit => break true,
                Some(next) => token = next.to_owned(),
            }
        };
        if more {
            writeln!(io::stderr(), "there are older entries: --limit shows more of them")?;
        }
        self.connection.output.list(out, &json!({"items": found}), &COLUMNS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_ago_has_a_unit_and_a_limit_its_bounds() {
        assert_eq!((ago("1h").as_deref(), ago("250ms").as_deref()), (Ok("-3600000ms"), Ok("-250ms")));
        assert_eq!((entries("1"), entries("10000")), (Ok(1), Ok(ENTRIES_MAX)));
        for wrong in ["", "0", "10001", "-1", "many"] {
            assert!(ago(wrong).is_err() && entries(wrong).is_err(), "{wrong}");
        }
    }
}
