//! GROUP BY with its window or pattern, and what a row of many messages may be made of.

use super::expression::Tree;
use super::{Parser, same};
use crate::ast::{Aggregate, AggregateKind, BinaryOperator, Bound, Edge, Expr, Grouping, Item, Late, Per, Select};
use crate::duration::Span;
use crate::error::{Problem, SqlError};
use crate::lexer::Kind;
use crate::number::Number;

/// Most keys of a GROUP BY.
pub const KEYS_MAX: usize = 8;
/// Longest window, gap or lateness, in milliseconds: 31 days.
pub const SPAN_MS_MAX: u64 = 31 * 24 * 3_600_000;
/// Most hops in one window: each is kept by itself.
pub const PANES_MAX: u64 = 1_000;
/// Most values that `collect` keeps.
pub const COLLECT_MAX: usize = 1_000;

/// What `collect` keeps unless it says how many.
const COLLECT_DEFAULT: usize = 100;
/// Lateness of a rule that does not say; several ingress nodes write to one partition, each with a clock of its own.
const LATENESS_MS_DEFAULT: u64 = 1_000;
/// Windows and patterns.
const PER: [&str; 8] = ["TUMBLING", "HOPPING", "SLIDING", "SESSION", "ABSENT", "CHANGED", "RISING", "FALLING"];

