//! The order of calls that need each other's results.

/// Returns a cycle of calls that need each other, each by its place; `needs` lists what each call needs.
pub fn find_cycle(needs: &[Vec<usize>]) -> Option<Vec<usize>> {
    // Whoever needs only what is done can be done; what is left needs something of a cycle.
    let mut done = vec![false; needs.len()];
    while let Some(next) = (0..needs.len()).find(|at| !done[*at] && needs[*at].iter().all(|need| done[*need])) {
        done[next] = true;
    }
    let mut path = vec![(0..needs.len()).find(|at| !done[*at])?];
    loop {
        let next = *needs[*path.last()?].iter().find(|need| !done[**need])?;
        if let Some(begin) = path.iter().position(|at| *at == next) {
            return Some(path.split_off(begin));
        }
        path.push(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cycles_are_named() {
        assert_eq!(find_cycle(&[]), None);
        assert_eq!(find_cycle(&[vec![1], vec![2], vec![]]), None);
        assert_eq!(find_cycle(&[vec![0]]), Some(vec![0]));
        assert_eq!(find_cycle(&[vec![1], vec![2, 3], vec![1], vec![]]), Some(vec![1, 2]));
    }

    proptest! {
        #[test]
        fn without_a_cycle_there_is_an_order(edges in proptest::collection::vec((0_usize..8, 0_usize..8), 0..14)) {
            let mut needs = vec![Vec::new(); 8];
            edges.iter().for_each(|(from, to)| needs[*from].push(*to));
            let reaches_itself = (0..8).any(|start| {
                let (mut seen, mut open) = ([false; 8], vec![start]);
                while let Some(at) = open.pop() {
                    for next in &needs[at] {
                        if *next == start { return true; }
                        if !std::mem::replace(&mut seen[*next], true) { open.push(*next); }
                    }
                }
                false
            });
            let cycle = find_cycle(&needs);
            prop_assert_eq!(cycle.is_some(), reaches_itself);
            if let Some(cycle) = cycle {
                for (at, call) in cycle.iter().enumerate() {
                    prop_assert!(needs[*call].contains(&cycle[(at + 1) % cycle.len()]));
                }
            }
        }
    }
}
