//! Who a client says it is, as far as a log may hold it.

use std::borrow::Cow;

use drover_mqtt::Connect;

/// Longest part of a name that is logged, in bytes; whoever connects decides how long it is.
const NAME_BYTES_MAX: usize = 128;
/// How secrets begin that a client may send in the place of a name: tokens of ours, and JSON Web Tokens.
const SECRETS: [&str; 2] = ["drv_", "eyJ"];

/// The names of a CONNECT; never its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    pub client: Box<str>,
    pub user_name: Option<Box<str>>,
}

impl Claims {
    /// What `connect` says.
    pub fn of(connect: &Connect<'_>) -> Box<Self> {
        let (client, user_name) = (shown(connect.client_id).into(), connect.user_name.map(|name| shown(name).into()));
        Box::new(Self { client, user_name })
    }
}

fn shown(name: &str) -> Cow<'_, str> {
    if let Some(kind) = SECRETS.into_iter().find(|secret| name.starts_with(secret)) {
        return format!("{kind}…").into();
    }
    if name.len() <= NAME_BYTES_MAX {
        return name.into();
    }
    format!("{}…", &name[..name.floor_char_boundary(NAME_BYTES_MAX)]).into()
}

#[cfg(test)]
mod tests {
    use drover_mqtt::Version;

    use super::*;

    #[test]
    fn names_are_cut_and_secrets_in_their_place_are_not_shown() {
        let long = "ä".repeat(100);
        for (name, expected) in [
            ("d", "d".to_owned()),
            (&long[..128], long[..128].to_owned()),
            (&long[..130], format!("{}…", &long[..128])),
            ("drv_secret", "drv_…".to_owned()),
            ("eyJhbGciOiJub25lIn0", "eyJ…".to_owned()),
        ] {
            let connect = Connect { user_name: Some(name), ..Connect::new(Version::V5, name) };
            let claims = Claims::of(&connect);
            assert_eq!((&*claims.client, claims.user_name.as_deref()), (&*expected, Some(&*expected)));
        }
    }
}
