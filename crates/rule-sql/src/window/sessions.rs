//! Sessions: messages of a group with less than a gap between one and the next. Where a session ends, its device has
//! been absent for as long as the gap.

use super::panes::values;
use super::plan::{Closed, Plan};
use super::state::{Group, Pane};
use crate::ast::Late;
use crate::error::EvalError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sessions {
    pub gap_ms: u64,
}

impl Sessions {
    /// Adds a message to the session it belongs to, or two that it joins, or begins one. It is late if its session would
    /// be over; `true` then.
    pub fn take(
        &self,
        plan: &Plan,
        group: &mut Group,
        message: &Pane,
        watermark_ms: u64,
    ) -> Result<(Vec<Closed>, bool), EvalError> {
        let belongs = |session: &Pane| self.end(session) > message.start_ms && self.end(message) > session.start_ms;
        let (own, others): (Vec<Pane>, Vec<Pane>) = std::mem::take(&mut group.panes).into_iter().partition(belongs);
        group.panes = others;
        if own.is_empty() && self.end(message) <= watermark_ms {
            let row = match plan.late {
                Late::Drop => None,
                Late::Emit => Some(self.closed(plan, message, true)?),
            };
            return Ok((row.into_iter().collect(), true));
        }
        let mut session = message.clone();
        for part in &own {
            session.merge(plan, part)?;
        }
        let at = group.panes.partition_point(|known| known.start_ms < session.start_ms);
        group.panes.insert(at, session);
        Ok((Vec::new(), false))
    }

    /// Closes the sessions that the watermark is a gap behind of.
    pub fn close(&self, plan: &Plan, group: &mut Group, watermark_ms: u64) -> Result<Vec<Closed>, EvalError> {
        let over = |session: &Pane| self.end(session) <= watermark_ms;
        let (over, open): (Vec<Pane>, Vec<Pane>) = std::mem::take(&mut group.panes).into_iter().partition(over);
        group.panes = open;
        over.iter().map(|session| self.closed(plan, session, false)).collect()
    }

    /// When the next session ends.
    pub fn deadline(&self, group: &Group) -> Option<u64> {
        group.panes.iter().map(|session| self.end(session)).min()
    }

    fn end(&self, session: &Pane) -> u64 {
        session.last_ms.saturating_add(self.gap_ms)
    }

    fn closed(&self, plan: &Plan, session: &Pane, late: bool) -> Result<Closed, EvalError> {
        let values = values(plan, std::slice::from_ref(session))?;
        Ok(Closed { start_ms: session.start_ms, end_ms: self.end(session), late, hops: session.hops, values })
    }
}
