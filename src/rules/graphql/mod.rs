//! GraphQL: operations that are fixed in the configuration, values of their variables, responses, and limits of
//! requests (the specification of September 2025, and GraphQL over HTTP).

mod measure;
mod operation;
mod request;
mod result;
mod variable;

pub use measure::CostRules;
pub use operation::{FixedOperation, KnownSchema};
pub use request::{GraphqlFailure, GraphqlLimits, GraphqlRequest, KnownDocuments};
pub use result::{FoundResult, GraphqlFault, find_result};
pub use variable::VariableType;
