//! A simulation of visits on random schedules and a virtual clock: targets fail and recover, tries end in every way
//! or not at all, time passes meanwhile. After each step the counters are compared with the active visits, and each
//! try with a model of what its visit did before. A failure prints its seed.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use fastrand::Rng;
use http::{HeaderMap, Method};
use pingora::http::ResponseHeader;

use super::{Caller, ResendConditions, ResendKind, Try, Visit};
use crate::exchange::Reason;
use crate::exchange::clock::{VirtualClock, nanos};
use crate::rules::identity::RequestKey;
use crate::rules::routing::RequestFacts;
use crate::upstreams::discovery::TargetChanges;
use crate::upstreams::failure::Failure;
use crate::upstreams::gate::{Class, GateShape};
use crate::upstreams::pool::Pool;
use crate::upstreams::sessions::Sessions;
use crate::upstreams::shape::SessionKey;
use crate::upstreams::simulation::{backends, shape};
use crate::upstreams::sticky::Sticky;
use crate::upstreams::upstream::{Retry, Upstream};

const SCHEDULES: u64 = 6_000;

/// The requests and retries of one upstream, each with its time.
#[derive(Default)]
struct ModelCounts {
    requests: Vec<u64>,
    retries: Vec<u64>,
}

/// Returns a client by its number.
fn caller(client: u8) -> Caller<'static> {
    static HEADERS: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
    let (method, headers, client) = (&Method::GET, &*HEADERS, [10, 0, 0, client].into());
    Caller {
        request: Some(RequestFacts { host: "a", path: "/", query: None, method, headers, client }),
        ..Caller::default()
    }
}

/// An active visit, with its history.
struct Running {
    visit: Visit,
    client: u8,
    /// The second try of a hedged request.
    beside: Option<Try>,
    /// The targets that it may not use again before all were tried.
    excluded: Vec<SocketAddr>,
    tries: u32,
    attempts: u32,
    /// Whether a try is active.
    trying: bool,
    /// Whether a response has come.
    responded: bool,
}

struct VisitWorld {
    upstream: Arc<Upstream>,
    /// The counts of the upstream, and of its backup.
    counted: [ModelCounts; 2],
    failing: [bool; 32],
    running: Vec<Running>,
    start: (Instant, u64),
    now: u64,
}

fn upstream(random: &mut Rng, ports: std::ops::RangeInclusive<usize>, backup: Option<Arc<Upstream>>) -> Arc<Upstream> {
    let mut shape = shape(random);
    shape.gate = GateShape { requests: random.u32(1..8), ..shape.gate };
    let sessions = random.bool().then(Arc::<Sessions>::default);
    shape.sessions = sessions.as_ref().map(|_| SessionKey::new(None, [7; 32]));
    let ttl = nanos(Duration::from_secs(random.u64(1..20)));
    let sticky = sessions.map(|sessions| Sticky::Table { key: RequestKey::Address, ttl, sessions });
    let pool = Pool::new(shape, None, Arc::new(TargetChanges::default()));
    pool.members().replace(&backends(ports));
    let backoff = nanos(Duration::from_millis(random.u64(0..300)));
    let retry = Retry {
        attempts: random.u32(1..6),
        connect: random.u8(..4) > 0,
        reset: random.bool(),
        timeout: random.bool(),
        statuses: Some("503".parse().expect("a status")),
        grpc_statuses: Vec::new(),
        per_try: random.bool().then(|| Duration::from_millis(random.u64(1..2_000))),
        backoff,
        backoff_max: backoff * random.u64(1..6),
        hedge_after: None,
    };
    Arc::new(Upstream {
        name: "simulated".to_owned(),
        pool,
        key: None,
        retry,
        sticky,
        backup,
        metrics: OnceLock::new(),
    })
}

fn response(status: u16) -> ResponseHeader {
    ResponseHeader::build(status, None).expect("a head")
}

