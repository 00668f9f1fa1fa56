//! What AWS's services exchange: signatures, credentials, and the events and responses of Lambda functions.

mod arn;
mod credentials;
mod event;
mod event_stream;
mod response;
mod signing;

pub use arn::{FunctionName, integration_function};
pub use credentials::{AwsKeys, TemporaryKeys, credentials_of_profile, parse_assumed_role};
pub use event::{BodyText, EventCaller, EventFacts, EventFormat, event};
pub use event_stream::EventFrames;
pub use response::{StreamStart, parse_response};
pub use signing::{RequestToSign, SigningScope, sign};
