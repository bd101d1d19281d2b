//! What a rule asks besides its messages, so that whoever evaluates it has the answers at hand before the first one.

use crate::ast::{Expr, Grouping, Item, Per, Query, Select, Statement};
use crate::parser::group::is_device;

/// What is looked up for a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `device()`: entries of the registry.
    pub devices: bool,
    /// `get_thing_shadow()`.
    pub shadows: bool,
}

/// Names of the functions that ask.
const DEVICE: &str = "device";
const SHADOW: &str = "get_thing_shadow";

impl Asked {
    /// What a statement asks. A `device()` that is a key of GROUP BY is known without.
    pub(crate) fn by(statement: &Statement) -> Self {
        let mut asked = Self::default();
        let grouping = statement.grouping.as_ref();
        let of_window = grouping.filter(|grouping| !grouping.per.is_pattern());
        let keys = of_window.map(|grouping| grouping.keys.as_slice()).unwrap_or_default();
        statement.variables.iter().for_each(|(_, expr)| asked.add(expr, &[]));
        asked.select(&statement.select, keys);
        statement.condition.iter().for_each(|condition| asked.add(condition, &[]));
        if let Some(Grouping { keys, per, event_time, .. }) = grouping {
            keys.iter().filter(|key| !is_device(key)).chain(event_time).for_each(|expr| asked.add(expr, &[]));
            match per {
                Per::Changed(expr) | Per::Edge { condition: expr, .. } => asked.add(expr, &[]),
                Per::Tumbling { .. }
                | Per::Hopping { .. }
                | Per::Sliding { .. }
                | Per::Session { .. }
                | Per::Absent { .. } => {}
            }
        }
        asked
    }

    /// What either asks.
    pub fn and(self, other: Self) -> Self {
        Self { devices: self.devices || other.devices, shadows: self.shadows || other.shadows }
    }

    fn select(&mut self, select: &Select, keys: &[Expr]) {
        match select {
            Select::Payload => {}
            Select::Value(expr) => self.add(expr, keys),
            Select::Items(items) => items.iter().for_each(|item| match item {
                Item::Star => {}
                Item::Named { expr, .. } => self.add(expr, keys),
            }),
        }
    }

    fn query(&mut self, query: &Query) {
        self.select(&query.select, &[]);
        self.add(&query.from, &[]);
        query.condition.iter().for_each(|condition| self.add(condition, &[]));
    }

    /// What an expression asks, but for those that are among `keys`.
    pub(crate) fn add(&mut self, expr: &Expr, keys: &[Expr]) {
        if keys.contains(expr) {
            return;
        }
        match expr {
            Expr::Literal(_) | Expr::Star | Expr::Field(_) | Expr::Variable(_) | Expr::Bound(_) => {}
            Expr::Member { of: part, .. } | Expr::Unary { operand: part, .. } | Expr::Cast { operand: part, .. } => {
                self.add(part, keys);
            }
            Expr::Array(parts) | Expr::UserCall { arguments: parts, .. } => {
                parts.iter().for_each(|part| self.add(part, keys));
            }
            Expr::Object(members) => members.iter().for_each(|(_, member)| self.add(member, keys)),
            Expr::Binary { left, right, .. } => {
                self.add(left, keys);
                self.add(right, keys);
            }
            Expr::Case { of, arms, otherwise } => {
                of.iter().chain(otherwise).for_each(|part| self.add(part, keys));
                arms.iter().for_each(|(when, then)| {
                    self.add(when, keys);
                    self.add(then, keys);
                });
            }
            Expr::Query(query) | Expr::Exists(query) => self.query(query),
            Expr::Call { function, arguments, .. } => {
                self.devices |= function.name == DEVICE;
                self.shadows |= function.name == SHADOW;
                arguments.iter().for_each(|argument| self.add(argument, keys));
            }
            // It is made of messages, in which a key is nothing special.
            Expr::Aggregate(aggregate) => aggregate.of.iter().for_each(|of| self.add(of, &[])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parser::parse;
    use crate::template::Template;

    fn asked(sql: &str) -> (bool, bool) {
        let Asked { devices, shadows } = Asked::by(&parse(sql).expect("a statement"));
        (devices, shadows)
    }

    #[test]
    fn calls_are_found_wherever_they_stand() {
        assert_eq!(asked("SELECT a FROM 'a' WHERE b = 1"), (false, false));
        assert_eq!(asked("SELECT a FROM 'a' WHERE upper(device().labels.room) = 'X'"), (true, false));
        assert_eq!(asked("SET @s = get_thing_shadow(a, 'r') SELECT @s.state FROM 'a'"), (false, true));
        assert_eq!(asked("SELECT CASE a WHEN 1 THEN {'d': [device()]} END AS d FROM 'a'"), (true, false));
        assert_eq!(asked("SELECT (SELECT VALUE get_thing_shadow(x, 'r') FROM l AS x) AS s FROM 'a'"), (false, true));
    }

    #[test]
    fn the_device_that_is_grouped_by_is_known_without() {
        let grouped = |select: &str, per: &str| asked(&format!("SELECT {select} FROM 'a' GROUP BY device(), {per}"));
        assert_eq!(grouped("device().name AS d, max(a) AS m", "TUMBLING(1m)"), (false, false));
        assert_eq!(grouped("max(device().attributes.x) AS m", "TUMBLING(1m)"), (true, false));
        assert_eq!(grouped("a", "CHANGED(a)"), (false, false));
        assert_eq!(grouped("device().name AS d", "CHANGED(a)"), (true, false));
        assert_eq!(grouped("a", "CHANGED(device().labels.room)"), (true, false));
    }

    #[test]
    fn templates_ask_for_what_they_call() {
        let asked = |text: &str| Template::compile(text).expect("a template").asked();
        assert_eq!(asked("rooms/${DEVICE ( ).labels.room}"), Asked { devices: true, shadows: false });
        assert_eq!(asked("rooms/${device\n().labels.room}"), Asked { devices: true, shadows: false });
        assert_eq!(asked("${device}/${topic(2)}"), Asked::default());
        assert_eq!(asked("device()"), Asked::default());
    }
}
