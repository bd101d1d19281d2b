//! Answers questions from the store: bounds what is asked, cuts answers into pages, sums up.

use std::ops::RangeInclusive;
use std::sync::Arc;

use drover_types::{ApiError, Clock, DeviceKey, ErrorCode};

use super::steps::{Step, Steps};
use crate::ports::{Limit, Page, SeriesStore};
use crate::series::{Field, Message, Place, Point, Series, Value};

/// Rows of one answer: what may be asked for, and what one gets who asks for nothing.
#[derive(Clone, Debug)]
pub struct Rows {
    pub allowed: RangeInclusive<u32>,
    pub default: u32,
}

/// Points of an answer about the newest.
pub const LATEST: Rows = Rows { allowed: 1..=10_000, default: 1_000 };
/// Points or steps of an answer about a span.
pub const RANGE: Rows = Rows { allowed: 1..=10_000, default: 1_000 };
/// Messages of an answer.
pub const MESSAGES: Rows = Rows { allowed: 1..=1_000, default: 100 };

/// Bytes of an answer, passed by less than one row; a gRPC message may have 4 MiB.
const ANSWER_BYTES_MAX: usize = 3 * 1024 * 1024;
/// What one read brings while points are summed up.
const SCAN: Limit = Limit { rows: 5_000, bytes: ANSWER_BYTES_MAX };
/// Points looked at for one answer in steps; it then ends with the last step that is complete.
const SCANNED_POINTS_MAX: usize = 1_000_000;

/// The store, and what it still shows.
pub struct Queries {
    pub store: Arc<dyn SeriesStore>,
    pub clock: Arc<dyn Clock>,
    /// What is older is not shown, whether it is removed already or not, milliseconds; `None`: for ever.
    pub retention_ms: Option<u64>,
}

/// What is asked about a span of a series.
#[derive(Clone, Debug)]
pub struct Range {
    pub series: Series,
    pub from_ms: u64,
    /// Does not belong to the span.
    pub to_ms: u64,
    /// Width of a step; 0: the points themselves.
    pub step_ms: u64,
    pub rows: usize,
    /// Where the answer before ended.
    pub token: Option<Place>,
}

/// Points or steps of a span.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeAnswer {
    pub points: Vec<Point>,
    pub steps: Vec<Step>,
    /// Where it goes on; `None`: this was all.
    pub next: Option<Place>,
}

impl Rows {
    /// The number of rows asked for; `key` names it.
    pub fn of(&self, key: &str, asked: u32) -> Result<usize, ApiError> {
        let rows = if asked == 0 { self.default } else { asked };
        let limit = *self.allowed.end();
        if self.allowed.contains(&rows) {
            return Ok(rows as usize);
        }
        Err(ApiError::invalid(key, format!("is {asked}, limit is {limit}")).over(limit, asked))
    }
}

impl Queries {
    /// First millisecond that is shown.
    pub fn horizon_ms(&self) -> u64 {
        self.retention_ms.map_or(0, |kept_ms| self.clock.now_ms().saturating_sub(kept_ms))
    }

    /// The newest point of each field of a device, from the field `from` on.
    pub async fn latest(&self, device: &DeviceKey, from: &str, rows: usize) -> Result<Page<Point, Field>, ApiError> {
        let horizon_ms = self.horizon_ms();
        let limit = Limit { rows, bytes: ANSWER_BYTES_MAX };
        let mut page = self.store.newest(device, from, limit).await?;
        page.rows.retain(|point| point.at.time_ms >= horizon_ms);
        Ok(page)
    }

    /// Messages of a device from the last one before `to_ms` to the first one at or behind `from_ms`.
    pub async fn messages(
        &self,
        device: &DeviceKey,
        from_ms: u64,
        to_ms: u64,
        token: Option<Place>,
        rows: usize,
    ) -> Result<Page<Message, Place>, ApiError> {
        let from_ms = from_ms.max(self.horizon_ms());
        let Some(last) = to_ms.checked_sub(1).filter(|last_ms| *last_ms >= from_ms).map(Place::last_of) else {
            return Ok(Page { rows: Vec::new(), next: None });
        };
        let last = token.map_or(last, |token| token.min(last));
        Ok(self.store.messages(device, from_ms, last, Limit { rows, bytes: ANSWER_BYTES_MAX }).await?)
    }

    /// Points or steps of a span.
    pub async fn range(&self, range: &Range) -> Result<RangeAnswer, ApiError> {
        let start = Place::first_of(range.from_ms).max(Place::first_of(self.horizon_ms()));
        let start = range.token.map_or(start, |token| token.max(start));
        if start.time_ms >= range.to_ms {
            return Ok(RangeAnswer::default());
        }
        if range.step_ms == 0 { self.points(range, start).await } else { self.steps(range, start).await }
    }

    async fn points(&self, range: &Range, start: Place) -> Result<RangeAnswer, ApiError> {
        let limit = Limit { rows: range.rows, bytes: ANSWER_BYTES_MAX };
        let Page { rows: mut points, next } = self.store.points(&range.series, start, range.to_ms, limit).await?;
        let next = next.map(|next| end_between_milliseconds(&mut points, next));
        Ok(RangeAnswer { points, steps: Vec::new(), next })
    }

    async fn steps(&self, range: &Range, start: Place) -> Result<RangeAnswer, ApiError> {
        let mut steps = Steps::new(range.from_ms, range.step_ms);
        let (mut at, mut scanned) = (start, 0);
        loop {
            let page = self.store.points(&range.series, at, range.to_ms, SCAN).await?;
            scanned += page.rows.len();
            for point in page.rows {
                let Value::Number(number) = point.value else { continue };
                let step_from = steps.start_of(point.at.time_ms);
                if steps.count() == range.rows && steps.open_from() != Some(step_from) {
                    let next = Some(Place::first_of(step_from));
                    return Ok(RangeAnswer { points: Vec::new(), steps: steps.finish(), next });
                }
                steps.add(point.at.time_ms, number);
            }
            let Some(next) = page.next else {
                return Ok(RangeAnswer { points: Vec::new(), steps: steps.finish(), next: None });
            };
            at = next;
            if scanned >= SCANNED_POINTS_MAX {
                return cut_short(steps, at, start, range.step_ms);
            }
        }
    }
}

/// Takes the points of the last millisecond away if it goes on in what was left out, so that the next answer can begin
/// at a millisecond; not if they are all there is. Answers where the next one begins.
fn end_between_milliseconds(points: &mut Vec<Point>, next: Place) -> Place {
    let whole = points.partition_point(|point| point.at.time_ms < next.time_ms);
    if whole == 0 || whole == points.len() {
        return next;
    }
    points.truncate(whole);
    Place::first_of(next.time_ms)
}

/// The steps that are complete, when no more points may be looked at.
fn cut_short(steps: Steps, at: Place, start: Place, step_ms: u64) -> Result<RangeAnswer, ApiError> {
    let reached = steps.start_of(at.time_ms);
    if reached <= start.time_ms {
        let message = format!("a step has more than {SCANNED_POINTS_MAX} points, ask for narrower ones");
        let error =
            ApiError { field: Some("step_ms".to_owned()), ..ApiError::new(ErrorCode::ResourceExhausted, message) };
        return Err(error.over(SCANNED_POINTS_MAX, step_ms));
    }
    let open = steps.open_from() == Some(reached);
    let steps = if open { steps.finished() } else { steps.finish() };
    Ok(RangeAnswer { points: Vec::new(), steps, next: Some(Place::first_of(reached)) })
}
