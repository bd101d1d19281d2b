//! Whoever waits for an answer. A question ends when nobody does, also where it gives way to nobody meanwhile.
//!
//! A join compares pair after pair until it has a batch of those that it lets through; where its condition lets none through,
//! or each row is needed once, that takes minutes. So its condition asks, before each batch of pairs, whether somebody waits.

use std::fmt::{self, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::lit;
use datafusion::physical_plan::joins::utils::JoinFilter;
use drover_types::{ApiError, ErrorCode};

/// Held by who waits for an answer; dropped, nobody does.
#[derive(Default)]
pub struct Waiting(Arc<()>);

impl Waiting {
    /// Who is asked whether this is held.
    pub fn asker(&self) -> Asker {
        Asker(Arc::downgrade(&self.0))
    }
}

/// Knows whether somebody waits.
#[derive(Clone, Debug)]
pub struct Asker(Weak<()>);

impl Asker {
    /// The error ends the question; nobody is there to read it.
    pub fn check(&self) -> Result<()> {
        if self.0.strong_count() > 0 {
            return Ok(());
        }
        let error = ApiError::new(ErrorCode::Cancelled, "nobody waits for the answer any more");
        Err(DataFusionError::External(Box::new(error)))
    }

    /// The filter of a join, with a look at whether somebody waits before each batch of pairs; `None`: it has none.
    pub fn filter(&self, filter: Option<&JoinFilter>) -> JoinFilter {
        let (condition, columns, schema) = match filter {
            Some(filter) => {
                (Arc::clone(filter.expression()), filter.column_indices().to_vec(), Arc::clone(filter.schema()))
            }
            None => (lit(true), Vec::new(), Arc::new(Schema::empty())),
        };
        JoinFilter::new(Arc::new(WhileAsked { condition, asker: self.clone() }), columns, schema)
    }
}

/// A condition that is an error as soon as nobody waits.
#[derive(Debug)]
struct WhileAsked {
    condition: Arc<dyn PhysicalExpr>,
    asker: Asker,
}

impl PartialEq for WhileAsked {
    fn eq(&self, other: &Self) -> bool {
        self.condition.eq(&other.condition) && self.asker.0.ptr_eq(&other.asker.0)
    }
}

impl Eq for WhileAsked {}

impl Hash for WhileAsked {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

impl Display for WhileAsked {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}

impl PhysicalExpr for WhileAsked {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.condition.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.condition.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.condition.return_field(schema)
    }

    fn evaluate(&self, pairs: &RecordBatch) -> Result<ColumnarValue> {
        self.asker.check()?;
        self.condition.evaluate(pairs)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let condition = children.pop().unwrap_or_else(|| Arc::clone(&self.condition));
        Ok(Arc::new(Self { condition, asker: self.asker.clone() }))
    }

    fn fmt_sql(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }
}
