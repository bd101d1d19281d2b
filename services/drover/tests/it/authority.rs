//! Certificate authorities of tenants, from the command line to the registry. What they register is shown in `tests/e2e`.

use serde_json::json;

use crate::platform::Platform;

fn file(platform: &Platform, certificate: &str) -> String {
    let authority = json!({
        "apiVersion": "drover.dev/v1alpha1", "kind": "CertificateAuthority", "metadata": {"name": "works"},
        "spec": {"certificate": certificate, "labels": {"site": "north"}, "template": {"type": "lamp"}},
    });
    platform.file("works.json", &authority.to_string())
}

#[test]
fn an_authority_is_applied_shown_and_deleted_and_its_subject_is_one_tenants() {
    let platform = Platform::start();
    let own = std::fs::read_to_string(platform.data.path().join("pki/ca.pem")).expect("the platform's authority");
    let applied = platform.says(&["authority", "apply", "-f", &file(&platform, &own), "-n", "home"]);
    assert_eq!(applied, "certificateauthority works is applied\n");
    let shown = platform.json(&["authority", "get", "works", "-n", "home"]);
    assert_eq!((&shown["spec"]["certificate"], &shown["spec"]["template"]["type"]), (&json!(own), &json!("lamp")));
    let listed = platform.says(&["authority", "list", "-n", "home"]);
    assert!(listed.contains("works") && listed.contains("lamp"), "{listed}");

    let taken = platform.refuses(&["authority", "apply", "-f", &file(&platform, &own), "-n", "away"]);
    assert!(taken.contains("spec.certificate: the subject of this authority belongs to another tenant"), "{taken}");
    let nonsense = platform.refuses(&["authority", "apply", "-f", &file(&platform, "pem"), "-n", "home"]);
    assert!(nonsense.contains("certificateauthority works: spec.certificate: "), "{nonsense}");

    assert_eq!(
        platform.says(&["authority", "delete", "works", "-n", "home"]),
        "certificateauthority works is deleted\n"
    );
    platform.refuses(&["authority", "get", "works", "-n", "home"]);
    platform.says(&["authority", "apply", "-f", &file(&platform, &own), "-n", "away"]);
}