impl Parser<'_> {
    /// `GROUP BY …` and the clauses about time behind it, if it comes.
    pub(super) fn grouping(&mut self) -> Result<Option<Grouping>, SqlError> {
        let start = self.token.start;
        if !self.take_word("GROUP")? {
            return Ok(None);
        }
        self.expect_word("BY")?;
        let mut keys = Vec::new();
        let per = loop {
            if let Some(per) = self.per()? {
                break per;
            }
            keys.push(self.expression()?);
            if !self.take_symbol(",")? {
                return Err(self.expected(", and a window or a pattern"));
            }
        };
        if keys.len() > KEYS_MAX {
            return Err(self.error(start, Problem::TooManyKeys { found: keys.len() }));
        }
        if !keys.iter().any(is_device) {
            return Err(self.error(start, Problem::NoDevice));
        }
        let mut grouping = Grouping { keys, per, event_time: None, lateness_ms: LATENESS_MS_DEFAULT, late: Late::Drop };
        // A pattern follows the order of the log: time says nothing there.
        if !grouping.per.is_pattern() {
            self.times(&mut grouping)?;
        }
        Ok(Some(grouping))
    }

    /// `[EVENT TIME expr] [LATENESS span] [LATE DROP|EMIT]`.
    fn times(&mut self, grouping: &mut Grouping) -> Result<(), SqlError> {
        if self.take_word("EVENT")? {
            self.expect_word("TIME")?;
            grouping.event_time = Some(self.expression()?);
        }
        if self.take_word("LATENESS")? {
            grouping.lateness_ms = self.span(0)?;
        }
        if self.take_word("LATE")? {
            grouping.late = if self.take_word("EMIT")? {
                Late::Emit
            } else if self.take_word("DROP")? {
                Late::Drop
            } else {
                return Err(self.expected("DROP or EMIT"));
            };
        }
        Ok(())
    }

    /// A window or a pattern, if one stands here.
    fn per(&mut self) -> Result<Option<Per>, SqlError> {
        let start = self.token.start;
        let Some(name) = PER.iter().find(|name| self.is_word(name)) else { return Ok(None) };
        if self.lexer.clone().next()?.kind != Kind::Symbol("(") {
            return Ok(None);
        }
        self.advance()?;
        self.advance()?;
        let per = match *name {
            "TUMBLING" => Per::Tumbling { size_ms: self.span(1)? },
            "HOPPING" => self.hopping(start)?,
            "SLIDING" => Per::Sliding { size_ms: self.span(1)? },
            "SESSION" => Per::Session { gap_ms: self.span(1)? },
            "ABSENT" => Per::Absent { gap_ms: self.span(1)? },
            "CHANGED" => Per::Changed(self.expression()?),
            "RISING" => self.edge(Edge::Rising)?,
            _ => self.edge(Edge::Falling)?,
        };
        self.expect_symbol(")")?;
        Ok(Some(per))
    }

    fn hopping(&mut self, start: usize) -> Result<Per, SqlError> {
        let size_ms = self.span(1)?;
        self.expect_symbol(",")?;
        let hop_ms = self.span(1)?;
        if !size_ms.is_multiple_of(hop_ms) || size_ms / hop_ms > PANES_MAX {
            return Err(self.error(start, Problem::Hop { size_ms, hop_ms }));
        }
        Ok(Per::Hopping { size_ms, hop_ms })
    }

    /// `condition [, HYSTERESIS number]`.
    fn edge(&mut self, edge: Edge) -> Result<Per, SqlError> {
        let condition = self.expression()?;
        let mut hysteresis = None;
        if self.take_symbol(",")? {
            let start = self.token.start;
            self.expect_word("HYSTERESIS")?;
            let Kind::Number(digits) = self.token.kind else { return Err(self.expected("a number")) };
            let number = Number::parse(digits);
            self.advance()?;
            if !matches!(
                condition,
                Expr::Binary {
                    operator: BinaryOperator::Less
                        | BinaryOperator::LessOrEqual
                        | BinaryOperator::Greater
                        | BinaryOperator::GreaterOrEqual,
                    ..
                }
            ) {
                return Err(self.error(start, Problem::Hysteresis));
            }
            hysteresis = Some(number.ok_or_else(|| self.error(start, Problem::Number { number: digits.to_owned() }))?);
        }
        Ok(Per::Edge { edge, condition, hysteresis })
    }

    /// A number and a unit, of at least `least` milliseconds.
    fn span(&mut self, least: u64) -> Result<u64, SqlError> {
        const EXPECTED: &str = "a span of time as 30s, 5m or 1h";
        let start = self.token.start;
        let Kind::Number(number) = self.token.kind else { return Err(self.expected(EXPECTED)) };
        self.advance()?;
        let Kind::Word(unit) = self.token.kind else { return Err(self.expected(EXPECTED)) };
        let Some(Span(ms)) = Span::read(number, unit) else { return Err(self.expected(EXPECTED)) };
        self.advance()?;
        if !(least..=SPAN_MS_MAX).contains(&ms) {
            return Err(self.error(start, Problem::Span { found: ms }));
        }
        Ok(ms)
    }

    /// The aggregate or bound of this name, whose parenthesis has been opened; `None` if there is none.
    pub(super) fn aggregate(&mut self, word: &str, start: usize) -> Result<Option<Tree>, SqlError> {
        if let Some((bound, name)) = Bound::TABLE.iter().find(|(_, name)| same(name, word)) {
            self.note(name, start)?;
            self.expect_symbol(")")?;
            return Ok(Some((Expr::Bound(*bound), 1)));
        }
        let plain = AggregateKind::PLAIN.iter().find(|(_, name)| same(name, word));
        let name = match plain {
            Some((_, name)) => *name,
            None if same(word, AggregateKind::PERCENTILE) => AggregateKind::PERCENTILE,
            None if same(word, AggregateKind::COLLECT) => AggregateKind::COLLECT,
            None => return Ok(None),
        };
        self.note(name, start)?;
        self.selecting = false;
        let of = if self.take_symbol("*")? { None } else { Some(self.climb(0)?) };
        self.selecting = true;
        let kind = match plain {
            Some((kind, _)) => *kind,
            None if name == AggregateKind::PERCENTILE => {
                self.expect_symbol(",")?;
                AggregateKind::Percentile(self.number_within(name, 0, 100)?)
            }
            None if self.take_symbol(",")? => {
                let most = self.number_within(name, 1, COLLECT_MAX as u64)?.truncated();
                AggregateKind::Collect(most.and_then(|most| usize::try_from(most).ok()).unwrap_or(COLLECT_DEFAULT))
            }
            None => AggregateKind::Collect(COLLECT_DEFAULT),
        };
        if of.is_none() && kind.is_of_numbers() {
            return Err(self.error(start, Problem::Expected { expected: "a value", found: "*".to_owned() }));
        }
        self.expect_symbol(")")?;
        let (of, height) = of.map_or((None, 0), |(of, height)| (Some(of), height));
        self.grown(Expr::Aggregate(Box::new(Aggregate { kind, of })), height).map(Some)
    }

    /// An aggregate stands here: it may, and is remembered.
    fn note(&mut self, name: &'static str, start: usize) -> Result<(), SqlError> {
        self.aggregate.get_or_insert((name, start));
        if self.selecting { Ok(()) } else { Err(self.error(start, Problem::NeedsWindow { name })) }
    }

    fn number_within(&mut self, name: &'static str, least: u64, most: u64) -> Result<Number, SqlError> {
        let Kind::Number(digits) = self.token.kind else { return Err(self.expected("a number")) };
        let (start, bound) = (self.token.start, |bound: u64| Number::Int(bound.into()));
        let number = Number::parse(digits).filter(|number| (bound(least)..=bound(most)).contains(number));
        self.advance()?;
        number
            .ok_or_else(|| self.error(start, Problem::AggregateNumber { name, least, most, found: digits.to_owned() }))
    }

    /// Aggregates need a window, and a window needs all else to be one value for the group.
    pub(super) fn check_selected(
        &self,
        select: &Select,
        grouping: Option<&Grouping>,
        start: usize,
    ) -> Result<(), SqlError> {
        let Some(grouping) = grouping.filter(|grouping| !grouping.per.is_pattern()) else {
            return match self.aggregate {
                Some((name, start)) => Err(self.error(start, Problem::NeedsWindow { name })),
                None => Ok(()),
            };
        };
        let alone = |expression: String| Err(self.error(start, Problem::Ungrouped { expression }));
        let check = |expr: &Expr| ungrouped(expr, &grouping.keys).map_or(Ok(()), |expr| alone(expr.to_string()));
        match select {
            Select::Payload => alone("*".to_owned()),
            Select::Value(expr) => check(expr),
            Select::Items(items) => items.iter().try_for_each(|item| match item {
                Item::Star => alone("*".to_owned()),
                Item::Named { expr, .. } => check(expr),
            }),
        }
    }
}

