//! Installing the CRDs: what `drover crd --apply` does, before what needs them starts.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};

/// Manager of the fields of CRDs.
const MANAGER: &str = "drover-crds";

/// Why the CRDs are as they were.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error(transparent)]
    Kubernetes(#[from] kube::Error),
    #[error("{crd} stores version {version}, which this executable does not know; use one that is as new as the CRD")]
    Newer { crd: String, version: String },
}

/// Applies CRDs, all of them or, where objects of one are stored in a version that it does not have, none; answers their
/// names. What is newer within a version is not told apart.
pub async fn apply(client: Client, crds: &[CustomResourceDefinition]) -> Result<Vec<String>, InstallError> {
    let api = Api::<CustomResourceDefinition>::all(client);
    for crd in crds {
        if let Some(there) = api.get_opt(&crd.name_any()).await? {
            refuse_newer(crd, &there)?;
        }
    }
    let mut names = Vec::with_capacity(crds.len());
    for crd in crds {
        let name = crd.name_any();
        api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(crd)).await?;
        names.push(name);
    }
    Ok(names)
}

/// Objects in a version that the CRD would have no more could not be read again.
fn refuse_newer(crd: &CustomResourceDefinition, there: &CustomResourceDefinition) -> Result<(), InstallError> {
    let stored = there.status.as_ref().and_then(|status| status.stored_versions.as_ref()).into_iter().flatten();
    let is_known = |version: &&String| crd.spec.versions.iter().any(|known| known.name == **version);
    match stored.into_iter().find(|version| !is_known(version)) {
        Some(version) => Err(InstallError::Newer { crd: crd.name_any(), version: version.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use kube::CustomResourceExt as _;

    use super::*;

    #[test]
    fn a_crd_that_stores_a_newer_version_is_left_as_it_is() {
        let crd = crate::crd::Rule::crd();
        let stored = |versions: &[&str]| {
            let status = serde_json::json!({"conditions": [], "storedVersions": versions});
            let status = serde_json::from_value(status).expect("a status");
            CustomResourceDefinition { status: Some(status), ..crd.clone() }
        };
        assert!(refuse_newer(&crd, &crd).is_ok());
        assert!(refuse_newer(&crd, &stored(&["v1alpha1"])).is_ok());
        let refused = refuse_newer(&crd, &stored(&["v1alpha1", "v1beta1"])).expect_err("newer");
        assert!(refused.to_string().contains("rules.drover.dev stores version v1beta1"), "{refused}");
    }
}