impl VisitWorld {
    fn new(random: &mut Rng) -> Self {
        let backups = 20 + random.usize(0..3);
        let backup = (backups > 20).then(|| upstream(random, 21..=backups, None));
        let (count, now) = (random.usize(1..6), nanos(Duration::from_secs(100_000)));
        let start = (Instant::now(), now);
        let upstream = upstream(random, 1..=count, backup);
        Self { upstream, counted: Default::default(), failing: [false; 32], running: Vec::new(), start, now }
    }

    /// Returns the virtual time as visits use it.
    fn instant(&self) -> Instant {
        self.start.0 + Duration::from_nanos(self.now - self.start.1)
    }

    fn counted(&mut self, visit: &Visit) -> &mut ModelCounts {
        let at_backup = !Arc::ptr_eq(visit.upstream(), &self.upstream);
        &mut self.counted[usize::from(at_backup)]
    }

    fn begin(&mut self, random: &mut Rng) {
        let deadline = random.bool().then(|| self.instant() + Duration::from_millis(random.u64(0..4_000)));
        let single = random.u8(..8) == 0;
        let make = if single { Visit::single } else { Visit::new };
        let mut visit = make(Arc::clone(&self.upstream), Class::Normal, deadline);
        let client = random.u8(..6);
        let home = self.session_target(client);
        let admitted = visit.try_admit(&caller(client)).expect("there is no queue");
        self.note_entries(&visit, None);
        let went_over = !Arc::ptr_eq(visit.upstream(), &self.upstream);
        assert!(!(single && went_over), "a visit of one try went over to the backup");
        assert!(
            visit.address().is_none_or(|address| (address.port() > 20) == went_over),
            "the target is another upstream's"
        );
        if let (Some(home), Ok(()), false) = (home, &admitted, went_over) {
            assert_eq!(visit.address(), Some(home), "a session left its target");
        }
        if admitted.is_ok() {
            let attempts = if single { 1 } else { visit.upstream().retry.attempts };
            let (excluded, trying, responded) = (Vec::new(), false, false);
            self.running.push(Running { visit, client, beside: None, excluded, tries: 0, attempts, trying, responded });
        }
    }

    /// Returns the target of a client's session, where nothing keeps a request from it.
    fn session_target(&self, client: u8) -> Option<SocketAddr> {
        let (pool, shape) = (&self.upstream.pool, self.upstream.pool.shape());
        let Some(Sticky::Table { key, ttl, sessions }) = &self.upstream.sticky else { return None };
        let tag = sessions.find(caller(client).hash(key)?, *ttl, self.now)?;
        let free = shape.gate.per_target == 0 && shape.target_breaker.is_none();
        pool.choice().sessions.get(&tag).filter(|_| free).map(|member| member.target.address)
    }

    /// Counts the requests of upstreams that a visit has entered; `at` is where it was before.
    fn note_entries(&mut self, visit: &Visit, at: Option<&Arc<Upstream>>) {
        let now = self.now;
        let moved = at.is_some_and(|before| !Arc::ptr_eq(before, visit.upstream()));
        if at.is_none() && !Arc::ptr_eq(visit.upstream(), &self.upstream) {
            // It has been admitted at both.
            self.counted[0].requests.push(now);
        }
        if (at.is_none() || moved) && visit.entered.is_some() {
            self.counted(visit).requests.push(now);
        }
    }

    /// Begins the next try of a visit. Returns whether the visit goes on.
    fn begin_try(&mut self, run: &mut Running) -> bool {
        let (before, now) = (Arc::clone(run.visit.upstream()), self.instant());
        let resume = run.visit.resume;
        let Some(begun) = run.visit.try_next(&caller(run.client), now) else {
            assert!(resume.is_some_and(|at| now < at), "it waits for nothing");
            return true;
        };
        self.note_entries(&run.visit, Some(&before));
        run.tries += 1;
        assert_eq!(run.visit.tries(), run.tries);
        assert!(run.tries <= run.attempts.max(run.visit.attempts()), "too many tries");
        if !Arc::ptr_eq(&before, run.visit.upstream()) {
            run.attempts = run.visit.attempts();
        }
        if let Err(rejection) = begun {
            let late = run.visit.is_over(now);
            assert_eq!(rejection.reason == Reason::RouteTimeout, late);
            return false;
        }
        assert!(!run.visit.is_over(now), "a try was begun after the deadline");
        assert!(resume.is_none_or(|at| at <= now), "a try was begun before its time");
        let address = run.visit.address().expect("a target");
        assert!(!run.excluded.contains(&address), "it goes to {address} again, while another is eligible");
        (run.trying, run.responded) = (true, false);
        true
    }

