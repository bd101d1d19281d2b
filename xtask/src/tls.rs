//! `cargo xtask test tls`: TLS to Kafka and to Cassandra, cargo features that the gate does not build.
//!
//! They bring a second and a third cryptography library, minutes of building. Only the crates that have them are built
//! again, with what they stand on; cargo keeps these builds beside those of the workspace.

use std::path::Path;

use anyhow::ensure;

use super::cargo;
use super::test::{conclude, in_lanes, suites};

/// Crates, and the feature of each.
const FEATURES: [(&str, &str); 2] = [("drover-bus-kafka", "tls"), ("drover-scylla-kit", "cassandra-tls")];
/// What the names of their tests about it contain.
const TESTS: &str = "tls";

/// Lints both crates with their features, and runs the tests that need them. Needs the headers of OpenSSL.
pub fn run(root: &Path) -> anyhow::Result<()> {
    let mut ended = Vec::new();
    for (package, feature) in FEATURES {
        let chosen = ["--package", package, "--features", feature];
        cargo::run(root, &[&["clippy"][..], &chosen, &["--all-targets", "--quiet", "--", "-D", "warnings"]].concat())?;
        let suites = in_lanes(suites(root, &chosen)?, 1, &[TESTS])?;
        ensure!(suites.iter().any(|suite| suite.tests > 0), "{package} has no test named {TESTS}");
        ended.extend(suites);
    }
    conclude(ended)
}
