//! `diff`: prints what a reload would change.

use clap::Args;

use http::Method;

use super::operator::{CommandFailed, Comparison, Operator, comparison, print_changes};
use super::running_gateway::SameFile;

/// Show how a configuration differs from the running one
#[derive(Debug, Args)]
#[command(after_help = "Lines begin with + for additions, - for removals and ~ for changes. Secrets are compared and \
        not shown. The file that the gateway runs is read by the gateway itself, so that its secrets need not be \
        readable here.")]
pub struct Diff {
    /// The gateway and the file
    #[command(flatten)]
    pub operator: Operator,
}

impl Diff {
    /// Prints the differences. The exit code is 0 with and without differences.
    pub fn execute(self) -> u8 {
        let result = self.compare();
        result.map_or_else(
            |code| code,
            |comparison| {
                print_changes(&comparison.changes);
                0
            },
        )
    }

    fn compare(&self) -> Result<Comparison, CommandFailed> {
        let loaded = self.operator.load()?;
        let gateway = self.operator.gateway(loaded.as_ref())?;
        match self.operator.same_file(&gateway)? {
            (SameFile::Yes, _) => comparison(gateway.call(Method::POST, "/diff", Vec::new())?),
            (SameFile::No | SameFile::NoFile | SameFile::Unknown, _) => {
                self.operator.compare(&self.operator.validated(loaded)?)
            }
        }
    }
}
