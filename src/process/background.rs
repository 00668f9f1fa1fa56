//! Work that can wait, on one thread that stands back behind those that serve.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use nix::libc;
use parking_lot::Mutex;
use tokio::runtime::Handle;

/// How far it stands back (`nice`): beside a worker it gets a quarter of a processor.
const NICE: i32 = 5;

/// How long it asks to run at a time, in nanoseconds. Whoever asks for less, which is everybody else, takes the
/// processor from it as soon as there is something to do (Linux 6.12 and later; before, this says nothing).
const SLICE: u64 = 100_000_000;

/// Threads that may be held by what does not answer; one more waits for that.
const MOST_HELD: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

/// The thread, which ends with this. One and not one for each work, so that two never take two processors, and so
/// that what one work has freed is at hand for the next.
#[derive(Debug)]
pub struct Background {
    jobs: Mutex<Sender<Job>>,
    /// Held by each thread.
    threads: Arc<()>,
    runtime: Handle,
}

/// Why nothing came of a work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It has panicked.
    Panicked,
    /// It took too long, and is left to itself.
    TooLong,
}

impl Background {
    /// Starts it. To be called within the runtime that its work is to reach.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start() -> std::io::Result<Self> {
        let runtime = Handle::current();
        let threads = Arc::new(());
        Ok(Self { jobs: Mutex::new(spawn(&runtime, &threads)?), threads, runtime })
    }

    /// Does it when what came before is done.
    pub fn later(&self, work: impl FnOnce() + Send + 'static) {
        // The thread lives for as long as this.
        let _ = self.jobs.lock().send(Box::new(work));
    }

    /// Does it and waits for what comes of it.
    ///
    /// # Errors
    /// When it panics, or is not done within `limit`: a file that does not answer holds a thread for as long as it
    /// likes. What comes next has another thread then.
    pub async fn run<T: Send + 'static>(&self, limit: Duration, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Ended> {
        let (sender, result) = tokio::sync::oneshot::channel();
        self.later(move || {
            let _ = sender.send(work());
        });
        match tokio::time::timeout(limit, result).await {
            Ok(result) => result.map_err(|_| Ended::Panicked),
            Err(_) => {
                if Arc::strong_count(&self.threads) <= MOST_HELD {
                    match spawn(&self.runtime, &self.threads) {
                        // The old one ends with what it has.
                        Ok(jobs) => *self.jobs.lock() = jobs,
                        Err(error) => log::error!("no other thread for what is done in the background: {error}"),
                    }
                }
                Err(Ended::TooLong)
            }
        }
    }
}

fn spawn(runtime: &Handle, threads: &Arc<()>) -> std::io::Result<Sender<Job>> {
    let (sender, jobs) = channel::<Job>();
    let (runtime, here) = (runtime.clone(), Arc::clone(threads));
    std::thread::Builder::new().name("background".to_owned()).spawn(move || {
        let (_runtime, _here) = (runtime.enter(), here);
        stand_back();
        for job in jobs {
            // The hook has told of it, and whoever waits for the work learns that it has ended.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    })?;
    Ok(sender)
}

fn stand_back() {
    let wanted = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: NICE,
        sched_priority: 0,
        sched_runtime: SLICE,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: it concerns the calling thread alone (0), and the structure is as long as it says. Where it is refused
    // nothing changes.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_stands_back_and_outlives_a_panic() {
        let background = Background::start().expect("started");
        // SAFETY: it passes numbers.
        let priority = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let long = Duration::from_secs(60);
        assert_eq!(background.run(long, priority).await, Ok(NICE));
        assert_ne!(priority(), NICE, "the others do not");
        assert_eq!(background.run(long, || -> u32 { panic!("on purpose") }).await, Err(Ended::Panicked));
        assert_eq!(background.run(long, || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn what_hangs_holds_nothing_else_up() {
        let background = Background::start().expect("started");
        let (let_go, for_worker) = channel::<()>();
        let hangs = move || for_worker.recv().is_ok();
        assert_eq!(background.run(Duration::from_millis(1), hangs).await, Err(Ended::TooLong));
        assert_eq!(background.run(Duration::from_secs(60), || 7).await, Ok(7));
        drop(let_go);
    }
}
