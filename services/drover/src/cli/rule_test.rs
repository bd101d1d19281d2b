//! `drover rule test`: what rules of a file would do with one message, and why they would not. Needs no platform, unless
//! messages of its log are asked for.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use drover_gateway::declared::Declared;
use drover_host::SystemClock;
use drover_rule_sql::{CompiledRule, Context, Message, Origin, Outcome, Row, Rule, Template, Unmet, rule_named_by};
use drover_types::object::{Action, RuleSpec};
use drover_types::{ApiError, Clock, TopicName};
use serde_json::{Value, json};

use super::connection::Connection;
use super::function::LocalFunctions;
use super::output::plain;
use super::{manifest, rule_log};

/// A message to try rules with, or the log to look for some in.
#[derive(Debug, Args)]
pub struct RuleTest {
    /// YAML or JSON, several rules in one; `-` is standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Functions that the rules call, in a file like theirs; may be given several times
    #[arg(long = "function", value_name = "FILE")]
    functions: Vec<PathBuf>,
    /// Topic of the message
    #[arg(long, required_unless_present = "since")]
    topic: Option<String>,
    /// Payload of the message, as text
    #[arg(long, default_value = "")]
    payload: String,
    /// Client that sends it, and the device where rules ask for one
    #[arg(long, default_value = "test")]
    client: String,
    /// When it comes, milliseconds since the Unix epoch; now, unless given
    #[arg(long, value_name = "MS")]
    time: Option<u64>,
    /// What surrounds the message and is looked up for it: {"device": …, "shadows": …, "mqtt5": …, "userProperties": …}
    #[arg(long, value_name = "JSON")]
    context: Option<String>,
    /// Instead of one message: those that the platform has received since so long ago, 1h for example
    #[arg(long, value_name = "SPAN", conflicts_with_all = ["topic", "payload", "client", "time", "context"])]
    since: Option<String>,
    /// Most of them that are looked at
    #[arg(long, default_value_t = 100, value_name = "MESSAGES")]
    limit: usize,
}

impl RuleTest {
    /// Prints a verdict on each rule of the file; or, with `--since`, on each message of the log, and on each window.
    pub fn run(&self, connection: &Connection, out: &mut dyn Write) -> anyhow::Result<()> {
        let rules = manifest::read::<RuleSpec>(&self.file)?;
        let functions = LocalFunctions::read(&self.functions)?;
        let rules = rules.iter().map(|rule| Tested::compile(rule, &functions)).collect::<Result<Vec<_>, _>>()?;
        let verdicts = match (&self.since, &self.topic) {
            (Some(since), _) => rule_log::verdicts(connection, &rules, since, self.limit)?,
            (None, topic) => self.verdicts(&rules, topic.as_deref().unwrap_or_default())?,
        };
        connection.output.object(out, &json!({ "items": &verdicts }), |out| {
            verdicts.iter().try_for_each(|verdict| tell(verdict, out))
        })
    }

    fn verdicts(&self, rules: &[Tested<'_>], topic: &str) -> anyhow::Result<Vec<Value>> {
        TopicName::check(topic).map_err(|error| anyhow::anyhow!("--topic {topic:?}: {error}"))?;
        let time_ms = self.time.unwrap_or_else(|| SystemClock.now_ms());
        let context = self.context.as_deref().map(serde_json::from_str::<Context>).transpose().context("--context")?;
        let verdict = |tested: &Tested<'_>| {
            let mut message = Message::new(topic, Some(&self.client), time_ms, self.payload.as_bytes());
            let (id, device) = (u128::from(time_ms).to_be_bytes(), Some(self.client.as_str()));
            message.origin = Origin { id, device, functions: Some(tested.functions), ..Origin::default() };
            if let Some(context) = &context {
                context.describe(&mut message);
            }
            tested.verdict(&message, &self.client)
        };
        Ok(rules.iter().map(verdict).collect())
    }
}

/// A rule of the file.
pub struct Tested<'f> {
    name: String,
    pub rule: CompiledRule,
    actions: Vec<Planned>,
    /// Those it may call.
    pub functions: &'f LocalFunctions,
}

impl<'f> Tested<'f> {
    /// What is wrong with the rule is an error about its field.
    pub fn compile(declared: &Declared<RuleSpec>, functions: &'f LocalFunctions) -> Result<Self, ApiError> {
        let (name, spec) = (declared.metadata.name.clone(), &declared.spec);
        spec.check()?;
        let rule = Rule::compile_open(&spec.sql)?;
        if let Some(missing) = rule.user_functions().iter().find(|function| !functions.has(&function.name)) {
            return Err(missing.unknown.clone().into());
        }
        let actions = spec.actions.iter().enumerate();
        let actions = actions.map(|(i, action)| Planned::compile(&rule, action, &format!("spec.actions[{i}]")));
        Ok(Self { name, actions: actions.collect::<Result<_, _>>()?, rule, functions })
    }

