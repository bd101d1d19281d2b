//! `drover crd`: the custom resources of Drover, printed for `kubectl apply -f -` or applied; and their objects let go where no
//! operator runs any more.

use anyhow::Context as _;

#[derive(Debug, clap::Args)]
pub struct CrdArgs {
    /// Apply them to the cluster that the pod is in, or that KUBECONFIG names, instead of printing them.
    #[arg(long)]
    apply: bool,
    /// Take the operator's finalizer off all objects of that cluster, so that they and their namespaces can be deleted where no
    /// operator runs any more. What they stand for stays in the registry.
    #[arg(long, conflicts_with = "apply")]
    remove_finalizers: bool,
    /// Only of the objects in this namespace; may be repeated
    #[arg(long = "namespace", value_name = "NAMESPACE", requires = "remove_finalizers")]
    namespaces: Vec<String>,
}

impl CrdArgs {
    pub fn run(self) -> anyhow::Result<()> {
        if !self.apply && !self.remove_finalizers {
            print!("{}", drover_operator::crds_yaml());
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
        if self.remove_finalizers {
            let objects = runtime.block_on(drover_operator::remove_finalizers(&self.namespaces))?;
            println!("finalizers removed: {objects}");
            return Ok(());
        }
        for name in runtime.block_on(drover_operator::apply_crds())? {
            println!("{name} applied");
        }
        Ok(())
    }
}
