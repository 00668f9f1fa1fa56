//! Static files: which file a request names, whether its conditions hold, and which part of the file it asks for.

mod conditions;
mod date;
mod name;
mod range;
mod validators;

pub use conditions::{Precondition, evaluate_conditions};
pub use name::FileName;
pub use range::{RangeChoice, choose_range};
pub use validators::Validators;