/// Whether a key is the device itself.
pub(crate) fn is_device(key: &Expr) -> bool {
    matches!(key, Expr::Call { function, .. } if function.name == "device")
}

/// Whether an aggregate, a bound, a window or a pattern has this name, in any case.
pub(crate) fn is_word_of_groups(name: &str) -> bool {
    let aggregates = AggregateKind::PLAIN.iter().map(|(_, name)| *name);
    let aggregates = aggregates.chain([AggregateKind::PERCENTILE, AggregateKind::COLLECT]);
    let bounds = Bound::TABLE.iter().map(|(_, name)| *name);
    aggregates.chain(bounds).chain(PER).any(|word| same(word, name))
}

/// The part of `expr` that is of a single message and no key.
pub(crate) fn ungrouped<'e>(expr: &'e Expr, keys: &[Expr]) -> Option<&'e Expr> {
    if keys.contains(expr) {
        return None;
    }
    let any = |parts: &'e [Expr]| parts.iter().find_map(|part| ungrouped(part, keys));
    match expr {
        Expr::Literal(_) | Expr::Aggregate(_) | Expr::Bound(_) => None,
        Expr::Star | Expr::Field(_) | Expr::Variable(_) | Expr::Query(_) | Expr::Exists(_) => Some(expr),
        Expr::Member { of: part, .. } | Expr::Unary { operand: part, .. } | Expr::Cast { operand: part, .. } => {
            ungrouped(part, keys)
        }
        Expr::Array(elements) => any(elements),
        Expr::Object(members) => members.iter().find_map(|(_, member)| ungrouped(member, keys)),
        Expr::Binary { left, right, .. } => ungrouped(left, keys).or_else(|| ungrouped(right, keys)),
        Expr::Case { of, arms, otherwise } => {
            let mut parts = of.iter().chain(otherwise).map(|part| &**part);
            parts.find_map(|part| ungrouped(part, keys)).or_else(|| {
                arms.iter().find_map(|(when, then)| ungrouped(when, keys).or_else(|| ungrouped(then, keys)))
            })
        }
        Expr::Call { function, .. } if function.is_of_message() => Some(expr),
        Expr::Call { arguments, .. } | Expr::UserCall { arguments, .. } => any(arguments),
    }
}
