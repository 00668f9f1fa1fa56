//! `diff`: prints what a reload would change.

use clap::Args;

use super::operator::{Operator, print_changes};

/// Show how a configuration differs from the running one
#[derive(Debug, Args)]
#[command(after_help = "Lines begin with + for additions, - for removals and ~ for changes. Secrets are compared and \
        not shown.")]
pub struct Diff {
    /// The gateway and the file
    #[command(flatten)]
    pub operator: Operator,
}

impl Diff {
    /// Prints the differences. The exit code is 0 with and without differences.
    pub fn execute(self) -> u8 {
        let result = self.operator.load_valid().and_then(|loaded| self.operator.compare(&loaded));
        result.map_or_else(
            |code| code,
            |comparison| {
                print_changes(&comparison.changes);
                0
            },
        )
    }
}
