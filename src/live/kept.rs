//! What is kept up to date in the background for the configuration that serves.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;

/// Something that filters use and that is kept up to date in the background: a key set, a list, a client's state.
pub trait Kept: Debug + Send + Sync {
    /// Returns what kind it is, for operators: `key_set`.
    fn kind(&self) -> &'static str;

    /// Looks after it from now on, or brings it up to date if somebody does already. Resolves when a first round is over,
    /// whatever came of it.
    fn look_after(self: Arc<Self>) -> BoxFuture<'static, ()>;

    /// Returns what operators see of it.
    fn view(&self) -> serde_json::Value;

    /// Returns where it comes from, and seconds since it was last brought up to date.
    fn age(&self) -> Option<(String, f64)>;

    /// Names it as operators know it: `label` makes a name of where it comes from.
    fn name_for_operators(&self, label: &dyn Fn(&str) -> String);
}
