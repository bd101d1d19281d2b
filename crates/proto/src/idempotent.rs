//! Which methods may be called again when it is unknown whether the first call was carried out.
//!
//! Their `idempotency_level` in `proto/` says so; this table is made from it.

/// Paths of these methods, `/drover.registry.v1.Registry/GetRule` for example.
const IDEMPOTENT: &[&str] = include!(concat!(env!("OUT_DIR"), "/idempotent.rs"));

/// Whether the method at this path may be called twice with the effect of once.
pub fn is_idempotent(path: &str) -> bool {
    IDEMPOTENT.contains(&path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_reads_and_what_is_named_by_an_id_may_be_called_again() {
        for again in [
            "registry.v1.Registry/Authenticate",
            "registry.v1.Registry/AuthenticateAll",
            "registry.v1.Topics/FindTopicOwners",
            "ingress.v1.Ingress/Publish",
            "rules.v1.Rules/GetStatus",
            "shadow.v1.Shadow/UpdateShadow",
            "shadow.v1.Shadow/DeleteShadow",
            "shadow.v1.Commands/SendCommand",
            "storage.v1.Storage/GetRange",
        ] {
            assert!(is_idempotent(&format!("/drover.{again}")), "{again}");
        }
        for once in ["registry.v1.Registry/CreateDevice", "registry.v1.Registry/IssueToken", "none.v1.None/Get"] {
            assert!(!is_idempotent(&format!("/drover.{once}")), "{once}");
        }
    }
}
