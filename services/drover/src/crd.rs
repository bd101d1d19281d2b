//! `drover crd`: the custom resources of Drover, for `kubectl apply -f -`.

/// Prints the CRDs as YAML documents.
pub fn run() {
    print!("{}", drover_operator::crds_yaml());
}
