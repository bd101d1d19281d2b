//! Puts messages through one rule again: its dead letters, or what the log has since some time. A part with each call,
//! so that who asks sees how far it is, and goes on where it was when something fails.
//!
//! Nothing is remembered of it, and nothing it writes is in a transaction: outputs have their ids, by which their readers
//! can recognise what they have seen.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use drover_bus::{Bounds, Bus, Offset, Partition, Position, ReadError, Stored, TopicPartition, repeats};
use drover_types::object::FunctionSpec;
use drover_types::repeat::{RepeatWindow, Verdict};
use drover_types::{ApiError, Clock, ErrorCode, TELEMETRY_TOPIC, TenantId, header};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::append::append;
use crate::domain::{Batch, Board, Definition, ERRORS_TOPIC, Letter, RuleKey, RuleSet, Views, open_letter};
use crate::engine::GROUP;
use crate::functions::Functions;

/// Bytes that one part reads, about.
const READ_BYTES: usize = 1024 * 1024;
/// Longest that one part evaluates.
const PART_MAX: Duration = Duration::from_secs(2);

/// The way to put messages through again. One part at a time.
pub struct Replayer {
    pub bus: Arc<dyn Bus>,
    pub clock: Arc<dyn Clock>,
    pub rules: watch::Receiver<Arc<RuleSet>>,
    pub functions: Functions,
    pub views: Arc<Views>,
    pub board: Arc<Board>,
    /// Held by the part under way: functions tell of outages to whoever asks next. In it, which messages were seen before
    /// the place where the last part has ended.
    pub window: tokio::sync::Mutex<Option<(Position, RepeatWindow)>>,
}

/// What is to be put through.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Dead letters; else the messages of the log.
    pub errors: bool,
    /// Milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// What a part came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub read: u64,
    pub replayed: u64,
    pub emitted: u64,
    pub failed: u64,
    pub skipped: u64,
    pub left: u64,
    pub next: String,
}

/// A stretch of a partition that is still to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    partition: Partition,
    from: Offset,
    to: Offset,
}

impl Replayer {
    /// The part at `cursor`, which is empty at the start.
    pub async fn part(&self, key: &RuleKey, wanted: Wanted, cursor: &str) -> Result<Part, ApiError> {
        let mut kept = self.window.lock().await;
        let rules = self.rules.borrow().clone();
        let unknown = || ApiError::new(ErrorCode::NotFound, format!("rule {} is not in force", key.1));
        let rule = rules.get(key).ok_or_else(unknown)?;
        if !wanted.errors && rule.rule.plan().is_some() {
            let message =
                "a rule with GROUP BY has put its messages into windows: only its dead letters go through again";
            return Err(ApiError::new(ErrorCode::FailedPrecondition, message));
        }
        let mut spans =
            if cursor.is_empty() { self.spans(wanted).await } else { self.clamped(wanted, parse(cursor)?).await }
                .map_err(unavailable)?;
        let Some(span) = spans.first_mut() else { return Ok(Part::default()) };
        let topic = if wanted.errors { ERRORS_TOPIC } else { TELEMETRY_TOPIC };
        let at = TopicPartition::new(topic, span.partition);
        let records = match self.bus.read(&at, span.from, READ_BYTES, Duration::ZERO).await {
            Ok(records) => records,
            // The oldest has gone meanwhile.
            Err(ReadError::OutOfRange { from, earliest, .. }) if from < earliest => {
                span.from = earliest.min(span.to);
                let records = self.bus.read(&at, span.from, READ_BYTES, Duration::ZERO).await;
                records.map_err(unavailable)?
            }
            Err(error) => return Err(unavailable(error)),
        };
        let mut window = match (wanted.errors, kept.take()) {
            (true, _) => None,
            (false, Some((place, window))) if place.at == at && place.offset == span.from => Some(window),
            (false, _) => {
                let place = Position { at: at.clone(), offset: span.from };
                Some(repeats::window_before(&*self.bus, &place).await.map_err(unavailable)?)
            }
        };
        let mut part = Part::default();
        self.put_through(&rules, rule, wanted.since_ms, (records, window.as_mut()), span, &mut part).await?;
        *kept = window.map(|window| (Position { at, offset: span.from }, window));
        spans.retain(|span| span.from < span.to);
        part.left = spans.iter().map(|span| span.to - span.from).sum();
        part.next = print(&spans);
        Ok(part)
    }

