//! One call for all who want the same at the same time.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;

/// Work that is done once for all who ask for it while it is in progress.
pub struct SingleFlight<K, V> {
    running: Mutex<HashMap<K, Shared<BoxFuture<'static, Option<V>>>, ahash::RandomState>>,
}

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self { running: Mutex::default() }
    }
}

impl<K, V> std::fmt::Debug for SingleFlight<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SingleFlight").finish_non_exhaustive()
    }
}

/// Ends the work of a key, also when it panics.
struct Ending<K: Eq + Hash, V>(Arc<SingleFlight<K, V>>, K);

impl<K: Eq + Hash, V> Drop for Ending<K, V> {
    fn drop(&mut self) {
        self.0.running.lock().remove(&self.1);
    }
}

impl<K, V> SingleFlight<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Returns the result of the work for a key: that of the work in progress, if there is some, or of `work`. It goes
    /// on in a task of its own when the caller leaves, since others may wait for it. `None` if it panics.
    pub async fn run<F>(self: &Arc<Self>, key: K, work: impl FnOnce() -> F) -> Option<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let result = {
            let mut running = self.running.lock();
            match running.get(&key) {
                Some(result) => result.clone(),
                None => {
                    let (work, ending) = (work(), Ending(Arc::clone(self), key.clone()));
                    let task = tokio::spawn(async move {
                        let _ending = ending;
                        work.await
                    });
                    let result = task.map(Result::ok).boxed().shared();
                    running.insert(key, result.clone());
                    result
                }
            }
        };
        result.await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_work_of_a_key_is_done_once_at_a_time_even_if_its_first_caller_leaves() {
        let (flights, count) = (Arc::new(SingleFlight::default()), Arc::new(AtomicUsize::new(0)));
        let call = |key: u32| {
            let (flights, count) = (Arc::clone(&flights), Arc::clone(&count));
            async move {
                let work = || async move {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    count.fetch_add(1, Ordering::SeqCst) + 1
                };
                flights.run(key, work).await
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(5), call(1)).await.is_err());
        let results = futures::future::join_all((0..20).map(|_| call(1))).await;
        assert!(results.iter().all(|result| *result == Some(1)), "{results:?}");
        assert_eq!((call(1).await, call(2).await), (Some(2), Some(3)));
        assert!(flights.running.lock().is_empty());
    }

    #[tokio::test]
    async fn work_that_panics_ends_too() {
        let flights = Arc::new(SingleFlight::<u8, u8>::default());
        assert_eq!(flights.run(1, || async { panic!("as told") }).await, None);
        assert_eq!(flights.run(1, || async { 7 }).await, Some(7));
    }
}
