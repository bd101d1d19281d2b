//! What an object may be called, as Kubernetes takes names; and what a label may.
//!
//! One rule for whoever takes such a name; the CRDs have the same as a pattern.

use crate::ApiError;
use crate::limits::KEY_BYTES_MAX;

/// Longest name, in bytes.
const BYTES_MAX: usize = 253;

/// Refuses what is no RFC 1123 subdomain: labels of a-z, 0-9 and -, joined by dots. A name becomes part of the path of a
/// request, which any other could lead elsewhere.
pub fn subdomain(field: &str, name: &str) -> Result<(), ApiError> {
    if name.len() > BYTES_MAX {
        return Err(ApiError::invalid(field, "name is too long, in bytes").over(BYTES_MAX, name.len()));
    }
    if name.split('.').all(is_label) {
        return Ok(());
    }
    let message =
        "a name is a-z, 0-9 and -, in parts joined by dots, each of which begins and ends with a letter or digit";
    Err(ApiError::invalid(field, message).over("RFC 1123 subdomain", name))
}

/// Refuses what is no key of a label or an attribute, nor the name of a device's type or of a field.
pub fn key(field: &str, key: &str) -> Result<(), ApiError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(
            ApiError::invalid(field, format!("a key has 1 to {KEY_BYTES_MAX} bytes")).over(KEY_BYTES_MAX, key.len())
        );
    }
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
    if key.chars().all(legal) {
        return Ok(());
    }
    Err(ApiError::invalid(field, "a key is made of A-Z, a-z, 0-9 and . _ / -").over("A-Za-z0-9._/-", key))
}

fn is_label(text: &str) -> bool {
    let may_be_in = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(may_be_in) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_subdomains_up_to_their_limit() {
        for good in ["a", "0", "thermo-1-tls", "a-b.c0", "a.b-c.1", &"a".repeat(BYTES_MAX)] {
            assert_eq!(subdomain("metadata.name", good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", ".a", "a.", "a..b", "-a", "a-", "a.-b", "A", "a_b", "a b", "a?b", "ä", "../../a/b"]
        {
            let refused = subdomain("metadata.name", bad).expect_err(bad);
            let message = ApiError::invalid("metadata.name", refused.message.clone()).over("RFC 1123 subdomain", bad);
            assert_eq!(refused, message, "{bad}");
        }
        let long = subdomain("metadata.name", &"a".repeat(BYTES_MAX + 1)).expect_err("too long");
        assert_eq!((long.limit.as_deref(), long.value.as_deref()), (Some("253"), Some("254")));
    }
}
