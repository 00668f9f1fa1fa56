//! GraphQL (specification of October 2021): its requests over HTTP, the size of a query, and its execution in rounds.

mod execution;
mod limits;
mod request;
mod text;

pub use execution::{
    CallKey, Engine, FieldCall, FieldResolver, FieldSource, GraphqlError, Prepared, ResolvedCall, Round,
};
pub use limits::{QueryLimits, QuerySize, operations};
pub use request::{GraphqlBatch, GraphqlRequest, parse_body, parse_query};
pub use text::ResolverText;
