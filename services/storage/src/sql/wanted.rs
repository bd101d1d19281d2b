//! What the conditions of a question leave of the devices, fields and times. They are tested again on each row: here it
//! is enough that nothing is left out that they let through.

use std::collections::BTreeSet;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

/// What has to be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `None`: all.
    pub devices: Option<BTreeSet<String>>,
    /// `None`: all.
    pub fields: Option<BTreeSet<String>>,
    /// Milliseconds since the Unix epoch.
    pub from_ms: u64,
    /// Does not belong to the span.
    pub to_ms: u64,
}

impl Wanted {
    const ALL: Self = Self { devices: None, fields: None, from_ms: 0, to_ms: u64::MAX };

    /// What all of `conditions` let through.
    pub fn by(conditions: &[Expr]) -> Self {
        conditions.iter().map(Self::of).fold(Self::ALL, Self::and)
    }

    fn of(condition: &Expr) -> Self {
        match condition {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => Self::of(left).and(Self::of(right)),
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => Self::of(left).or(Self::of(right)),
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                compared(left, *op, right).or_else(|| compared(right, op.swap()?, left)).unwrap_or(Self::ALL)
            }
            Expr::InList(list) if !list.negated => {
                let values: Option<Vec<String>> = list.list.iter().map(text).collect();
                column(&list.expr).zip(values).and_then(|(name, values)| one_of(name, values)).unwrap_or(Self::ALL)
            }
            Expr::Between(between) if !between.negated => {
                let from = compared(&between.expr, Operator::GtEq, &between.low).unwrap_or(Self::ALL);
                from.and(compared(&between.expr, Operator::LtEq, &between.high).unwrap_or(Self::ALL))
            }
            _ => Self::ALL,
        }
    }

    fn and(self, other: Self) -> Self {
        let both = |one: Option<BTreeSet<String>>, other: Option<BTreeSet<String>>| match (one, other) {
            (Some(one), Some(other)) => Some(&one & &other),
            (one, other) => one.or(other),
        };
        Self {
            devices: both(self.devices, other.devices),
            fields: both(self.fields, other.fields),
            from_ms: self.from_ms.max(other.from_ms),
            to_ms: self.to_ms.min(other.to_ms),
        }
    }

    fn or(self, other: Self) -> Self {
        let either = |one: Option<BTreeSet<String>>, other: Option<BTreeSet<String>>| Some(&one? | &other?);
        Self {
            devices: either(self.devices, other.devices),
            fields: either(self.fields, other.fields),
            from_ms: self.from_ms.min(other.from_ms),
            to_ms: self.to_ms.max(other.to_ms),
        }
    }
}

/// A column compared with a value; `None`: it is not that, or tells nothing.
fn compared(left: &Expr, op: Operator, right: &Expr) -> Option<Wanted> {
    let name = column(left)?;
    if name != "time" {
        return if op == Operator::Eq { one_of(name, vec![text(right)?]) } else { None };
    }
    let (floor_ms, is_whole) = millisecond(right)?;
    let behind_ms = floor_ms.saturating_add(1);
    let (from_ms, to_ms) = match op {
        Operator::Eq => (floor_ms, behind_ms),
        Operator::GtEq | Operator::Gt => (floor_ms, u64::MAX),
        Operator::Lt if is_whole => (0, floor_ms),
        Operator::Lt | Operator::LtEq => (0, behind_ms),
        _ => return None,
    };
    Some(Wanted { from_ms, to_ms, ..Wanted::ALL })
}

fn one_of(name: &str, values: Vec<String>) -> Option<Wanted> {
    let values = Some(values.into_iter().collect());
    match name {
        "device" => Some(Wanted { devices: values, ..Wanted::ALL }),
        "field" => Some(Wanted { fields: values, ..Wanted::ALL }),
        _ => None,
    }
}

/// The column, also where its values are compared as another kind of text, or as times that are told apart no less finely.
fn column(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Column(column) => Some(&column.name),
        Expr::Cast(cast) => match (&*cast.expr, cast.field.data_type()) {
            (Expr::Column(column), DataType::Timestamp(unit, _)) if column.name == "time" => {
                (*unit != TimeUnit::Second).then_some("time")
            }
            (Expr::Column(column), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
                if column.name == "device" || column.name == "field" =>
            {
                Some(&column.name)
            }
            _ => None,
        },
        _ => None,
    }
}

