//! Values that are kept up to date in the background for the configuration that serves.

use std::fmt::Debug;
use std::sync::Arc;

use futures::future::BoxFuture;

use crate::telemetry::metrics::KeySetState;

/// A value that filters use and that is kept up to date in the background: a key set, a list, a client's state.
pub trait Maintained: Debug + Send + Sync {
    /// Returns its kind, for operators: `key_set`.
    fn kind(&self) -> &'static str;

    /// Keeps it up to date from now on, or updates it now if that has been started. Resolves when a first round is
    /// over, whether it succeeded or not.
    fn maintain(self: Arc<Self>) -> BoxFuture<'static, ()>;

    /// Returns its state as operators see it.
    fn view(&self) -> serde_json::Value;

    /// Returns its state for metrics, if it is a key set.
    fn key_set(&self) -> Option<KeySetState>;

    /// Sets its name for operators: `label` makes a name of its source.
    fn name_for_operators(&self, label: &dyn Fn(&str) -> String);
}
