//! `diff`: what a reload would change.

use clap::Args;

use super::operator::{Operator, print_changes};

/// Show how a configuration differs from the one that runs
#[derive(Debug, Args)]
#[command(
    after_help = "Lines begin with + for what is new, - for what is gone and ~ for what is different. Secrets are compared and not shown."
)]
pub struct Diff {
    /// The gateway and the file
    #[command(flatten)]
    pub operator: Operator,
}

impl Diff {
    /// Shows it. 0 whether there are differences or not.
    pub fn execute(self) -> u8 {
        let result = self.operator.load_right().and_then(|loaded| self.operator.compare(&loaded));
        result.map_or_else(
            |code| code,
            |comparison| {
                print_changes(&comparison.changes);
                0
            },
        )
    }
}
