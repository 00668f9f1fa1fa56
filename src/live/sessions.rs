//! Sessions in a hand-over to a successor.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::heritable::{HandoverPart, Heritable};
use super::shelf::Shelf;
use crate::exchange::clock;
use crate::upstreams::Sessions;

/// A session in a hand-over: its key, its tag in hexadecimal, and how many nanoseconds ago it was used.
type SavedSession = (u64, String, u64);

/// The sessions of one upstream, in a hand-over.
#[derive(Serialize, Deserialize)]
struct SavedSessions {
    upstream: String,
    sessions: Vec<SavedSession>,
}

impl Heritable for Shelf<String, Sessions> {
    fn kind(&self) -> &'static str {
        "sessions"
    }

    fn version(&self) -> u32 {
        1
    }

    fn save(&self, part: HandoverPart) -> serde_json::Result<Option<Vec<u8>>> {
        let now = clock::now();
        let all = self.all().into_iter().map(|(upstream, all)| {
            let sessions = all.for_successor(part == HandoverPart::Whole, now).into_iter();
            SavedSessions {
                sessions: sessions.map(|(key, tag, age)| (key, format!("{tag:032x}"), age)).collect(),
                upstream,
            }
        });
        let given: Vec<SavedSessions> = all.filter(|given| !given.sessions.is_empty()).collect();
        if given.is_empty() { Ok(None) } else { serde_json::to_vec(&given).map(Some) }
    }

    fn restore(&self, form: &[u8]) -> serde_json::Result<usize> {
        let given: Vec<SavedSessions> = serde_json::from_slice(form)?;
        let now = clock::now();
        for upstream in &given {
            let Some(sessions) = self.inherit(&upstream.upstream, || Arc::new(Sessions::default())) else { continue };
            for (key, tag, age) in &upstream.sessions {
                if let Ok(tag) = u128::from_str_radix(tag, 16) {
                    sessions.bind(*key, tag, now.saturating_sub(*age));
                }
            }
        }
        Ok(given.iter().map(|g| g.sessions.len()).sum())
    }

    fn drop_unused(&self) {
        self.drop_unused();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_knows_them_and_their_age() {
        let (old, new): (Shelf<String, Sessions>, Shelf<String, Sessions>) = Default::default();
        let sessions = old.get_or(&"users".to_owned(), Arc::default);
        sessions.bind(7, 1 << 100, clock::now());
        assert_eq!(new.restore(&old.save(HandoverPart::Whole).expect("given").expect("a form")).expect("taken"), 1);
        sessions.bind(8, 2, clock::now());
        new.restore(&old.save(HandoverPart::Late).expect("given").expect("a form")).expect("taken");
        let successor = new.get_or(&"users".to_owned(), Arc::default);
        let day = 86_400_000_000_000;
        assert_eq!(
            (successor.find(7, day, clock::now()), successor.find(8, day, clock::now())),
            (Some(1 << 100), Some(2))
        );
        assert_eq!(successor.find(7, 1, clock::now() + day), None);
    }
}
