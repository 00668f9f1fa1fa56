//! The store in memory against a naive model: what is found is what was stored last, and never what was purged.

use std::collections::BTreeMap;

use futures::executor::block_on;
use proptest::prelude::*;

use super::tests::{cache, head, key, read};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    Store { key: u8, variant: u8, tag: u8, size: usize },
    Begin { key: u8, variant: u8, tag: u8, size: usize },
    Finish(usize),
    Fail(usize),
    Find { key: u8, variant: u8 },
    Invalidate(u8),
    Purge(Purge, bool),
    Sweep,
    Resize(bool),
}

const KEYS: u8 = 6;
const VARIANTS: u8 = 3;
const TAGS: u8 = 3;

fn url(key: u8) -> String {
    format!("https://a.test/{}/{key}", key % 2)
}

fn step() -> impl Strategy<Value = Step> {
    let place = (0..KEYS, 0..VARIANTS, 0..TAGS, 0..3_000_usize);
    let purge = prop_oneof![
        Just(Purge::All),
        (0..KEYS).prop_map(|key| Purge::Url(url(key).into())),
        (0..3_u8).prop_map(|part| Purge::Prefix(format!("https://a.test/{part}/").into())),
        (0..TAGS).prop_map(|tag| Purge::Tag(tag.to_string().into())),
    ];
    prop_oneof![
        6 => place.clone().prop_map(|(key, variant, tag, size)| Step::Store { key, variant, tag, size }),
        4 => place.prop_map(|(key, variant, tag, size)| Step::Begin { key, variant, tag, size }),
        4 => (0..8_usize).prop_map(Step::Finish),
        1 => (0..8_usize).prop_map(Step::Fail),
        8 => (0..KEYS, 0..VARIANTS).prop_map(|(key, variant)| Step::Find { key, variant }),
        1 => (0..KEYS).prop_map(Step::Invalidate),
        2 => (purge, any::<bool>()).prop_map(|(purge, soft)| Step::Purge(purge, soft)),
        1 => Just(Step::Sweep),
        1 => any::<bool>().prop_map(Step::Resize),
    ]
}

/// A response of the model, or a fill of it.
#[derive(Clone, Debug)]
struct Known {
    key: u8,
    variant: u8,
    tag: u8,
    body: Vec<u8>,
    is_dead: bool,
    is_stale: bool,
}

impl Known {
    fn is_reached(&self, purge: &Purge) -> bool {
        match purge {
            Purge::All => true,
            Purge::Url(of) => **of == *url(self.key),
            Purge::Prefix(prefix) => url(self.key).starts_with(&**prefix),
            Purge::Tag(tag) => **tag == *self.tag.to_string(),
        }
    }

    fn reach(&mut self, purge: &Purge, soft: bool) {
        if self.is_reached(purge) {
            self.is_stale |= soft;
            self.is_dead |= !soft;
        }
    }
}

#[derive(Default)]
struct Model {
    stored: BTreeMap<(u8, u8), Known>,
    fills: Vec<(Filling, Known)>,
    count: u64,
}

fn variant(number: u8) -> Option<StoredKey> {
    (number > 0).then(|| key(100 + number))
}

impl Model {
    fn begin(&mut self, cache: &Arc<Cache>, of: (u8, u8), tag: u8, size: usize) -> (Filling, Known) {
        self.count += 1;
        let body = self.count.to_le_bytes().into_iter().cycle().take(size).collect();
        let head = head(&url(of.0), &[&tag.to_string()]);
        let mut filling = cache.begin(key(of.0), variant(of.1), head, cache.generation());
        let known = Known { key: of.0, variant: of.1, tag, body, is_dead: false, is_stale: false };
        known.body.chunks(700).for_each(|part| filling.write(part));
        (filling, known)
    }

