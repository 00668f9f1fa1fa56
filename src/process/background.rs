//! Work that can wait, on one thread that stands back behind those that serve.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};

use nix::libc;

/// How far it stands back (`nice`): beside a worker it gets a quarter of a processor.
const NICE: i32 = 5;

/// How long it asks to run at a time, in nanoseconds. Whoever asks for less, which is everybody else, takes the
/// processor from it as soon as there is something to do (Linux 6.12 and later; before, this says nothing).
const SLICE: u64 = 100_000_000;

type Job = Box<dyn FnOnce() + Send>;

/// The thread, which ends with this. One and not one for each work, so that two never take two processors, and so
/// that what one work has freed is at hand for the next.
#[derive(Debug)]
pub struct Background(Sender<Job>);

impl Background {
    /// Starts it. To be called within the runtime that its work is to reach.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let (sender, jobs) = channel::<Job>();
        std::thread::Builder::new().name("background".to_owned()).spawn(move || {
            let _runtime = runtime.enter();
            stand_back();
            for job in jobs {
                // The hook has told of it, and whoever waits for the work learns that it has ended.
                let _ = catch_unwind(AssertUnwindSafe(job));
            }
        })?;
        Ok(Self(sender))
    }

    /// Does it when what came before is done.
    pub fn later(&self, work: impl FnOnce() + Send + 'static) {
        // The thread lives for as long as this.
        let _ = self.0.send(Box::new(work));
    }

    /// Does it and waits for what comes of it, which is nothing after a panic.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (sender, result) = tokio::sync::oneshot::channel();
        self.later(move || {
            let _ = sender.send(work());
        });
        result.await.ok()
    }
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
        assert_eq!(background.run(priority).await, Some(NICE));
        assert_ne!(priority(), NICE, "the others do not");
        assert_eq!(background.run(|| -> u32 { panic!("on purpose") }).await, None);
        assert_eq!(background.run(|| 7).await, Some(7));
    }
}
