//! The administrator's token: it opens every interface of the platform.

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;

/// The token itself. Never shown by `Debug`. Cheap to clone.
#[derive(Clone)]
pub struct AdminToken(Arc<str>);

impl AdminToken {
    /// The token of this text; surrounding white space (a file's last newline) is not part of it.
    pub fn new(text: &str) -> Self {
        Self(text.trim().into())
    }

    /// Whether `presented` is the token; takes the same time wherever they differ.
    pub fn matches(&self, presented: &str) -> bool {
        self.0.as_bytes().ct_eq(presented.as_bytes()).into()
    }

    /// The value of an `authorization` header that carries it.
    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.0)
    }

    /// Whether the value of an `authorization` header carries it.
    pub fn authorizes(&self, authorization: &str) -> bool {
        let (scheme, token) = authorization.split_once(' ').unwrap_or_default();
        scheme.eq_ignore_ascii_case("bearer") && self.matches(token.trim())
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_authorizes() {
        let token = AdminToken::new("s3cret\n");
        assert!(token.matches("s3cret"));
        assert!(token.authorizes(&token.bearer()));
        assert!(token.authorizes("bearer s3cret"));
        for wrong in ["", "Bearer", "Bearer ", "s3cret", "Bearer s3cre", "Bearer s3crett", "Basic s3cret"] {
            assert!(!token.authorizes(wrong), "{wrong}");
        }
        assert_eq!(format!("{token:?}"), "AdminToken(hidden)");
    }
}
