//! `schema`: the JSON Schema of a configuration.

use clap::Args;

/// Print the JSON Schema of a configuration, for editors
#[derive(Debug, Args)]
pub struct Schema {}

/// The schema as it is printed and kept in conf/schema.json.
pub fn text() -> String {
    format!("{:#}\n", crate::config::schema())
}

impl Schema {
    /// Prints it.
    pub fn execute(self) -> u8 {
        let _ = std::io::Write::write_all(&mut std::io::stdout(), text().as_bytes());
        0
    }
}
