//! Several windows that count as one limit: a request counts in all of them, or in none.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sliding::{SlidingWindow, WindowCounts};
use super::{Decision, Gcra};

/// The most windows of one limit.
pub const MAX_WINDOWS: usize = 8;

/// How a window counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WindowKind {
    /// By the generic cell rate algorithm.
    #[default]
    Gcra,
    /// By a sliding window.
    Sliding,
}

/// One window of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// The generic cell rate algorithm.
    Gcra(Gcra),
    /// A sliding window.
    Sliding(SlidingWindow),
}

/// The state of a key in one window: its theoretical arrival time, or the counts of a sliding window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyState {
    /// The theoretical arrival time, or the start of the present window.
    at: u64,
    /// The counts of the previous and of the present window, in 32 bits each.
    counts: u64,
}

impl KeyState {
    fn of(counts: WindowCounts) -> Self {
        Self { at: counts.start, counts: u64::from(counts.previous) << 32 | u64::from(counts.present) }
    }

    fn window_counts(self) -> WindowCounts {
        WindowCounts { start: self.at, previous: (self.counts >> 32) as u32, present: self.counts as u32 }
    }
}

impl Window {
    /// Returns a window of `count` per `period`, of which `burst` (`count` by default) may come at once; a sliding
    /// window has no burst.
    pub fn new(kind: WindowKind, count: u32, period: Duration, burst: Option<u32>) -> Self {
        match kind {
            WindowKind::Gcra => Self::Gcra(Gcra::new(count, period, burst)),
            WindowKind::Sliding => Self::Sliding(SlidingWindow::new(count, period)),
        }
    }

    /// Returns how many requests it allows at once.
    pub fn most(&self) -> u32 {
        match self {
            Self::Gcra(gcra) => gcra.burst(),
            Self::Sliding(window) => window.limit(),
        }
    }

    fn decide(&self, state: KeyState, now: u64, cost: u32) -> (Option<KeyState>, Decision) {
        match self {
            Self::Gcra(gcra) => {
                let (tat, decision) = gcra.decide(state.at, now, cost);
                (tat.map(|at| KeyState { at, counts: 0 }), decision)
            }
            Self::Sliding(window) => {
                let (counts, decision) = window.decide(state.window_counts(), now, cost);
                (counts.map(KeyState::of), decision)
            }
        }
    }

    fn count(&self, state: KeyState, now: u64, cost: u64) -> KeyState {
        match self {
            Self::Gcra(gcra) => KeyState { at: gcra.count(state.at, now, cost), counts: 0 },
            Self::Sliding(window) => KeyState::of(window.count(state.window_counts(), now, cost)),
        }
    }

    /// Returns how much is counted for a key.
    fn counted(&self, state: KeyState, now: u64) -> u64 {
        match self {
            Self::Gcra(gcra) => gcra.counted(state.at.saturating_sub(now)),
            Self::Sliding(window) => window.counted(state.window_counts(), now),
        }
    }

    /// Returns the state in which as much is counted as by another window.
    fn carry_over(&self, before: &Self, state: KeyState, now: u64) -> KeyState {
        if let (Self::Gcra(own), Self::Gcra(theirs)) = (self, before) {
            let ahead = own.carry_over(state.at.saturating_sub(now), Some(*theirs));
            return KeyState { at: now.saturating_add(ahead), counts: 0 };
        }
        let counted = before.counted(state, now).min(u64::from(self.most()));
        self.count(KeyState { at: now, counts: 0 }, now, counted)
    }

    /// Returns a state in a form that does not depend on the clock of the process.
    fn saved(&self, state: KeyState, now: u64) -> (u64, u64) {
        match self {
            Self::Gcra(_) => (state.at.saturating_sub(now), 0),
            Self::Sliding(window) => {
                let rolled = KeyState::of(window.roll(state.window_counts(), now));
                (rolled.window_counts().elapsed(now), rolled.counts)
            }
        }
    }

    fn restored(&self, (at, counts): (u64, u64), now: u64) -> KeyState {
        match self {
            Self::Gcra(_) => KeyState { at: now.saturating_add(at), counts: 0 },
            Self::Sliding(_) => KeyState { at: WindowCounts::start_of(at, now), counts },
        }
    }
}

/// The decision of all windows of a limit about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowsDecision {
    /// Whether it is allowed, and counted in all of them.
    pub is_allowed: bool,
    /// The window that has the least left, or that rejects it for the longest time.
    pub tightest: usize,
    /// The state of that window.
    pub decision: Decision,
}

