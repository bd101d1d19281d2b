//! What a statement may be before anybody parses it: short, and of few parts.
//!
//! A chain of operators, joins or casts becomes a tree as deep as the chain is long, and what walks such a tree needs stack
//! for each level. So the parts are counted, and threads have stack for as many levels ([`STACK_BYTES`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{ObjectName, Query, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use drover_types::ApiError;

use super::errors::too_many;

/// Longest SQL, in bytes.
const BYTES_MAX: usize = 64 * 1024;
/// Most names, keywords, operators and parentheses. Numbers, texts and commas are not counted: lists may be long.
const PARTS_MAX: usize = 2_500;
/// How many times over a name of `WITH` may be put in where it is used, in others that are put in themselves.
const USES_MAX: usize = 64;
/// Stack of a thread that works on questions: 25 KB for each part. It is memory only as far as it is used.
pub const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Refuses what is too long or has too many parts.
pub fn check(sql: &str) -> Result<(), ApiError> {
    if sql.len() > BYTES_MAX {
        return Err(too_many("bytes", BYTES_MAX, sql.len()));
    }
    // What cannot even be cut into tokens, the parser tells of.
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize() else { return Ok(()) };
    // All combinations of its columns are made before anybody counts them.
    if tokens.iter().any(|token| matches!(token, Token::Word(word) if word.keyword == Keyword::CUBE)) {
        return Err(ApiError::invalid("sql", "CUBE is not supported, GROUPING SETS are"));
    }
    let parts = tokens.iter().filter(|token| is_part(token)).count();
    if parts > PARTS_MAX {
        return Err(too_many("names, keywords and operators", PARTS_MAX, parts));
    }
    Ok(())
}

/// Refuses a parsed statement whose names of `WITH` would be put in too often: the engine makes a plan of each use, and 40
/// names, each of which uses the one before twice, are 2^40.
pub fn check_names(statement: &Statement) -> Result<(), ApiError> {
    let statement = match statement {
        Statement::Statement(statement) => statement,
        Statement::Explain(explain) => return check_names(&explain.statement),
        _ => return Err(ApiError::invalid("sql", "only statements that read are supported")),
    };
    let mut names = Names::default();
    let (ControlFlow::Continue(()) | ControlFlow::Break(())) = statement.visit(&mut names);
    // Of all uses at most as many are put in as the uses of each name, multiplied.
    let uses = names.defined.iter().map(|name| names.used.get(name).copied().unwrap_or(0).max(1));
    let uses = uses.fold(1_usize, usize::saturating_mul);
    if uses > USES_MAX {
        let message = format!("uses names of WITH {uses} times, in each other, limit is {USES_MAX}");
        return Err(ApiError::invalid("sql", message).over(USES_MAX, uses));
    }
    Ok(())
}

/// Names of `WITH`, and how often each table's name stands anywhere; in small letters.
#[derive(Default)]
struct Names {
    defined: BTreeSet<String>,
    used: BTreeMap<String, usize>,
}

impl Visitor for Names {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let tables = query.with.iter().flat_map(|with| &with.cte_tables);
        self.defined.extend(tables.map(|table| table.alias.name.value.to_lowercase()));
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let name = relation.0.last().and_then(|part| part.as_ident());
        if let Some(name) = name {
            *self.used.entry(name.value.to_lowercase()).or_default() += 1;
        }
        ControlFlow::Continue(())
    }
}

const fn is_part(token: &Token) -> bool {
    !matches!(
        token,
        Token::Whitespace(_) | Token::Comma | Token::Number(..) | Token::SingleQuotedString(_) | Token::EOF
    )
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;

    #[test]
    fn a_statement_is_checked_at_its_limits() {
        let parts = |count: usize| format!("SELECT 1{}", " + 1".repeat(count - 1));
        assert_eq!((check(&parts(PARTS_MAX)), check("")), (Ok(()), Ok(())));
        let refused = check(&parts(PARTS_MAX + 1)).expect_err("refused");
        assert_eq!((refused.field.as_deref(), refused.value.as_deref()), (Some("sql"), Some("2501")));
        let long = |bytes: usize| format!("SELECT '{}'", "x".repeat(bytes - 9));
        assert_eq!(check(&long(BYTES_MAX)), Ok(()));
        assert!(check("SELECT 1 GROUP BY cube(1)").is_err() && check("SELECT \"cube\"").is_ok());
        assert_eq!(check(&long(BYTES_MAX + 1)).expect_err("refused").limit.as_deref(), Some("65536"));
    }

    #[test]
    fn names_of_with_may_be_used_but_not_double_each_other() {
        let judged = |sql: &str| {
            let parsed = DFParser::parse_sql_with_dialect(sql, &PostgreSqlDialect {}).expect("SQL").pop_front();
            check_names(&parsed.expect("a statement"))
        };
        let doubled = |count: usize| {
            let next = |i| format!(", C{} AS (SELECT * FROM c{i} UNION SELECT * FROM c{i})", i + 1);
            let names: String = (0..count).map(next).collect();
            format!("WITH c0 AS (SELECT 1){names} SELECT * FROM c{count}")
        };
        assert_eq!((judged(&doubled(6)), judged("SELECT * FROM a JOIN a USING (b)")), (Ok(()), Ok(())));
        let refused = judged(&doubled(7)).expect_err("refused");
        assert_eq!((refused.limit.as_deref(), refused.value.as_deref()), (Some("64"), Some("128")));
        let hidden = format!("EXPLAIN SELECT * FROM (SELECT 1 WHERE EXISTS ({}))", doubled(40));
        assert!(judged(&hidden).is_err() && judged("COPY (SELECT 1) TO 'x'").is_err());
    }

    #[test]
    fn long_lists_are_no_parts() {
        let list = vec!["'a', 1"; 6_000].join(", ");
        assert_eq!(check(&format!("SELECT 1 WHERE 'a' IN ({list})")), Ok(()));
    }
}
