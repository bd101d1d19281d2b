//! `drover function test`: examples against what functions answer, called by this executable.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use drover_functions::{CallError, Pool, Verdict, examine};
use drover_gateway::declared::{Declared, Kind};
use drover_types::object::{FunctionExample, FunctionSpec};
use serde_json::{Value, json};

use super::super::connection::Connection;
use super::super::manifest;
use super::super::output::plain;

/// Which functions to try.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct FunctionTest {
    /// A function of the platform
    name: Option<String>,
    /// YAML or JSON, several functions in one; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// A function, and what became of its examples.
type Tried<'f> = (&'f Declared<FunctionSpec>, Result<Vec<Verdict>, CallError>);

impl FunctionTest {
    /// Prints a verdict on each example; an error if one is not right.
    pub fn run(&self, to: &Connection, out: &mut dyn Write) -> anyhow::Result<()> {
        let functions = match (&self.file, &self.name) {
            (Some(file), _) => manifest::read::<FunctionSpec>(file)?,
            (None, Some(name)) => {
                vec![Declared::<FunctionSpec>::read(to.open()?.get(&[FunctionSpec::COLLECTION, name])?)?]
            }
            (None, None) => Vec::new(),
        };
        let pool = Pool::in_processes(std::env::current_exe()?);
        let mut tried: Vec<Tried<'_>> = Vec::new();
        for function in &functions {
            function.spec.check()?;
            tried.push((function, examine(&pool, &function.spec).map(Iterator::collect)));
        }
        let items: Vec<Value> = tried.iter().map(|(function, outcome)| told(function, outcome)).collect();
        to.output.object(out, &json!({ "items": items }), |out| items.iter().try_for_each(|item| tell(item, out)))?;
        let wrong = |outcome: &Result<Vec<Verdict>, CallError>| match outcome {
            Ok(verdicts) => verdicts.iter().filter(|verdict| **verdict != Verdict::Right).count(),
            Err(_) => 1,
        };
        let wrong: usize = tried.iter().map(|(_, outcome)| wrong(outcome)).sum();
        anyhow::ensure!(wrong == 0, "{wrong} not as expected");
        Ok(())
    }
}

fn told(function: &Declared<FunctionSpec>, outcome: &Result<Vec<Verdict>, CallError>) -> Value {
    let name = &function.metadata.name;
    match outcome {
        Ok(verdicts) => {
            let examples = function.spec.examples.iter().zip(verdicts);
            let examples: Vec<Value> = examples.map(|(example, verdict)| of_example(example, verdict)).collect();
            json!({"function": name, "examples": examples})
        }
        Err(error) => json!({"function": name, "error": error.to_string()}),
    }
}

fn of_example(example: &FunctionExample, verdict: &Verdict) -> Value {
    let mut told = json!({"input": example.input, "expected": example.output, "right": *verdict == Verdict::Right});
    if let Some(description) = &example.description {
        told["description"] = description.as_str().into();
    }
    match verdict {
        Verdict::Right | Verdict::Wrong(None) => {}
        Verdict::Wrong(Some(output)) => told["output"] = output.clone(),
        Verdict::Failed(error) => told["error"] = error.to_string().into(),
    }
    told
}

/// A verdict for people.
fn tell(item: &Value, out: &mut dyn Write) -> io::Result<()> {
    let name = plain(item["function"].as_str().unwrap_or_default());
    if let Some(error) = item["error"].as_str() {
        return writeln!(out, "{name}: {}", plain(error));
    }
    let examples = item["examples"].as_array().map_or(&[][..], Vec::as_slice);
    if examples.is_empty() {
        return writeln!(out, "{name}: runs; it has no examples");
    }
    for (example, number) in examples.iter().zip(1..) {
        let description = example["description"].as_str().map(|text| format!(" ({})", plain(text)));
        write!(out, "{name}: example {number}{}: ", description.unwrap_or_default())?;
        match (example["right"].as_bool(), example["error"].as_str(), example.get("output")) {
            (Some(true), _, _) => writeln!(out, "ok")?,
            (_, Some(error), _) => writeln!(out, "{}", plain(error))?,
            (_, None, Some(output)) => writeln!(out, "answered {output}, expected {}", example["expected"])?,
            (_, None, None) => writeln!(out, "answered nothing, expected {}", example["expected"])?,
        }
    }
    Ok(())
}