fn text(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text), _) => {
            text.clone()
        }
        _ => None,
    }
}

/// The millisecond that a time lies in, and whether it is its beginning. Times before 1970 are its beginning.
fn millisecond(expr: &Expr) -> Option<(u64, bool)> {
    let Expr::Literal(value, _) = expr else { return None };
    let (value, per_ms) = match value {
        ScalarValue::TimestampSecond(Some(s), _) => (s.saturating_mul(1_000), 1),
        ScalarValue::TimestampMillisecond(Some(ms), _) => (*ms, 1),
        ScalarValue::TimestampMicrosecond(Some(us), _) => (*us, 1_000),
        ScalarValue::TimestampNanosecond(Some(ns), _) => (*ns, 1_000_000),
        _ => return None,
    };
    let value = value.max(0).cast_unsigned();
    Some((value / per_ms, value.is_multiple_of(per_ms)))
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::{cast, col, lit};

    use super::*;

    fn time(ms: i64) -> Expr {
        lit(ScalarValue::TimestampMillisecond(Some(ms), Some("+00:00".into())))
    }

    fn set(names: &[&str]) -> Option<BTreeSet<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn conditions_that_all_hold_leave_what_each_of_them_leaves() {
        let by = Wanted::by(&[
            col("device").eq(lit("a")),
            col("field").in_list(vec![lit("t"), lit("u")], false),
            col("time").gt_eq(time(5)).and(col("time").lt(time(9))),
        ]);
        assert_eq!(by, Wanted { devices: set(&["a"]), fields: set(&["t", "u"]), from_ms: 5, to_ms: 9 });
        assert_eq!(Wanted::by(&[col("device").eq(lit("a")), lit("b").eq(col("device"))]).devices, set(&[]));
        assert_eq!(Wanted::by(&[]), Wanted::ALL);
    }

    #[test]
    fn of_conditions_one_of_which_holds_nothing_is_left_out() {
        let either = col("device").eq(lit("a")).or(col("device").eq(lit("b")));
        assert_eq!(Wanted::by(&[either]).devices, set(&["a", "b"]));
        let other = col("device").eq(lit("a")).or(col("field").eq(lit("t")));
        assert_eq!(Wanted::by(&[other]), Wanted::ALL);
        let times = col("time").lt(time(5)).or(col("time").eq(time(7)));
        assert_eq!(Wanted::by(&[times]), Wanted { to_ms: 8, ..Wanted::ALL });
    }

    #[test]
    fn a_bound_within_a_millisecond_reads_that_millisecond() {
        let ns = |ns| lit(ScalarValue::TimestampNanosecond(Some(ns), None));
        let span = |condition| {
            let Wanted { from_ms, to_ms, .. } = Wanted::by(&[condition]);
            (from_ms, to_ms)
        };
        assert_eq!(span(col("time").gt(ns(5_000_001))), (5, u64::MAX));
        assert_eq!(span(col("time").lt(ns(5_000_001))), (0, 6));
        assert_eq!(span(col("time").lt(ns(5_000_000))), (0, 5));
        assert_eq!(span(ns(5_000_000).lt_eq(col("time"))), (5, u64::MAX));
        assert_eq!(span(col("time").between(ns(1_000_000), ns(2_000_000))), (1, 3));
        assert_eq!(span(col("time").gt(ns(-1))), (0, u64::MAX));
    }

    #[test]
    fn what_is_not_understood_leaves_nothing_out() {
        let seconds = |expr| cast(expr, DataType::Timestamp(TimeUnit::Second, None));
        for condition in [
            seconds(col("time")).eq(time(5_000)),
            cast(seconds(col("time")), DataType::Timestamp(TimeUnit::Nanosecond, None)).eq(time(5_000)),
            cast(seconds(col("device")), DataType::Utf8).eq(lit("a")),
            cast(col("time"), DataType::Date32).eq(time(0)),
            col("device").not_eq(lit("a")),
            col("device").in_list(vec![lit("a")], true),
            col("topic").eq(lit("a")),
            col("device").eq(col("field")),
            col("time").eq(lit("soon")),
            col("device").like(lit("a%")),
        ] {
            assert_eq!(Wanted::by(std::slice::from_ref(&condition)), Wanted::ALL, "{condition}");
        }
    }
}
