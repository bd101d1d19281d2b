//! Who asks, and what they may do: the administrator everything; the holder of an API token what its role allows, in
//! its tenant only (P9).
//!
//! Domain layer, no I/O.

use drover_types::{ApiError, ErrorCode, TenantId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the holder of an API token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Read.
    Viewer,
    /// Read and change: devices with their credentials and shadows, policies, rules, functions.
    Editor,
    /// All of that, and the tenant's API tokens, certificate authorities and audit trail.
    Admin,
}

/// An authenticated caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    Administrator,
    Token { tenant: TenantId, name: String, role: Role },
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Read,
    Change,
    /// Makes or takes away rights of callers, or who may issue identities of devices, or looks at what callers have done.
    Administer,
}

impl Caller {
    /// Whether the caller may do this in `tenant`, as the path names it. A refusal says nothing about what is there.
    pub fn check(&self, tenant: &str, deed: Deed) -> Result<(), ApiError> {
        let Self::Token { tenant: own, role, .. } = self else { return Ok(()) };
        let refused = |message: String| Err(ApiError::new(ErrorCode::PermissionDenied, message));
        if own.as_str() != tenant {
            return refused(format!(
                "the token is one of tenant {own}: its paths are those under /api/v1/tenants/{own}"
            ));
        }
        match (deed, role) {
            (Deed::Read, _) | (Deed::Change, Role::Editor | Role::Admin) | (Deed::Administer, Role::Admin) => Ok(()),
            (Deed::Change, Role::Viewer) => refused("the role viewer may read and change nothing".to_owned()),
            (Deed::Administer, Role::Viewer | Role::Editor) => refused(
                "API tokens, changes of certificate authorities, and the audit trail are for the role admin".to_owned(),
            ),
        }
    }

    /// Whether it may change anything in its tenant.
    pub fn is_editor(&self) -> bool {
        matches!(self, Self::Administrator | Self::Token { role: Role::Editor | Role::Admin, .. })
    }

    /// Who it is, for whoever looks at what it made.
    pub fn title(&self) -> String {
        match self {
            Self::Administrator => "administrator".to_owned(),
            Self::Token { name, .. } => format!("token {name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_its_tenant_and_its_role() {
        let token = |role| Caller::Token { tenant: TenantId::new("home").expect("valid"), name: "ci".into(), role };
        let allowed = |caller: &Caller, tenant| {
            [Deed::Read, Deed::Change, Deed::Administer].map(|deed| caller.check(tenant, deed).is_ok())
        };
        assert_eq!(allowed(&Caller::Administrator, "any"), [true, true, true]);
        assert_eq!(allowed(&token(Role::Admin), "home"), [true, true, true]);
        assert_eq!(allowed(&token(Role::Editor), "home"), [true, true, false]);
        assert_eq!(allowed(&token(Role::Viewer), "home"), [true, false, false]);
        for other in ["away", "default", "", "HOME", "%68ome"] {
            assert_eq!(allowed(&token(Role::Admin), other), [false, false, false], "{other}");
        }
    }
}