/// The windows of a limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Window>", into = "Vec<Window>")]
pub struct Windows {
    list: Box<[Window]>,
    tag: u32,
}

impl From<Vec<Window>> for Windows {
    /// Windows beyond [`MAX_WINDOWS`] are left out.
    fn from(mut list: Vec<Window>) -> Self {
        list.truncate(MAX_WINDOWS);
        let mut hasher = DefaultHasher::new();
        list.hash(&mut hasher);
        Self { list: list.into(), tag: hasher.finish() as u32 }
    }
}

impl From<Windows> for Vec<Window> {
    fn from(windows: Windows) -> Self {
        windows.list.into()
    }
}

impl Windows {
    /// Returns the windows.
    pub fn list(&self) -> &[Window] {
        &self.list
    }

    /// Returns the number by which a key's state is known to be of these windows.
    pub fn tag(&self) -> u32 {
        self.tag
    }

    /// Returns how much of a cost all windows together allow at once.
    pub fn most(&self) -> u32 {
        self.list.iter().map(Window::most).min().unwrap_or(0)
    }

    /// Decides on a request of that cost. Where all windows allow it, it is counted in each; otherwise in none.
    pub fn decide(&self, states: &mut [KeyState], now: u64, cost: u32) -> WindowsDecision {
        let mut after = [KeyState::default(); MAX_WINDOWS];
        let mut result: Option<WindowsDecision> = None;
        for (index, (window, state)) in self.list.iter().zip(states.iter()).enumerate() {
            let (next, decision) = window.decide(*state, now, cost);
            let this = WindowsDecision { is_allowed: next.is_some(), tightest: index, decision };
            after[index] = next.unwrap_or_default();
            let is_tighter = result.is_none_or(|known| match (known.is_allowed, this.is_allowed) {
                (true, true) => decision.remaining < known.decision.remaining,
                (true, false) => true,
                (false, true) => false,
                (false, false) => decision.retry_after > known.decision.retry_after,
            });
            if is_tighter {
                result = Some(this);
            }
        }
        if result.is_some_and(|result| result.is_allowed) {
            states.iter_mut().zip(after).for_each(|(state, next)| *state = next);
        }
        let none = Decision { remaining: 0, retry_after: Duration::ZERO, reset: Duration::ZERO };
        result.unwrap_or(WindowsDecision { is_allowed: true, tightest: 0, decision: none })
    }

    /// Counts what was allowed elsewhere.
    pub fn count(&self, states: &mut [KeyState], now: u64, cost: u64) {
        self.list.iter().zip(states).for_each(|(window, state)| *state = window.count(*state, now, cost));
    }

    /// Returns whether nothing is counted any more.
    pub fn is_idle(&self, states: &[KeyState], now: u64) -> bool {
        self.list.iter().zip(states).all(|(window, state)| window.counted(*state, now) == 0)
    }

    /// Returns whether not one more request would be allowed.
    pub fn is_exhausted(&self, states: &[KeyState], now: u64) -> bool {
        self.list.iter().zip(states).any(|(window, state)| window.decide(*state, now, 1).0.is_none())
    }

    /// Returns in how many nanoseconds nothing will be counted any more.
    pub fn reset(&self, states: &[KeyState], now: u64) -> u64 {
        let reset = |(window, state): (&Window, &KeyState)| {
            u64::try_from(window.decide(*state, now, 0).1.reset.as_nanos()).unwrap_or(u64::MAX)
        };
        self.list.iter().zip(states).map(reset).max().unwrap_or(0)
    }

    /// Carries the states of a key over from other windows: to an equal window as it is, otherwise to the one in the
    /// same place if there are as many, by the number that is counted. A window without a counterpart begins anew.
    pub fn carry_over(&self, before: &Self, states: &[KeyState], now: u64) -> Vec<KeyState> {
        let carry = |(index, window): (usize, &Window)| {
            if let Some(same) = before.list.iter().position(|known| known == window) {
                return states.get(same).copied().unwrap_or_default();
            }
            match (before.list.get(index), states.get(index)) {
                (Some(known), Some(state)) if before.list.len() == self.list.len() => {
                    window.carry_over(known, *state, now)
                }
                _ => KeyState::default(),
            }
        };
        self.list.iter().enumerate().map(carry).collect()
    }

    /// Returns the states of a key in a form that does not depend on the clock of the process.
    pub fn saved(&self, states: &[KeyState], now: u64) -> Vec<(u64, u64)> {
        self.list.iter().zip(states).map(|(window, state)| window.saved(*state, now)).collect()
    }