    /// Whether the platform would ask it about the message: one by Basic Ingest is for the rule that its topic names alone.
    pub fn listens_to(&self, message: &Message<'_>) -> bool {
        rule_named_by(message.topic).is_none_or(|name| name == self.name) && self.rule.listens_to(message)
    }

    /// What the rule says to one message by itself.
    pub fn verdict(&self, message: &Message<'_>, device: &str) -> Value {
        if !self.listens_to(message) {
            let from: Vec<&str> = self.rule.filters().iter().map(|filter| filter.as_str()).collect();
            return json!({"rule": self.name, "outcome": "no match", "topic": message.topic, "from": from});
        }
        self.told(self.rule.evaluate(message), message, device)
    }

    /// An outcome, and what each action would send.
    pub fn told(&self, outcome: Outcome<'_>, message: &Message<'_>, device: &str) -> Value {
        match outcome {
            Outcome::Row(row) => {
                let would: Vec<Value> = self.actions.iter().map(|action| action.would(message, &row, device)).collect();
                json!({"rule": self.name, "outcome": "row", "row": row.to_string(), "actions": would})
            }
            Outcome::NoMatch => self.unmet(message),
            Outcome::Error(error) => self.failed(&error.to_string()),
        }
    }

    /// The condition is not true.
    pub fn unmet(&self, message: &Message<'_>) -> Value {
        json!({"rule": self.name, "outcome": "no match", "because": because(&self.rule, message)})
    }

    pub fn failed(&self, error: &str) -> Value {
        json!({"rule": self.name, "outcome": "error", "error": error})
    }
}

/// The parts of the condition that are not true.
fn because(rule: &CompiledRule, message: &Message<'_>) -> Vec<Value> {
    let told = |Unmet { condition, value, inputs }: Unmet| {
        let inputs: serde_json::Map<String, Value> = inputs.into_iter().map(|(name, v)| (name, v.into())).collect();
        json!({"condition": condition, "is": value, "with": inputs})
    };
    match rule.explain(message) {
        Ok(unmet) => unmet.into_iter().map(told).collect(),
        Err(error) => vec![json!({"condition": error.to_string()})],
    }
}

/// Where a template stands for a value rather than for a text, as JSON pointers.
const STATES: [&str; 2] = ["/shadow/desired", "/shadow/reported"];

/// An action as declared, and its templates.
struct Planned {
    declared: Value,
    /// By JSON pointer.
    templates: Vec<(String, Template)>,
    /// Whether the device is the key unless the rule names one.
    keyed_by_device: bool,
}

impl Planned {
    fn compile(rule: &CompiledRule, action: &Action, field: &str) -> Result<Self, ApiError> {
        let declared = json!(action);
        let mut templates = Vec::new();
        for text in action.templates() {
            let template = rule.template(text.text).map_err(|error| error.in_field(text.name(field)))?;
            templates.push((text.pointer, template));
        }
        let keyed_by_device = action.kafka.as_ref().is_some_and(|kafka| kafka.key.is_none());
        Ok(Self { declared, templates, keyed_by_device })
    }

    /// The action with everything put in, and the value that it would send.
    fn would(&self, message: &Message<'_>, row: &Row<'_>, device: &str) -> Value {
        let mut action = self.declared.clone();
        if self.keyed_by_device {
            action["kafka"]["key"] = device.into();
        }
        for (pointer, template) in &self.templates {
            let rendered = if STATES.iter().any(|state| pointer.starts_with(state)) {
                template.render_value(message, row).map(|json| serde_json::from_str(&json).unwrap_or_default())
            } else {
                template.render(message, row).map(Value::from)
            };
            match (rendered, action.pointer_mut(pointer)) {
                (Ok(value), Some(place)) => *place = value,
                (Err(error), _) => return json!({"action": self.declared, "error": error.to_string()}),
                (Ok(_), None) => {}
            }
        }
        json!({"action": action, "value": row.to_string()})
    }
}

