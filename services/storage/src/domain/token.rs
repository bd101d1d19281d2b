//! Page tokens: the place where an answer goes on, as text.

use drover_types::{ApiError, RecordId};

use crate::series::Place;

/// Hex digits of a token: 8 bytes of time, 16 of the id.
const DIGITS: usize = 48;

/// A place as a page token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub Place);

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}{}", self.0.time_ms, self.0.id)
    }
}

impl Token {
    /// Reads the token of a request; `None`: it has none.
    pub fn parse(text: &str) -> Result<Option<Place>, ApiError> {
        if text.is_empty() {
            return Ok(None);
        }
        let refused = || ApiError::invalid("page_token", "is no token of an answer before");
        if text.len() != DIGITS || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(refused());
        }
        let time_ms = u64::from_str_radix(&text[..16], 16).map_err(|_| refused())?;
        let id = u128::from_str_radix(&text[16..], 16).map_err(|_| refused())?;
        Ok(Some(Place { time_ms, id: RecordId(id.to_be_bytes()) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_anything_else_is_refused() {
        let place = Place { time_ms: 1_795_000_000_000, id: RecordId([7; 16]) };
        assert_eq!(Token::parse(&Token(place).to_string()), Ok(Some(place)));
        assert_eq!(Token::parse(""), Ok(None));
        let plus = format!("+{}", "0".repeat(47));
        for bad in ["0", &"0".repeat(49), &"g".repeat(48), &plus, &"é".repeat(24)] {
            let refused = Token::parse(bad).expect_err(bad);
            assert_eq!(refused.field.as_deref(), Some("page_token"));
        }
    }
}