    fn finish(&mut self, (filling, known): (Filling, Known)) {
        let is_stored = filling.finish().is_some();
        assert!(!(is_stored && known.is_dead), "a purged fill was stored: {known:?}");
        if is_stored {
            self.stored.insert((known.key, known.variant), known);
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Known> {
        self.stored.values_mut().chain(self.fills.iter_mut().map(|(_, known)| known))
    }

    fn check(&self, cache: &Cache, (of, varying): (u8, u8), is_exact: bool) {
        let found = block_on(cache.find(&key(of), variant(varying).as_ref()));
        let fill = self
            .fills
            .iter()
            .rev()
            .find(|(fill, known)| (known.key, known.variant) == (of, varying) && !known.is_dead && fill.is_kept());
        if let Some((_, known)) = fill {
            let found = found.expect("the fill is found");
            assert_eq!((found.tier, found.stale_since.is_some()), (StoredTier::Filling, known.is_stale));
            return;
        }
        let known = self.stored.get(&(of, varying)).filter(|known| !known.is_dead);
        match (found, known) {
            (Some(found), Some(known)) => {
                assert_eq!(found.stale_since.is_some(), known.is_stale);
                assert_eq!(block_on(read(found.body)).expect("whole"), known.body);
            }
            (Some(_), None) => panic!("{of} {varying} is found, and was purged or never stored"),
            (None, Some(known)) => assert!(!is_exact, "{known:?} is not found"),
            (None, None) => {}
        }
    }

    fn take(&mut self, cache: &Arc<Cache>, step: Step, is_exact: bool) {
        match step {
            Step::Store { key, variant, tag, size } => {
                let begun = self.begin(cache, (key, variant), tag, size);
                self.finish(begun);
            }
            Step::Begin { key, variant, tag, size } => {
                let begun = self.begin(cache, (key, variant), tag, size);
                self.fills.push(begun);
            }
            Step::Finish(at) if at < self.fills.len() => {
                let begun = self.fills.remove(at);
                self.finish(begun);
            }
            Step::Fail(at) if at < self.fills.len() => drop(self.fills.remove(at)),
            Step::Finish(_) | Step::Fail(_) => {}
            Step::Find { key, variant } => self.check(cache, (key, variant), is_exact),
            Step::Invalidate(of) => {
                block_on(cache.invalidate(&key(of)));
                self.all().filter(|known| known.key == of).for_each(|known| known.is_dead = true);
            }
            Step::Purge(purge, soft) => {
                block_on(cache.purge(&purge, soft)).expect("no disk");
                self.all().for_each(|known| known.reach(&purge, soft));
            }
            Step::Sweep => cache.sweep(),
            Step::Resize(large) if !is_exact => {
                let memory = if large { 40_000 } else { 12_000 };
                cache.resize(&CacheSettings { memory, max_object: 2_500, disk: None });
            }
            Step::Resize(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn what_is_found_was_stored_last_and_not_purged(steps in prop::collection::vec(step(), 1..80)) {
        let (cache, mut model) = (cache(1 << 30), Model::default());
        for step in steps {
            model.take(&cache, step, true);
            prop_assert!(cache.memory.budget.used() <= cache.memory.budget.limit());
        }
        for place in model.stored.keys() {
            model.check(&cache, *place, true);
        }
    }

    /// With little memory less is found, and never anything else.
    #[test]
    fn the_bound_holds(steps in prop::collection::vec(step(), 1..120)) {
        let (cache, mut model) = (cache(30_000), Model::default());
        let mut limit = 30_000;
        for step in steps {
            if let Step::Resize(large) = step {
                limit = if large { 40_000 } else { 12_000.max(cache.memory.budget.used()) };
            }
            model.take(&cache, step, false);
            let used = cache.memory.budget.used();
            prop_assert!(used <= limit.max(cache.memory.budget.limit()), "{used} of {limit}");
            let counted: u64 = cache.memory.shards().iter().map(|shard| shard.read().slots.bytes()).sum();
            prop_assert!(counted <= used, "{counted} of {used}");
        }
        drop(std::mem::take(&mut model.fills));
        block_on(cache.purge(&Purge::All, false)).expect("no disk");
        cache.sweep();
        prop_assert_eq!(cache.memory.budget.used(), 0);
    }
}
