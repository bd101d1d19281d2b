//! Names of other objects of the cluster that a resource refers to.

use drover_types::ApiError;

/// Longest name of a Secret or a ConfigMap, in bytes.
const BYTES_MAX: usize = 253;

/// Refuses what no Secret or ConfigMap can be called (RFC 1123 subdomains alone can be). A name becomes part of the path of a
/// request, which any other could lead elsewhere; the CRDs have the same as a pattern.
pub fn check(field: &str, name: &str) -> Result<(), ApiError> {
    if name.len() > BYTES_MAX {
        return Err(ApiError::invalid(field, "is too long, in bytes").over(BYTES_MAX, name.len()));
    }
    if name.split('.').all(is_label) {
        return Ok(());
    }
    let message = "is no name of an object: parts of lowercase letters, digits and '-', with dots between them";
    Err(ApiError::invalid(field, format!("{message}, not {name:?}")))
}

fn is_label(text: &str) -> bool {
    let may_be_in = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(may_be_in) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_object_can_be_called_is_let_through() {
        for name in ["a", "thermo-1-tls", "a.b-c.1", &"x".repeat(BYTES_MAX)] {
            assert_eq!(check("f", name), Ok(()), "{name}");
        }
        for name in
            ["", ".", "..", "a..b", "-a", "a-", "a.-b", "My_Secret", "a b", "../../lab/secrets/x", "a/b", "a?b", "ä"]
        {
            let refused = check("f", name).expect_err(name);
            assert_eq!(refused.field.as_deref(), Some("f"));
        }
        let long = check("f", &"x".repeat(BYTES_MAX + 1)).expect_err("too long");
        assert_eq!((long.limit.as_deref(), long.value.as_deref()), (Some("253"), Some("254")));
    }
}
