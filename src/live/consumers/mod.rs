//! The known clients and their credentials: those of the configuration, and those of a file that changes at run time.

mod file;
mod table;
mod written;

pub use file::{ChangeError, ConsumerFile};
pub use table::{Account, ConsumerTable, HmacKey, KnownKey, SigningKey, consumer_digest, key_id};
pub use written::{AllowanceConfig, ConsumerConfig};
