//! GraphQL (the specification of September 2025, and GraphQL over HTTP): requests and the size of their operations,
//! execution in rounds over calls, and operations that are fixed in the configuration, with their variables and
//! results.

mod execution;
mod incoming;
mod measure;
mod operation;
mod request;
mod result;
mod text;
mod variable;

pub use execution::{
    CallKey, Engine, FieldCall, FieldResolver, FieldSource, GraphqlError, Prepared, ResolvedCall, Round,
};
pub use incoming::{OperationBatch, parse_body, parse_query};
pub use measure::CostRules;
pub use operation::{FixedOperation, KnownSchema};
pub use request::{GraphqlFailure, GraphqlLimits, GraphqlRequest, KnownDocuments};
pub use result::{FoundResult, GraphqlFault, find_result};
pub use text::ResolverText;
pub use variable::VariableType;