    /// Returns the states from such a form; where more is counted in `known`, that is kept.
    pub fn restored(&self, saved: &[(u64, u64)], known: &[KeyState], now: u64) -> Vec<KeyState> {
        let restore = |(index, window): (usize, &Window)| {
            let given = saved.get(index).map(|saved| window.restored(*saved, now)).unwrap_or_default();
            match known.get(index) {
                Some(known) if window.counted(*known, now) > window.counted(given, now) => *known,
                _ => given,
            }
        };
        self.list.iter().enumerate().map(restore).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn windows(kind: WindowKind, rates: &[(u32, u64)]) -> Windows {
        let window = |(count, seconds): &(u32, u64)| Window::new(kind, *count, Duration::from_secs(*seconds), None);
        rates.iter().map(window).collect::<Vec<_>>().into()
    }

    fn states(windows: &Windows) -> Vec<KeyState> {
        vec![KeyState::default(); windows.list().len()]
    }

    proptest! {
        /// A request that one window rejects takes nothing of the others: each window is as if it alone had counted
        /// what was allowed.
        #[test]
        fn all_are_counted_or_none(
            sliding in any::<bool>(), one in 1_u32..20, two in 1_u32..40, three in 1_u32..60,
            steps in proptest::collection::vec((0_u64..900_000_000, 1_u32..4), 1..120),
        ) {
            let kind = if sliding { WindowKind::Sliding } else { WindowKind::Gcra };
            let all = windows(kind, &[(one, 1), (two, 3), (three, 10)]);
            let each = [windows(kind, &[(one, 1)]), windows(kind, &[(two, 3)]), windows(kind, &[(three, 10)])];
            let mut now = SECOND * 1000;
            let (mut state, mut alone) = (states(&all), [states(&each[0]), states(&each[1]), states(&each[2])]);
            for (step, cost) in steps {
                now += step;
                let would = |index: usize| each[index].decide(&mut alone[index].clone(), now, cost);
                let decisions = [would(0), would(1), would(2)];
                let result = all.decide(&mut state, now, cost);
                prop_assert_eq!(result.is_allowed, decisions.iter().all(|decision| decision.is_allowed));
                if result.is_allowed {
                    (0..3).for_each(|index| _ = each[index].decide(&mut alone[index], now, cost));
                    let least = decisions.iter().map(|d| d.decision.remaining).min();
                    prop_assert_eq!(Some(result.decision.remaining), least);
                } else {
                    let rejecting = decisions.iter().filter(|decision| !decision.is_allowed);
                    prop_assert_eq!(Some(result.decision.retry_after), rejecting.map(|d| d.decision.retry_after).max());
                }
                prop_assert_eq!(&state, &alone.concat());
                prop_assert_eq!(all.is_exhausted(&state, now), !all.decide(&mut state.clone(), now, 1).is_allowed);
                prop_assert!(all.is_idle(&state, now + all.reset(&state, now)));
                // What is handed over to a process with another clock is the same there.
                let there = all.restored(&all.saved(&state, now), &states(&all), 7 * SECOND);
                prop_assert_eq!(
                    all.decide(&mut there.clone(), 7 * SECOND, 1), all.decide(&mut state.clone(), now, 1)
                );
            }
        }
    }

    #[test]
    fn what_is_counted_is_carried_over() {
        let now = 100 * SECOND;
        let left = |windows: &Windows, states: &[KeyState]| {
            let mut states = states.to_vec();
            (0..1000).take_while(|_| windows.decide(&mut states, now, 1).is_allowed).count()
        };
        let spent = |windows: &Windows, count: u64| {
            let mut states = states(windows);
            windows.count(&mut states, now, count);
            states
        };
        let (gcra, sliding) = (windows(WindowKind::Gcra, &[(10, 60)]), windows(WindowKind::Sliding, &[(10, 60)]));
        assert_eq!(left(&sliding, &sliding.carry_over(&gcra, &spent(&gcra, 4), now)), 6);
        assert_eq!(left(&gcra, &gcra.carry_over(&sliding, &spent(&sliding, 4), now)), 6);
        // A further window begins anew, and the one that stays goes on.
        let two = windows(WindowKind::Gcra, &[(3, 1), (10, 60)]);
        let states = two.carry_over(&gcra, &spent(&gcra, 4), now);
        assert_eq!(left(&two, &states), 3);
        assert_eq!(left(&gcra, &gcra.carry_over(&two, &states, now)), 6);
    }
}
