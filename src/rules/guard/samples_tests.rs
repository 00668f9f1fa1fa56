//! How much is recognised at each level, and how much is taken for an attack that is none: the samples are values as
//! users and attackers send them.

use super::{AttackKinds, Inspector, Paranoia};

const LEVELS: [Paranoia; 3] = [Paranoia::One, Paranoia::Two, Paranoia::Three];

/// Returns samples with their levels: attacks are recognised from theirs on, and what is harmless passes up to its; 0
/// marks what is taken for an attack although it is none.
fn samples(text: &'static str) -> impl Iterator<Item = (usize, &'static str)> {
    text.lines().filter_map(|line| {
        let (level, value) = line.split_once(' ')?;
        Some((level.parse().ok()?, value))
    })
}

#[test]
fn attacks_are_recognised_from_their_level_on() {
    let mut missed = Vec::new();
    for (number, paranoia) in LEVELS.iter().enumerate() {
        let inspector = Inspector::at(*paranoia);
        let here = samples(include_str!("samples/attacks.txt")).filter(|(level, _)| *level <= number + 1);
        missed.extend(here.filter(|(_, value)| inspector.inspect(value.as_bytes(), AttackKinds::all()).is_none()));
    }
    assert!(missed.is_empty(), "{} are not recognised: {missed:#?}", missed.len());
}

#[test]
fn what_is_harmless_passes() {
    let inspector = Inspector::at(Paranoia::One);
    let taken: Vec<_> = samples(include_str!("samples/harmless.txt"))
        .filter(|(level, _)| *level > 0)
        .filter_map(|(_, value)| Some((value, inspector.inspect(value.as_bytes(), AttackKinds::all())?)))
        .collect();
    assert!(taken.is_empty(), "{} are taken for attacks: {taken:#?}", taken.len());
}

/// The rates that the guide names: of 100 harmless values at most so many are taken for attacks.
#[test]
fn higher_levels_take_more_for_attacks_within_bounds() {
    let all: Vec<_> = samples(include_str!("samples/harmless.txt")).collect();
    let rate = |paranoia| {
        let inspector = Inspector::at(paranoia);
        let taken = all.iter().filter(|(_, v)| inspector.inspect(v.as_bytes(), AttackKinds::all()).is_some()).count();
        taken * 100 / all.len()
    };
    let rates = LEVELS.map(rate);
    assert!(rates[0] <= 1 && rates[1] <= 5 && rates[2] <= 30, "{rates:?} of 100 at the three levels");
    println!("{rates:?}");
}
