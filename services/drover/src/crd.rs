//! `drover crd`: the custom resources of Drover, printed for `kubectl apply -f -` or applied.

use anyhow::Context as _;

#[derive(Debug, clap::Args)]
pub struct CrdArgs {
    /// Apply them to the cluster that the pod is in, or that KUBECONFIG names, instead of printing them.
    #[arg(long)]
    apply: bool,
}

impl CrdArgs {
    pub fn run(self) -> anyhow::Result<()> {
        if !self.apply {
            print!("{}", drover_operator::crds_yaml());
            return Ok(());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
        for name in runtime.block_on(drover_operator::apply_crds())? {
            println!("{name} applied");
        }
        Ok(())
    }
}
