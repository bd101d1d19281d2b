//! What a planned question may be: of bounded size, without what the engine works on unboundedly, and giving way.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, Operator};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::HashJoinExec;
use drover_types::ApiError;

use super::asker::Asker;
use super::errors::{told, too_many};
use super::functions::is_left_out;

/// Most operators of a plan: a name of `WITH` counts as often as it is used.
const OPERATORS_MAX: usize = 2_000;
/// Most tables that a question reads; each use counts.
const TABLES_MAX: usize = 16;
/// Most columns of an answer.
const COLUMNS_MAX: usize = 256;
/// How many times over a column may occur in what a column of the answer is made of, sub-selects put into each other.
const COPIES_MAX: usize = 1_000;

/// Refuses what is too large, and what is left out of the language (ADR 50).
pub fn check(plan: &LogicalPlan) -> Result<(), ApiError> {
    let columns = plan.schema().fields();
    if columns.len() > COLUMNS_MAX {
        return Err(too_many("columns in the answer", COLUMNS_MAX, columns.len()));
    }
    for (i, column) in columns.iter().enumerate() {
        if columns[..i].iter().any(|other| other.name() == column.name()) {
            let message = format!("two columns of the answer are called {0:?}: name one of them by AS", column.name());
            return Err(ApiError::invalid("sql", message));
        }
    }
    let (mut operators, mut tables) = (0, 0);
    // Each with how many times over a column of it may occur above.
    let mut open = vec![(plan.clone(), 1_usize)];
    while let Some((plan, copies)) = open.pop() {
        operators += 1;
        if operators > OPERATORS_MAX {
            return Err(too_many("operators", OPERATORS_MAX, operators));
        }
        match &plan {
            LogicalPlan::TableScan(_) => tables += 1,
            LogicalPlan::Window(_) => return Err(left_out("window functions (OVER) are")),
            LogicalPlan::Values(_) => return Err(left_out("VALUES is")),
            LogicalPlan::RecursiveQuery(_) => return Err(left_out("WITH RECURSIVE is")),
            _ => {}
        }
        if tables > TABLES_MAX {
            return Err(too_many("tables, each as often as it is read", TABLES_MAX, tables));
        }
        let (mut copies_below, mut selects) = (copies, Vec::new());
        for expr in plan.expressions() {
            let used = inspect(&expr, &mut selects)?;
            if matches!(plan, LogicalPlan::Projection(_)) {
                copies_below = copies_below.max(copies.saturating_mul(used));
            }
        }
        if copies_below > COPIES_MAX {
            return Err(too_many("copies of a column in another, put into each other", COPIES_MAX, copies_below));
        }
        open.extend(plan.inputs().into_iter().map(|input| (input.clone(), copies_below)));
        open.extend(selects.into_iter().map(|select| (Arc::unwrap_or_clone(select), copies)));
    }
    Ok(())
}

/// How often columns occur in an expression; the sub-selects in it are added to `selects`.
fn inspect(expr: &Expr, selects: &mut Vec<Arc<LogicalPlan>>) -> Result<usize, ApiError> {
    let (mut used, mut barred) = (0, None);
    let walked = expr.apply(|part| {
        match part {
            Expr::Column(_) => used += 1,
            Expr::BinaryExpr(binary) if binary.op == Operator::StringConcat => barred = Some("||".to_owned()),
            Expr::ScalarFunction(function) if is_left_out(function.name()) => barred = Some(function.name().to_owned()),
            Expr::AggregateFunction(function) if is_left_out(function.func.name()) => {
                barred = Some(function.func.name().to_owned());
            }
            Expr::ScalarSubquery(select) => selects.push(Arc::clone(&select.subquery)),
            Expr::Exists(exists) => selects.push(Arc::clone(&exists.subquery.subquery)),
            Expr::InSubquery(within) => selects.push(Arc::clone(&within.subquery.subquery)),
            Expr::SetComparison(compared) => selects.push(Arc::clone(&compared.subquery.subquery)),
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(told)?;
    match barred {
        Some(name) => Err(left_out(&format!("{name} is"))),
        None => Ok(used),
    }
}

fn left_out(what: &str) -> ApiError {
    ApiError::invalid("sql", format!("{what} not supported"))
}

/// The plan with joins that let others work between two of their answers, can be given up there, and end when nobody waits.
pub fn giving_way(plan: Arc<dyn ExecutionPlan>, asker: &Asker) -> Result<Arc<dyn ExecutionPlan>, ApiError> {
    let mut others = false;
    let paced = plan.transform_up(|node| {
        let Some(join) = node.downcast_ref::<HashJoinExec>() else {
            // Of whichever kind: this one alone is planned where columns are equal; the others compare all with all.
            others |= node.name().ends_with("JoinExec");
            return Ok(Transformed::no(node));
        };
        let join = join.builder().with_filter(Some(asker.filter(join.filter()))).build_exec()?;
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(join)) as Arc<dyn ExecutionPlan>))
    });
    let paced = paced.map_err(told)?.data;
    if others { Err(left_out("a join without a column that is equal in both tables is")) } else { Ok(paced) }
}
