//! Custom resources of Drover: their types, and the CRDs made from them.
//!
//! The controller that reconciles them is not here yet; `drover crd` prints what [`crds_yaml`] makes.

pub mod crd;

use kube::CustomResourceExt;

/// The CRDs, one YAML document each; the checked-in copy is `deploy/crds/drover.yaml`.
pub fn crds_yaml() -> String {
    [crd::Device::crd(), crd::Rule::crd()]
        .iter()
        .map(|crd| serde_yaml_ng::to_string(crd).expect("a CRD is plain YAML"))
        .map(|document| format!("---\n{document}"))
        .collect()
}
