//! A page of Markdown in the making, with its drawings, and what could not be put on it.

use super::chart::bars;

/// The page in the making.
#[derive(Default)]
pub struct Page {
    pub text: String,
    /// Drawings by their file names.
    pub charts: Vec<(String, String)>,
    /// What was not measured, and why.
    pub missing: Vec<String>,
}

impl Page {
    pub fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        self.line(&format!("\n| {} |", head.join(" | ")));
        self.line(&format!("|{}", "---|".repeat(head.len())));
        for row in rows {
            self.line(&format!("| {} |", row.join(" | ")));
        }
    }

    pub fn chart(&mut self, file: &str, title: &str, unit: &str, values: &[(String, f64)]) {
        if let Some(svg) = bars(title, unit, values) {
            self.line(&format!("\n![{title}](benchmarks/{file}.svg)"));
            self.charts.push((format!("{file}.svg"), svg));
        }
    }

    /// The value; or nothing, and the page says why.
    pub fn or_missing<T>(&mut self, what: &str, measured: anyhow::Result<T>) -> Option<T> {
        match measured {
            Ok(value) => {
                println!("measured: {what}");
                Some(value)
            }
            Err(error) => {
                println!("NOT MEASURED: {what}: {error:#}");
                self.missing.push(format!("{what}: {error:#}"));
                None
            }
        }
    }

    /// The page, and what is not on it; `left` chapters are not measured yet.
    pub fn with_missing(&self, left: usize) -> String {
        let mut text = format!("{}\n## Not measured here\n\n", self.text);
        for missing in &self.missing {
            text.push_str(&format!("- {}\n", missing.replace('\n', " ")));
        }
        if left > 0 {
            text.push_str(&format!("- the last {left} chapters: this run has not come to its end\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_head_and_what_fails_is_named_with_its_reason() {
        let mut page = Page::default();
        page.table(&["A", "B"], &[vec!["1".to_owned(), "2".to_owned()]]);
        assert_eq!(page.text, "\n| A | B |\n|---|---|\n| 1 | 2 |\n");
        assert_eq!(page.or_missing("x", anyhow::Ok(3)), Some(3));
        assert_eq!(page.or_missing::<u32>("y", Err(anyhow::anyhow!("no room"))), None);
        assert_eq!(page.missing, ["y: no room"]);
        assert!(page.with_missing(0).ends_with("\n## Not measured here\n\n- y: no room\n"));
        assert!(page.with_missing(2).ends_with("no room\n- the last 2 chapters: this run has not come to its end\n"));
        page.chart("f", "T", "µs", &[("a".to_owned(), 1.0)]);
        assert!(page.text.ends_with("![T](benchmarks/f.svg)\n") && page.charts[0].0 == "f.svg");
    }
}
