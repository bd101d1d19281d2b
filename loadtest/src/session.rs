//! One run from its scenario to its report.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::books;
use crate::controller::Run;
use crate::live::Live;
use crate::report::Report;
use crate::scenario::Scenario;

/// How a scenario is run.
#[derive(Clone, Debug)]
pub struct Session {
    pub workers: u64,
    /// Where workers come that were started elsewhere; `None`: they are started here.
    pub listen: Option<SocketAddr>,
    /// `drover-load` itself, started again as worker.
    pub executable: PathBuf,
    /// Where reports and books go; under chaos also logs, and the data while it runs.
    pub folder: PathBuf,
    pub is_quiet: bool,
}

impl Session {
    /// Runs `scenario`, checks its ledger, and writes nothing yet but the books.
    pub fn run(&self, scenario: &Scenario) -> anyhow::Result<Report> {
        let folder: &Path = &self.folder;
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let listener = self.listen.map(TcpListener::bind).transpose().context("listening for workers")?;
        let (workers, listener) = (self.workers, listener.as_ref());
        let run = Run { scenario, workers, listener, executable: &self.executable, folder };
        let gathered = run.go(&mut Live::new(self.is_quiet))?;
        let ledger = if scenario.ledger { books::check(scenario, &gathered.journals)? } else { Vec::new() };
        Ok(Report::new(scenario, &gathered, self.workers, ledger))
    }
}
