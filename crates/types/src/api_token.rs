//! The text of API tokens, `drt_TENANT.NAME.SECRET`: it says itself whose it is.

/// First characters of every token, so that one is recognised where it leaked.
pub const API_TOKEN_PREFIX: &str = "drt_";

/// The tenant that a token says to be of, and what follows; a tenant has no dot. `None`: it is no API token.
pub fn api_token_tenant(token: &str) -> Option<(&str, &str)> {
    token.strip_prefix(API_TOKEN_PREFIX)?.split_once('.')
}