    /// Excludes a target in the model, as a visit does: until all were tried.
    fn exclude(run: &mut Running, address: SocketAddr) {
        run.excluded.push(address);
        let choice = run.visit.upstream().pool.choice();
        let others = choice.members().any(|m| !run.excluded.contains(&m.target.address));
        let over = run.visit.backup().is_some() && !run.responded;
        if !others && !over && run.tries < run.visit.attempts() {
            run.excluded.clear();
        }
    }

    /// Returns whether the budget permits a retry, by a model that remembers every moment.
    fn has_budget(&mut self, visit: &Visit) -> bool {
        let second = self.now / 1_000_000_000;
        let recent = |times: &[u64]| times.iter().filter(|t| second - **t / 1_000_000_000 < 10).count() as u64;
        let budget = visit.upstream().pool.shape().budget;
        let counted = self.counted(visit);
        recent(&counted.retries)
            < recent(&counted.requests) * u64::from(budget.percent) / 100 + u64::from(budget.min) * 10
    }

    /// Checks a retry that was begun, and counts it if the budget does.
    fn note_retry(&mut self, run: &mut Running, budget: bool, again: bool) {
        run.trying = false;
        if !again {
            return;
        }
        assert!(run.tries < run.visit.attempts(), "no attempt was left");
        if run.visit.resume.is_some() {
            assert!(budget, "a retry went over the budget");
            let now = self.now;
            self.counted(&run.visit).retries.push(now);
        }
    }

    /// Ends a try in one of the possible ways. Returns whether the visit goes on.
    fn end_try(&mut self, run: &mut Running, random: &mut Rng) -> bool {
        let (now, address) = (self.instant(), run.visit.address().expect("a target"));
        let budget = self.has_budget(&run.visit);
        let replay = ResendConditions { unsent: true, safe: random.u8(..8) > 0, possible: random.u8(..8) > 0 };
        if !self.failing[usize::from(address.port())] {
            run.visit.note_connection(random.bool());
            run.visit.note_response(&response(if random.bool() { 200 } else { 404 }), false, now);
            assert!(
                run.visit.note_failure(Failure { by_target: true, ..Failure::default() }, replay).is_none(),
                "it has a response"
            );
            return false;
        }
        let again = match random.u8(..4) {
            0 => {
                let excluded = run.visit.upstream().retry.connect;
                let again = run.visit.note_no_connection(now);
                if excluded {
                    Self::exclude(run, address);
                }
                again
            }
            1 => {
                run.visit.note_connection(random.bool());
                run.visit.note_response(&response(503), false, now);
                run.responded = true;
                let again = run.visit.retry_response(replay, now);
                if replay.safe && replay.possible {
                    Self::exclude(run, address);
                }
                again && run.visit.take_discarded()
            }
            _ => {
                run.visit.note_connection(random.bool());
                let unprocessed = random.u8(..4) == 0;
                let failure =
                    Failure { by_target: true, timed_out: random.bool(), unprocessed, stream_reset: random.bool() };
                let how = run.visit.note_failure(failure, replay);
                let again = how.is_some_and(|how| run.visit.prepare_resend(how, now));
                match how {
                    Some(ResendKind::Retry) => Self::exclude(run, address),
                    Some(ResendKind::NewConnection) => run.excluded.retain(|other| *other != address),
                    None => assert!(
                        !(replay.safe && replay.possible && run.visit.upstream().retry.reset) || failure.timed_out
                    ),
                }
                again
            }
        };
        self.note_retry(run, budget, again);
        again
    }

