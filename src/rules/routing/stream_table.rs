//! The choice of the rule for a connection or a datagram at layer 4.
//!
//! The order of precedence is total: an exact server name before `*.suffix` (the longer suffix first) before none; then
//! more conditions before fewer; then the earlier place in the configuration. The cost depends on the length of the
//! server name and on the rules for that name, and not on the number of rules.

use std::net::IpAddr;

use ahash::AHashMap;
use ipnet::IpNet;

use super::pattern::HostPattern;

/// The facts about a connection or a datagram that decide on its rule.
#[derive(Clone, Copy, Debug)]
pub struct StreamFacts<'f> {
    /// The address of the client.
    pub client: IpAddr,
    /// The server name that it requests, in any case; without a final dot.
    pub server_name: Option<&'f str>,
    /// The protocols that it offers.
    pub alpn: &'f [Vec<u8>],
}

/// The conditions of a rule beside the server name; all that are given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamPredicates {
    /// The client is in any of these networks, if there are any.
    pub clients: Vec<IpNet>,
    /// The client offers any of these protocols, if there are any.
    pub alpn: Vec<Vec<u8>>,
}

impl StreamPredicates {
    fn hold(&self, facts: &StreamFacts<'_>) -> bool {
        let client = facts.client.to_canonical();
        (self.clients.is_empty() || self.clients.iter().any(|net| net.contains(&client)))
            && (self.alpn.is_empty() || self.alpn.iter().any(|protocol| facts.alpn.contains(protocol)))
    }

    fn count(&self) -> usize {
        usize::from(!self.clients.is_empty()) + usize::from(!self.alpn.is_empty())
    }
}

/// A server name with the conditions and the number of a rule.
#[derive(Clone, Debug)]
pub struct StreamEntry {
    /// The server name.
    pub name: HostPattern,
    /// The other conditions.
    pub predicates: StreamPredicates,
    /// The rule.
    pub rule: usize,
}

/// All rules of a listener, by server name.
#[derive(Debug, Default)]
pub struct StreamTable {
    exact: AHashMap<Box<str>, Vec<StreamEntry>>,
    below: AHashMap<Box<str>, Vec<StreamEntry>>,
    any: Vec<StreamEntry>,
    needs_hello: bool,
}

impl StreamTable {
    /// Builds the table. The entries are in the order of the configuration.
    pub fn new(entries: impl IntoIterator<Item = StreamEntry>) -> Self {
        let mut table = Self::default();
        for entry in entries {
            table.needs_hello |= entry.name != HostPattern::Any || !entry.predicates.alpn.is_empty();
            let list = match &entry.name {
                HostPattern::Any => &mut table.any,
                HostPattern::Below(suffix) => table.below.entry(suffix.as_str().into()).or_default(),
                HostPattern::Exact(name) => table.exact.entry(name.as_str().into()).or_default(),
            };
            let place = list.partition_point(|other| other.predicates.count() >= entry.predicates.count());
            list.insert(place, entry);
        }
        table
    }

    /// Returns whether a rule asks for what the client says in TLS.
    pub fn needs_hello(&self) -> bool {
        self.needs_hello
    }

    /// Returns the number of the rule that comes first of those that match.
    pub fn find(&self, facts: &StreamFacts<'_>) -> Option<usize> {
        let of = |list: &[StreamEntry]| list.iter().find(|entry| entry.predicates.hold(facts)).map(|entry| entry.rule);
        self.by_name(facts, of).or_else(|| of(&self.any))
    }

    fn by_name(&self, facts: &StreamFacts<'_>, of: impl Fn(&[StreamEntry]) -> Option<usize>) -> Option<usize> {
        let name = facts.server_name.filter(|_| !self.exact.is_empty() || !self.below.is_empty())?;
        let lower;
        let mut name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        if let Some(found) = self.exact.get(name).and_then(|list| of(list)) {
            return Some(found);
        }
        while let Some((_, suffix)) = name.split_once('.') {
            if let Some(found) = self.below.get(suffix).and_then(|list| of(list)) {
                return Some(found);
            }
            name = suffix;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(name: &str, client: Option<&str>, alpn: Option<&str>, rule: usize) -> StreamEntry {
        let predicates = StreamPredicates {
            clients: client.iter().map(|net| net.parse().expect("a network")).collect(),
            alpn: alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect(),
        };
        StreamEntry { name: name.parse().expect("a host"), predicates, rule }
    }

    /// Finds the rule by trying all of them.
    fn naive(entries: &[StreamEntry], facts: &StreamFacts<'_>) -> Option<usize> {
        let rank = |entry: &StreamEntry| {
            let name = facts.server_name.unwrap_or_default().to_ascii_lowercase();
            let by_name = match &entry.name {
                HostPattern::Exact(exact) => (*exact == name).then_some(usize::MAX),
                HostPattern::Below(suffix) => name.ends_with(&format!(".{suffix}")).then_some(suffix.len()),
                HostPattern::Any => Some(0),
            }?;
            entry.predicates.hold(facts).then(|| (by_name, entry.predicates.count(), usize::MAX - entry.rule))
        };
        entries.iter().filter_map(|entry| Some((rank(entry)?, entry.rule))).max().map(|(_, rule)| rule)
    }

    proptest! {
        #[test]
        fn the_first_of_all_that_match_is_found(
            rules in prop::collection::vec((0_usize..6, 0_usize..3, 0_usize..3), 0..12),
            name in 0_usize..6, client in 0_u8..3, alpn in 0_usize..3,
        ) {
            let names = ["*", "a.test", "*.test", "*.b.test", "c.b.test", "*.c.b.test"];
            let (nets, protocols) = ([None, Some("10.0.0.0/24"), Some("10.0.0.1/32")], [None, Some("h2"), Some("pg")]);
            let entries: Vec<_> =
                rules.iter().enumerate().map(|(i, r)| entry(names[r.0], nets[r.1], protocols[r.2], i)).collect();
            let asked = [None, Some("A.test"), Some("c.b.test"), Some("d.c.b.test"), Some("test"), Some("x.y.test")];
            let offered: &[&[Vec<u8>]] = &[&[], &[b"h2".to_vec()], &[b"x".to_vec(), b"pg".to_vec()]];
            let facts = StreamFacts {
                client: [10, 0, 0, client].into(), server_name: asked[name], alpn: offered[alpn],
            };
            prop_assert_eq!(StreamTable::new(entries.clone()).find(&facts), naive(&entries, &facts));
        }
    }

    #[test]
    fn a_hello_is_needed_only_where_a_rule_asks_for_it() {
        assert!(!StreamTable::new([entry("*", Some("10.0.0.0/8"), None, 0)]).needs_hello());
        assert!(StreamTable::new([entry("*", None, Some("h2"), 0)]).needs_hello());
        assert!(StreamTable::new([entry("*.test", None, None, 0)]).needs_hello());
    }
}