/// A verdict for people.
fn tell(verdict: &Value, out: &mut dyn Write) -> io::Result<()> {
    let text = |value: &Value| plain(value.as_str().unwrap_or_default());
    let (rule, outcome) = (text(&verdict["rule"]), text(&verdict["outcome"]));
    if let Some(topic) = verdict["message"]["topic"].as_str() {
        writeln!(out, "{} {} {}", verdict["message"]["time_ms"], text(&verdict["message"]["device"]), plain(topic))?;
    }
    match verdict["outcome"].as_str() {
        Some("row") => {
            writeln!(out, "{rule}: {}", text(&verdict["row"]))?;
            for action in verdict["actions"].as_array().into_iter().flatten() {
                let problem = action["error"].as_str().map(|error| format!(" FAILS: {}", plain(error)));
                writeln!(out, "  {}{}", action["action"], problem.unwrap_or_default())?;
            }
        }
        Some("error") => writeln!(out, "{rule}: error: {}", text(&verdict["error"]))?,
        _ if verdict["from"].is_array() => {
            writeln!(out, "{rule}: {outcome}: topic {} is none of FROM {}", verdict["topic"], verdict["from"])?;
        }
        _ => {
            writeln!(out, "{rule}: {outcome}")?;
            for part in verdict["because"].as_array().into_iter().flatten() {
                writeln!(out, "  {} is {}", text(&part["condition"]), text(&part["is"]))?;
                for (name, value) in part["with"].as_object().into_iter().flatten() {
                    writeln!(out, "    {} = {}", plain(name), text(value))?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::output::Format;
    use super::*;

    const RULES: &str = r#"{"apiVersion": "drover.dev/v1alpha1", "kind": "Rule", "metadata": {"name": "hot"}, "spec": {
        "sql": "SELECT t, topic(2) AS d FROM 'a/+' WHERE t > 30 AND o.on = true",
        "actions": [{"kafka": {"topic": "home.hot"}}, {"republish": {"topic": "alerts/${d}/${t}", "qos": 1}},
                    {"kafka": {"topic": "home.x", "key": "${absent}"}}]}}"#;

    fn tested(topic: &str, payload: &str) -> String {
        told(RULES, topic, payload, None).expect("runs")
    }

    fn told(rules: &str, topic: &str, payload: &str, context: Option<&str>) -> anyhow::Result<String> {
        let mut file = tempfile::NamedTempFile::new().expect("file");
        file.write_all(rules.as_bytes()).expect("written");
        let test = RuleTest {
            file: file.path().to_owned(),
            functions: Vec::new(),
            topic: Some(topic.to_owned()),
            payload: payload.to_owned(),
            client: "c".to_owned(),
            time: Some(5),
            context: context.map(str::to_owned),
            since: None,
            limit: 1,
        };
        let mut out = Vec::new();
        let (server, token_file) = ("http://127.0.0.1:9".to_owned(), PathBuf::new());
        let connection = Connection { server, token_file, tenant: None, output: Format::Table };
        test.run(&connection, &mut out)?;
        Ok(String::from_utf8(out).expect("text"))
    }

    #[test]
    fn what_would_come_out_is_told_action_by_action() {
        let expected = "hot: {\"t\":31,\"d\":\"b\"}\n  \
             {\"kafka\":{\"topic\":\"home.hot\",\"key\":\"c\"}}\n  \
             {\"republish\":{\"topic\":\"alerts/b/31\",\"qos\":1}}\n  \
             {\"kafka\":{\"topic\":\"home.x\",\"key\":\"${absent}\"}} FAILS: ${absent} is undefined for this message\n";
        assert_eq!(tested("a/b", r#"{"t": 31, "o": {"on": true}}"#), expected);
    }

    #[test]
    fn why_there_is_no_row_is_told_with_the_values() {
        let expected =
            "hot: no match\n  t > 30 is false\n    t = 21\n  o.on = true is undefined\n    o.on = undefined\n";
        assert_eq!(tested("a/b", r#"{"t": 21}"#), expected);
        assert_eq!(tested("b", "{}"), "hot: no match: topic \"b\" is none of FROM [\"a/+\"]\n");
        let error = "hot: error: payload is not JSON: line 1, column 1: expected a JSON value\n";
        assert_eq!(tested("a/b", "damaged"), error);
    }

    #[test]
    fn what_rules_look_up_is_in_the_context() {
        let rules = r#"{"apiVersion": "drover.dev/v1alpha1", "kind": "Rule", "metadata": {"name": "hot"}, "spec": {
            "sql": "SELECT device().labels.room AS room FROM 'a' WHERE get_thing_shadow('t').state.reported.on = true",
            "actions": [{"republish": {"topic": "alerts/${get(get_user_properties('site'), 0)}"}}]}}"#;
        let context = |on: bool| {
            let (device, shadow) = (json!({"labels": {"room": "hall"}}), json!({"state": {"reported": {"on": on}}}));
            json!({"device": device, "shadows": {"t": shadow}, "userProperties": {"site": "north"}}).to_string()
        };
        let with = |context: Option<&str>| told(rules, "a", "{}", context);
        let row = with(Some(&context(true))).expect("runs");
        assert!(row.starts_with("hot: {\"room\":\"hall\"}\n") && row.contains("alerts/north"), "{row}");
        let unmet = with(Some(&context(false))).expect("runs");
        assert!(unmet.starts_with("hot: no match\n") && unmet.contains(" is false\n"), "{unmet}");
        assert_eq!(with(None).expect("runs"), "hot: error: get_thing_shadow: cannot be looked up here\n");
        let refused = format!("{:#}", with(Some("{")).expect_err("no JSON"));
        assert!(refused.starts_with("--context: "), "{refused}");
    }

    #[test]
    fn a_message_by_basic_ingest_is_for_the_rule_that_its_topic_names() {
        let not_met = "hot: no match\n  t > 30 is undefined\n";
        assert!(tested("$aws/rules/hot/c", "{}").starts_with(not_met));
        let other = "hot: no match: topic \"$aws/rules/cold/a/b\" is none of FROM [\"a/+\"]\n";
        assert_eq!(tested("$aws/rules/cold/a/b", "{}"), other);
    }
}