    /// Begins a second try beside the present one, and goes on with either.
    fn hedge(&mut self, run: &mut Running, random: &mut Rng) {
        if let Some(beside) = run.beside.take() {
            // The other one is dropped with its counts.
            if random.bool() {
                run.visit.set_try(beside);
            }
            return;
        }
        let budget = self.has_budget(&run.visit);
        let (now, present) = (self.instant(), run.visit.address().expect("a target"));
        let Some(beside) = run.visit.try_beside(present, now) else {
            if !run.visit.is_over(now) && run.tries < run.visit.attempts() {
                run.excluded.push(present);
            }
            return;
        };
        assert!(budget, "a second try went over the budget");
        assert!(!run.visit.is_over(now), "a second try was begun after the deadline");
        assert_ne!(beside.address(), present, "both tries are at one target");
        run.excluded.extend([present, beside.address()]);
        run.tries += 1;
        assert!(run.tries <= run.visit.attempts(), "too many tries");
        let at = self.now;
        self.counted(&run.visit).retries.push(at);
        run.beside = Some(beside);
    }

    fn step(&mut self, random: &mut Rng, clock: &VirtualClock) {
        match random.u8(..20) {
            0..=3 => self.begin(random),
            4..=15 if !self.running.is_empty() => {
                let mut run = self.running.swap_remove(random.usize(..self.running.len()));
                let goes_on = match (run.trying, random.u8(..16)) {
                    (_, 0) => false, // The client has gone.
                    (true, 1..=3) => {
                        self.hedge(&mut run, random);
                        true
                    }
                    (true, _) if run.beside.is_some() => true,
                    (true, _) => self.end_try(&mut run, random),
                    (false, _) => self.begin_try(&mut run),
                };
                if goes_on {
                    self.running.push(run);
                } else if random.bool() {
                    run.visit.leave();
                    run.visit.end();
                }
            }
            16 => {
                let target = random.usize(1..self.failing.len());
                self.failing[target] = !self.failing[target];
            }
            _ => {
                let most = if random.u8(..8) == 0 { 3_000 } else { 200 };
                self.now += random.u64(..nanos(Duration::from_millis(most)));
                clock.set(self.now);
                let backup = self.upstream.backup.as_ref();
                [Some(&self.upstream), backup]
                    .into_iter()
                    .flatten()
                    .for_each(|upstream| upstream.pool.members().tick());
            }
        }
        self.compare();
    }

    /// Compares the counters of upstreams and targets with the active visits.
    fn compare(&self) {
        for upstream in [Some(&self.upstream), self.upstream.backup.as_ref()].into_iter().flatten() {
            let here = || self.running.iter().filter(|run| Arc::ptr_eq(run.visit.upstream(), upstream));
            assert_eq!(upstream.pool.gate().active() as usize, here().count(), "requests of an upstream");
            let tries = here().map(|run| usize::from(run.visit.current.is_some()) + usize::from(run.beside.is_some()));
            let known = upstream.pool.members().by_address.lock();
            let active: u32 = known.values().map(|known| known.target.active()).sum();
            assert_eq!(active as usize, tries.sum::<usize>(), "requests on targets");
        }
    }
}

#[test]
fn what_must_hold_of_a_visit_holds_on_every_schedule() {
    for seed in 0..SCHEDULES {
        let run = std::panic::catch_unwind(|| {
            let mut random = Rng::with_seed(seed);
            // Picks and pauses are random as well.
            fastrand::seed(seed);
            let clock = VirtualClock::start();
            let mut world = VisitWorld::new(&mut random);
            clock.set(world.now);
            for _ in 0..400 {
                world.step(&mut random, &clock);
            }
            world.running.clear();
            world.compare();
        });
        assert!(run.is_ok(), "seed {seed} (see above)");
    }
}
