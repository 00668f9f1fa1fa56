//! `schema`: prints the JSON Schema of a configuration.

use clap::Args;

/// Print the JSON Schema of a configuration, for editors
#[derive(Debug, Args)]
pub struct Schema {}

/// Returns the schema as it is printed and stored in conf/schema.json.
pub fn text() -> String {
    format!("{:#}\n", crate::config::published_schema())
}

impl Schema {
    /// Prints the schema.
    pub fn execute(self) -> u8 {
        let _ = std::io::Write::write_all(&mut std::io::stdout(), text().as_bytes());
        0
    }
}
