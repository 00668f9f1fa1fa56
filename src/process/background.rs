//! Work that can wait, on one thread with a lower priority than the workers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use nix::libc;
use parking_lot::Mutex;
use tokio::runtime::Handle;

/// The thread's `nice` value: beside a worker it gets a quarter of a processor.
const NICE: i32 = 5;

/// The thread's time slice, in nanoseconds. A thread with a shorter slice, which all others have, preempts it as soon
/// as it is runnable (Linux 6.12 and later; earlier kernels ignore this).
const TIME_SLICE: u64 = 100_000_000;

/// The maximum number of threads that hang in a job; after that a job waits for one of them.
const MAX_STUCK_THREADS: usize = 8;

type Job = Box<dyn FnOnce() + Send>;

/// The background thread, which ends with this value. All jobs share one thread, so that two never take two
/// processors, and so that memory that one job has freed is available to the next.
#[derive(Debug)]
pub struct Background {
    jobs: Mutex<Sender<Job>>,
    /// Cloned by each thread, to count them.
    threads: Arc<()>,
    runtime: Handle,
}

/// The reason for which a job has no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobError {
    /// It panicked.
    Panicked,
    /// It took too long, and is no longer awaited.
    TooLong,
}

impl Background {
    /// Starts the thread. It has to be called within the runtime that the jobs use.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub fn start() -> std::io::Result<Self> {
        let runtime = Handle::current();
        let threads = Arc::new(());
        Ok(Self { jobs: Mutex::new(spawn(&runtime, &threads)?), threads, runtime })
    }

    /// Queues a job behind the earlier ones.
    pub fn queue(&self, work: impl FnOnce() + Send + 'static) {
        // The thread lives as long as this value.
        let _ = self.jobs.lock().send(Box::new(work));
    }

    /// Queues a job and waits for its result.
    ///
    /// # Errors
    /// When it panics, or does not end within `limit`: an unresponsive file system can block a thread for any time.
    /// The next job gets another thread then.
    pub async fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JobError> {
        let (sender, result) = tokio::sync::oneshot::channel();
        self.queue(move || {
            let _ = sender.send(work());
        });
        match tokio::time::timeout(limit, result).await {
            Ok(result) => result.map_err(|_| JobError::Panicked),
            Err(_) => {
                if Arc::strong_count(&self.threads) <= MAX_STUCK_THREADS {
                    match spawn(&self.runtime, &self.threads) {
                        // The old thread ends when its present job does.
                        Ok(jobs) => *self.jobs.lock() = jobs,
                        Err(error) => log::error!("no other background thread can be started: {error}"),
                    }
                }
                Err(JobError::TooLong)
            }
        }
    }
}

fn spawn(runtime: &Handle, threads: &Arc<()>) -> std::io::Result<Sender<Job>> {
    let (sender, jobs) = channel::<Job>();
    let (runtime, here) = (runtime.clone(), Arc::clone(threads));
    std::thread::Builder::new().name("background".to_owned()).spawn(move || {
        let (_runtime, _here) = (runtime.enter(), here);
        lower_priority();
        for job in jobs {
            // The panic hook has logged it, and the caller that waits for the result learns that the job has ended.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    })?;
    Ok(sender)
}

fn lower_priority() {
    let wanted = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: NICE,
        sched_priority: 0,
        sched_runtime: TIME_SLICE,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: it affects the calling thread alone (0), and the structure's size is correct. A failure changes
    // nothing.
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
        assert_ne!(priority(), NICE, "only that thread has it");
        assert_eq!(background.run(long, || -> u32 { panic!("on purpose") }).await, Err(JobError::Panicked));
        assert_eq!(background.run(long, || 7).await, Ok(7));
    }

    #[tokio::test]
    async fn what_hangs_holds_nothing_else_up() {
        let background = Background::start().expect("started");
        let (let_go, held) = channel::<()>();
        let hangs = move || held.recv().is_ok();
        assert_eq!(background.run(Duration::from_millis(1), hangs).await, Err(JobError::TooLong));
        assert_eq!(background.run(Duration::from_secs(60), || 7).await, Ok(7));
        drop(let_go);
    }
}
