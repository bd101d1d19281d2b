//! Windows of fixed length: tumbling, hopping and sliding ones.
//!
//! Time is cut into panes, and a window is the panes of its length: a message is added to one pane, however many windows
//! it is in. A window that ends at `end` has the panes that start in `[end - size, end)`.

use std::collections::BTreeSet;

use super::plan::{Closed, Plan};
use super::state::{Group, Pane};
use super::total::Total;
use crate::ast::{AggregateKind, Late};
use crate::error::EvalError;
use crate::value::Value;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Panes {
    size_ms: u64,
    /// Length of a pane, and from one window to the next.
    hop_ms: u64,
    /// Only windows whose last pane has messages are windows: one ends with each message.
    only_last: bool,
}

impl Panes {
    pub fn hopping(size_ms: u64, hop_ms: u64) -> Self {
        Self { size_ms, hop_ms, only_last: false }
    }

    /// A window at each millisecond that has a message, the messages of this millisecond included.
    pub fn sliding(size_ms: u64) -> Self {
        Self { size_ms, hop_ms: 1, only_last: true }
    }

    /// Adds a message. What closed windows miss of it comes as late rows, if the rule wants them; `true`: it was late.
    pub fn take(
        &self,
        plan: &Plan,
        group: &mut Group,
        message: &Pane,
        watermark_ms: u64,
    ) -> Result<(Vec<Closed>, bool), EvalError> {
        let start_ms = message.start_ms - message.start_ms % self.hop_ms;
        let missed: Vec<u64> = self.ends(start_ms).take_while(|end| *end <= watermark_ms).collect();
        if start_ms.saturating_add(self.size_ms) > watermark_ms {
            group
                .add(plan, Pane { start_ms, last_ms: start_ms, hops: message.hops, totals: message.totals.clone() })?;
        }
        let late: Result<Vec<Closed>, EvalError> = match plan.late {
            Late::Drop => Ok(Vec::new()),
            Late::Emit => {
                missed.iter().map(|end| self.closed(plan, *end, std::slice::from_ref(message), true)).collect()
            }
        };
        Ok((late?, !missed.is_empty()))
    }

    /// Closes the windows that end up to the watermark, in their order, and forgets what no window needs any more.
    pub fn close(&self, plan: &Plan, group: &mut Group, watermark_ms: u64) -> Result<Vec<Closed>, EvalError> {
        let over = |end: &u64| *end > group.closed_to_ms && *end <= watermark_ms;
        let ends: BTreeSet<u64> = group.panes.iter().flat_map(|pane| self.ends(pane.start_ms)).filter(over).collect();
        let mut closed = Vec::with_capacity(ends.len());
        for end in ends {
            let from = group.panes.partition_point(|pane| pane.start_ms < end.saturating_sub(self.size_ms));
            let to = group.panes.partition_point(|pane| pane.start_ms < end);
            closed.push(self.closed(plan, end, &group.panes[from..to], false)?);
        }
        group.closed_to_ms = group.closed_to_ms.max(watermark_ms);
        group.panes.retain(|pane| pane.start_ms.saturating_add(self.size_ms) > watermark_ms);
        Ok(closed)
    }

    /// When the next window ends, or a pane is needed no longer.
    pub fn deadline(&self, group: &Group) -> Option<u64> {
        let first = group.panes.first()?;
        let forgotten = first.start_ms.saturating_add(self.size_ms);
        let ends = group.panes.iter().flat_map(|pane| self.ends(pane.start_ms).find(|end| *end > group.closed_to_ms));
        ends.chain([forgotten]).min()
    }

    /// When the windows end that a pane is in, in their order.
    fn ends(&self, start_ms: u64) -> impl Iterator<Item = u64> + use<> {
        let windows = if self.only_last { 1 } else { self.size_ms / self.hop_ms };
        let hop_ms = self.hop_ms;
        (1..=windows).map(move |n| start_ms.saturating_add(n * hop_ms))
    }

    fn closed(&self, plan: &Plan, end_ms: u64, panes: &[Pane], late: bool) -> Result<Closed, EvalError> {
        let values = values(plan, panes)?;
        let hops = panes.iter().map(|pane| pane.hops).max().unwrap_or_default();
        Ok(Closed { start_ms: end_ms.saturating_sub(self.size_ms), end_ms, late, hops, values })
    }
}

/// What the aggregates come to over several panes.
pub(super) fn values(plan: &Plan, panes: &[Pane]) -> Result<Vec<Value<'static>>, EvalError> {
    let of = |(number, kind): (usize, AggregateKind)| {
        let mut total = Total::default();
        for pane in panes {
            // A pane of an older plan cannot be here: a rule that selects anything else is another rule.
            total.merge(kind, pane.totals.get(number).unwrap_or(&Total::default()))?;
        }
        total.value(kind)
    };
    plan.kinds().enumerate().map(of).collect()
}

impl Group {
    /// Adds a pane, or what it has to the one that starts where it does.
    fn add(&mut self, plan: &Plan, pane: Pane) -> Result<(), EvalError> {
        match self.panes.binary_search_by_key(&pane.start_ms, |known| known.start_ms) {
            Ok(at) => self.panes[at].merge(plan, &pane),
            Err(at) => {
                self.panes.insert(at, pane);
                Ok(())
            }
        }
    }
}

impl Pane {
    /// Adds what `other` has; the pane then reaches from the start of the earlier to the end of the later.
    pub(super) fn merge(&mut self, plan: &Plan, other: &Pane) -> Result<(), EvalError> {
        self.start_ms = self.start_ms.min(other.start_ms);
        self.last_ms = self.last_ms.max(other.last_ms);
        self.hops = self.hops.max(other.hops);
        for (kind, (ours, theirs)) in plan.kinds().zip(self.totals.iter_mut().zip(&other.totals)) {
            ours.merge(kind, theirs)?;
        }
        Ok(())
    }
}
