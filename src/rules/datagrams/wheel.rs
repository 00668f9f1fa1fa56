//! A timing wheel: the flows of each tick in a list, so that neither a datagram nor a tick touches all flows.

/// The nanoseconds of a tick, about a sixteenth of a second.
pub const TICK: u64 = 1 << 26;

/// The number of ticks of a turn, about 69 seconds. What is due later is looked at once a turn.
const TICKS: u64 = 1 << 10;

/// No place.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    next: u32,
    before: u32,
    /// The list that it is in.
    list: u32,
}

/// The wheel. Its entries are places of a slab.
#[derive(Debug)]
pub struct Wheel {
    firsts: Box<[u32]>,
    links: Vec<Link>,
    /// The tick whose list is looked at next. No list has entries for earlier ones.
    tick: u64,
}

impl Wheel {
    /// Returns an empty wheel.
    pub fn new(now: u64) -> Self {
        Self { firsts: vec![NONE; TICKS as usize].into(), links: Vec::new(), tick: now / TICK }
    }

    /// Adds a place that is to be looked at `due`, or earlier where that is more than a turn away.
    pub fn add(&mut self, place: u32, due: u64) {
        // At the end of the tick: nothing is looked at before it is due.
        let tick = (due / TICK + 1).clamp(self.tick, self.tick + TICKS - 1);
        let list = (tick % TICKS) as u32;
        let first = self.firsts[list as usize];
        if let Some(link) = self.links.get_mut(first as usize) {
            link.before = place;
        }
        if self.links.len() <= place as usize {
            self.links.resize(place as usize + 1, Link { next: NONE, before: NONE, list: NONE });
        }
        self.links[place as usize] = Link { next: first, before: NONE, list };
        self.firsts[list as usize] = place;
    }

    /// Removes a place, if it was added.
    pub fn remove(&mut self, place: u32) {
        let Some(link) = self.links.get_mut(place as usize) else { return };
        let Link { next, before, list } = *link;
        if list == NONE {
            return;
        }
        link.list = NONE;
        match self.links.get_mut(before as usize) {
            Some(before) => before.next = next,
            None => self.firsts[list as usize] = next,
        }
        if let Some(next) = self.links.get_mut(next as usize) {
            next.before = before;
        }
    }

    /// Removes a place that is to be looked at by now, and returns it.
    pub fn pop(&mut self, now: u64) -> Option<u32> {
        let until = now / TICK;
        // After a long pause one turn looks at all lists.
        self.tick = self.tick.max(until.saturating_sub(TICKS - 1));
        while self.tick <= until {
            let first = self.firsts[(self.tick % TICKS) as usize];
            if first != NONE {
                self.remove(first);
                return Some(first);
            }
            self.tick += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Everything is looked at once, not before it is due, and within two ticks after it or once a turn.
        #[test]
        fn nothing_is_early_or_forgotten(
            dues in prop::collection::vec(0_u64..3 * TICK * TICKS, 1..80),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            steps in prop::collection::vec(0_u64..TICK * TICKS * 2, 1..20),
        ) {
            let mut now = 77 * TICK + 5;
            let mut wheel = Wheel::new(now);
            let mut left: std::collections::BTreeMap<u32, u64> = (0..).zip(dues.iter().map(|due| now + due)).collect();
            left.iter().for_each(|(place, due)| wheel.add(*place, *due));
            for index in removed {
                let place = index.index(dues.len()) as u32;
                wheel.remove(place);
                left.remove(&place);
            }
            for step in steps {
                now += step;
                let mut again = Vec::new();
                while let Some(place) = wheel.pop(now) {
                    let due = left.get(&place).copied();
                    prop_assert!(due.is_some(), "{place} was removed");
                    match due {
                        Some(due) if due <= now => _ = left.remove(&place),
                        Some(due) => again.push((place, due)),
                        None => {}
                    }
                }
                again.into_iter().for_each(|(place, due)| wheel.add(place, due));
                prop_assert!(left.values().all(|due| due + 2 * TICK > now));
            }
        }
    }
}