    /// Evaluates records as long as the part may take, and writes what comes of them. With a window they are messages,
    /// without one dead letters.
    async fn put_through(
        &self,
        rules: &RuleSet,
        rule: &Arc<Definition>,
        since_ms: u64,
        (records, mut window): (Vec<Stored>, Option<&mut RepeatWindow>),
        span: &mut Span,
        part: &mut Part,
    ) -> Result<(), ApiError> {
        let (started, mut batch) = (Instant::now(), Batch::default());
        // Between the last record and the end there may be nothing but gaps.
        if records.is_empty() {
            span.from = span.to;
        }
        let call = |tenant: &TenantId, function: &FunctionSpec, inputs: &[String]| {
            self.functions.call(tenant, function, inputs)
        };
        self.functions.begin_batch();
        for stored in records {
            let offset = stored.position.offset;
            if offset >= span.to {
                span.from = span.to;
                break;
            }
            if started.elapsed() > PART_MAX {
                break;
            }
            span.from = offset + 1;
            part.read += 1;
            let is_ours = stored.record.header(header::TENANT) == Some(rule.tenant.as_str().as_bytes());
            let is_recent = stored.record.timestamp_ms.unsigned_abs() >= since_ms;
            let is_letter = window.is_none();
            let letter = match &mut window {
                Some(window) => message(stored, window, rule).filter(|_| is_ours && is_recent),
                None => open_letter(stored).filter(|letter| letter.rule == rule.name && is_ours && is_recent),
            };
            let Some(letter) = letter else { continue };
            if letter.source.is_none() {
                tracing::warn!(partition = span.partition, offset, "a dead letter without its source has no message");
            }
            if batch.replay(letter, rule, rules, &self.views, &call) {
                part.replayed += 1;
            } else if is_letter {
                part.skipped += 1;
            }
        }
        if let Some(outage) = self.functions.take_outage() {
            return Err(ApiError::new(ErrorCode::Unavailable, format!("functions cannot be called: {outage}")));
        }
        append(&*self.bus, &*self.clock, &mut batch).await.map_err(unavailable)?;
        for (key, tally) in batch.by_rule() {
            part.emitted += tally.emitted;
            part.failed += tally.failed;
            self.board.add(key, tally);
        }
        Ok(())
    }

    /// All that is to be read. Of the messages those that the engine has passed: the others meet the rule anyhow.
    async fn spans(&self, wanted: Wanted) -> Result<Vec<Span>, ReadError> {
        let mut spans = Vec::new();
        for (at, bounds, to) in self.ends(wanted).await? {
            let since = i64::try_from(wanted.since_ms).unwrap_or(i64::MAX);
            // A dead letter has the time of its message, which may be long before those of its neighbours.
            let from = if wanted.errors { bounds.earliest } else { self.bus.offset_at(&at, since).await? };
            let from = from.max(bounds.earliest);
            if from < to {
                spans.push(Span { partition: at.partition, from, to });
            }
        }
        Ok(spans)
    }

    /// The spans of a cursor, which comes from outside: none ends behind what may be read.
    async fn clamped(&self, wanted: Wanted, spans: Vec<Span>) -> Result<Vec<Span>, ReadError> {
        let ends = self.ends(wanted).await?;
        let clamp = |span: Span| {
            let end = ends.iter().find(|(at, ..)| at.partition == span.partition).map_or(0, |(_, _, to)| *to);
            Span { to: span.to.min(end), ..span }
        };
        Ok(spans.into_iter().map(clamp).filter(|span| span.from < span.to).collect())
    }

    /// Each partition, what it has, and where what may be read ends: of the messages those that the engine has passed.
    async fn ends(&self, wanted: Wanted) -> Result<Vec<(TopicPartition, Bounds, Offset)>, ReadError> {
        let topic = if wanted.errors { ERRORS_TOPIC } else { TELEMETRY_TOPIC };
        let partitions = drover_bus::bounds(&*self.bus, topic).await?.unwrap_or_default();
        let passed = if wanted.errors { None } else { Some(self.bus.committed(GROUP, topic).await?) };
        let end = |at: &TopicPartition, bounds: &Bounds| match &passed {
            None => bounds.end,
            Some(passed) => passed.iter().find(|p: &&Position| p.at == *at).map_or(0, |p| p.offset),
        };
        let mut ends = Vec::with_capacity(partitions.len());
        for (at, bounds) in partitions {
            let to = end(&at, &bounds);
            ends.push((at, bounds, to));
        }
        Ok(ends)
    }
}

/// A message of the log, to go through the whole rule; `None`: it is unreadable, or a repeat.
fn message(stored: Stored, window: &mut RepeatWindow, rule: &Definition) -> Option<Letter> {
    let telemetry = repeats::telemetry(&stored).ok()?;
    let is_new = window.observe(&telemetry) == Verdict::New;
    is_new.then(|| Letter { rule: rule.name.clone(), action: None, source: Some(stored) })
}

fn unavailable(error: impl std::fmt::Display) -> ApiError {
    ApiError::new(ErrorCode::Unavailable, error.to_string())
}

/// `partition:from:to`, separated by commas.
fn print(spans: &[Span]) -> String {
    let mut text = String::new();
    for Span { partition, from, to } in spans {
        let comma = if text.is_empty() { "" } else { "," };
        write!(text, "{comma}{partition}:{from}:{to}").expect("a String takes all");
    }
    text
}

fn parse(cursor: &str) -> Result<Vec<Span>, ApiError> {
    let span = |text: &str| {
        let mut numbers = text.split(':').map(|number| number.parse::<u64>().ok());
        let (partition, from, to) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let partition = Partition::try_from(partition).ok()?;
        numbers.next().is_none().then_some(Span { partition, from, to }).filter(|span| span.from < span.to)
    };
    let spans: Option<Vec<Span>> = cursor.split(',').map(span).collect();
    spans.ok_or_else(|| ApiError::invalid("cursor", "is not the `next` of an answer"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_printed_and_nothing_else_is() {
        let spans = vec![Span { partition: 0, from: 3, to: 9 }, Span { partition: 7, from: 0, to: 1 }];
        assert_eq!(parse(&print(&spans)), Ok(spans));
        for wrong in ["x", "1:2", "1:2:2", "1:2:3:4", "1:2:3,", "4294967296:1:2"] {
            assert_eq!(parse(wrong).expect_err(wrong).field.as_deref(), Some("cursor"));
        }
    }
}
