//! What a statement may be before anybody parses it: short, and of few parts.
//!
//! A chain of operators, joins or casts becomes a tree as deep as the chain is long, and what walks such a tree needs stack
//! for each level. So the parts are counted, and threads have stack for as many levels ([`STACK_BYTES`]).

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use drover_types::ApiError;

/// Longest SQL, in bytes.
const BYTES_MAX: usize = 64 * 1024;
/// Most names, keywords, operators and parentheses. Numbers, texts and commas are not counted: lists may be long.
const PARTS_MAX: usize = 2_500;
/// Stack of a thread that works on questions: 25 KB for each part. It is memory only as far as it is used.
pub const STACK_BYTES: usize = 64 * 1024 * 1024;

/// Refuses what is too long or has too many parts.
pub fn check(sql: &str) -> Result<(), ApiError> {
    let refused = |what: &str, limit: usize, found: usize| {
        Err(ApiError::invalid("sql", format!("has {found} {what}, limit is {limit}")).over(limit, found))
    };
    if sql.len() > BYTES_MAX {
        return refused("bytes", BYTES_MAX, sql.len());
    }
    // What cannot even be cut into tokens, the parser tells of.
    let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize() else { return Ok(()) };
    // All combinations of its columns are made before anybody counts them.
    if tokens.iter().any(|token| matches!(token, Token::Word(word) if word.keyword == Keyword::CUBE)) {
        return Err(ApiError::invalid("sql", "CUBE is not supported, GROUPING SETS are"));
    }
    let parts = tokens.iter().filter(|token| is_part(token)).count();
    if parts > PARTS_MAX {
        return refused("names, keywords and operators", PARTS_MAX, parts);
    }
    Ok(())
}

const fn is_part(token: &Token) -> bool {
    !matches!(
        token,
        Token::Whitespace(_) | Token::Comma | Token::Number(..) | Token::SingleQuotedString(_) | Token::EOF
    )
}

#[cfg(test)]
mod tests {
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
    fn long_lists_are_no_parts() {
        let list = vec!["'a', 1"; 6_000].join(", ");
        assert_eq!(check(&format!("SELECT 1 WHERE 'a' IN ({list})")), Ok(()));
    }
}
