//! Pure decisions: functions of their inputs, the time and a random number.
//!
//! No socket, clock, file, runtime or lock shared between workers may be used here. So `explain` can run the code
//! that serves traffic, and tests compare every rule with a naive model.

pub mod aggregation;
pub mod aws;
pub mod balance;
pub mod caching;
pub mod datagrams;
pub mod expressions;
pub mod files;
pub mod frames;
pub mod graphql;
pub mod grpc;
pub mod guard;
pub mod identity;
pub mod limits;
pub mod nearest;
pub mod path;
pub mod payload;
pub mod protocols;
pub mod resilience;
pub mod routing;
pub mod schema;
pub mod soap;
pub mod templating;
pub mod websocket;
