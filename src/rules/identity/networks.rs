//! Sets of networks as sorted disjoint ranges of addresses, with an index by the first bits: a look-up among a million
//! touches a few lines of the cache.

use std::net::IpAddr;

use ipnet::IpNet;

/// The most networks of a list in a file.
pub const MAX_NETWORKS: usize = 4_000_000;

/// A set of addresses, given as networks.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

/// Disjoint ranges in ascending order, both ends included. The starts stand apart, since only they are searched.
#[derive(Clone, Debug, Default)]
struct Ranges<T> {
    starts: Box<[T]>,
    ends: Box<[T]>,
    /// How many ranges start below each value of the first 16 bits; empty where there are few.
    index: Box<[u32]>,
}

/// From so many ranges on there is an index, which takes 256 KiB.
const MIN_INDEXED: usize = 4_096;

/// The number of values of the first 16 bits.
const FIRST_VALUES: usize = 1 << 16;

/// An address as a number.
trait Number: Copy + Ord {
    fn next(self) -> Option<Self>;
    /// Returns the first 16 bits.
    fn first(self) -> usize;
}

impl Number for u32 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn first(self) -> usize {
        (self >> 16) as usize
    }
}

impl Number for u128 {
    fn next(self) -> Option<Self> {
        self.checked_add(1)
    }

    fn first(self) -> usize {
        (self >> 112) as usize
    }
}

impl<T: Number> Ranges<T> {
    /// Joins ranges that overlap or touch each other.
    fn new(mut ranges: Vec<(T, T)>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
        for (start, end) in ranges {
            match joined.last_mut() {
                Some(last) if last.1.next().is_none_or(|next| start <= next) => last.1 = last.1.max(end),
                _ => joined.push((start, end)),
            }
        }
        let mut index = Vec::new();
        if joined.len() >= MIN_INDEXED {
            index.reserve_exact(FIRST_VALUES + 1);
            let mut below = 0;
            for value in 0..=FIRST_VALUES {
                while joined.get(below).is_some_and(|range| range.0.first() < value) {
                    below += 1;
                }
                index.push(u32::try_from(below).unwrap_or(u32::MAX));
            }
        }
        let (starts, ends) = joined.into_iter().unzip::<T, T, Vec<T>, Vec<T>>();
        Self { starts: starts.into(), ends: ends.into(), index: index.into() }
    }

    fn contains(&self, number: T) -> bool {
        let first = number.first();
        let (from, to) = match (self.index.get(first), self.index.get(first + 1)) {
            (Some(from), Some(to)) => (*from as usize, *to as usize),
            _ => (0, self.starts.len()),
        };
        let behind = from + self.starts[from..to].partition_point(|start| *start <= number);
        behind > 0 && number <= self.ends[behind - 1]
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(net) => v4.push((u32::from(net.network()), u32::from(net.broadcast()))),
                IpNet::V6(net) => match net.network().to_ipv4_mapped() {
                    // Addresses of IPv4 are looked up as such (RFC 4291, section 2.5.5.2).
                    Some(first) if net.prefix_len() >= 96 => {
                        let last = net.broadcast().to_ipv4_mapped().unwrap_or(first);
                        v4.push((u32::from(first), u32::from(last)));
                    }
                    _ => v6.push((u128::from(net.network()), u128::from(net.broadcast()))),
                },
            }
        }
        Self { v4: Ranges::new(v4), v6: Ranges::new(v6) }
    }
}

impl Networks {
    /// Reads a list of networks and addresses, one a line; empty lines and what follows `#` or `;` are ignored.
    ///
    /// # Errors
    /// Returns the line that is neither a network nor an address, or that the list is too long.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let (mut networks, mut rest, mut number) = (Vec::new(), text, 0_usize);
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let line = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            number += 1;
            let line = line[..memchr::memchr2(b'#', b';', line).unwrap_or(line.len())].trim_ascii();
            if line.is_empty() {
                continue;
            }
            let Some(network) = parse_network(line) else {
                return Err(format!("line {number} is neither a network such as 10.0.0.0/8 nor an address"));
            };
            if networks.len() == MAX_NETWORKS {
                return Err(format!("it has more than {MAX_NETWORKS} networks"));
            }
            networks.push(network);
        }
        Ok(networks.into_iter().collect())
    }

    /// Returns whether the address is in one of the networks.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(v4) => self.v4.contains(u32::from(v4)),
            IpAddr::V6(v6) => self.v6.contains(u128::from(v6)),
        }
    }

    /// Returns the number of disjoint ranges.
    pub fn range_count(&self) -> usize {
        self.v4.starts.len() + self.v6.starts.len()
    }

    /// Returns how many bytes the ranges take.
    pub fn bytes(&self) -> usize {
        let ranges = self.v4.starts.len() * 2 * size_of::<u32>() + self.v6.starts.len() * 2 * size_of::<u128>();
        ranges + (self.v4.index.len() + self.v6.index.len()) * size_of::<u32>()
    }
}

fn parse_network(line: &[u8]) -> Option<IpNet> {
    let text = std::str::from_utf8(line).ok()?;
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(Into::into)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn networks(list: &[&str]) -> Networks {
        list.iter().map(|text| text.parse::<IpNet>().expect("a network")).collect()
    }

    #[test]
    fn the_edges_of_networks() {
        let set = networks(&["10.0.0.0/8", "192.0.2.7/32", "0.0.0.0/32", "255.255.255.255/32", "2001:db8::/32"]);
        for (address, is_in) in [
            ("9.255.255.255", false),
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("192.0.2.6", false),
            ("192.0.2.7", true),
            ("0.0.0.0", true),
            ("0.0.0.1", false),
            ("255.255.255.255", true),
            ("255.255.255.254", false),
            ("::ffff:10.1.2.3", true),
            ("2001:db8::1", true),
            ("2001:db9::", false),
            ("::a00:1", false),
        ] {
            assert_eq!(set.contains(address.parse().expect("an address")), is_in, "{address}");
        }
        assert!(networks(&["0.0.0.0/0"]).contains([255, 255, 255, 255].into()));
        assert!(networks(&["::/0"]).contains("ffff::".parse().expect("an address")));
        assert!(!networks(&["::/0"]).contains([10, 0, 0, 1].into()), "networks of IPv6 have no addresses of IPv4");
        assert!(networks(&["::ffff:10.0.0.0/104"]).contains([10, 0, 0, 1].into()));
        assert!(!Networks::default().contains([10, 0, 0, 1].into()));
        assert_eq!(networks(&["10.0.0.0/9", "10.128.0.0/9", "10.1.0.0/16"]).range_count(), 1, "neighbours are joined");
    }

    #[test]
    fn lists_and_the_lines_that_are_wrong() {
        let list =
            Networks::parse(b"# a list\n10.0.0.0/8 ; the office\r\n\n  192.0.2.7\n2001:db8::/32").expect("a list");
        assert_eq!(list.range_count(), 3);
        assert!(list.contains([192, 0, 2, 7].into()));
        for wrong in ["10.0.0.0/33", "10.0.0", "x", "10.0.0.0/8 10.0.0.0/9", "\u{e9}"] {
            let error = Networks::parse(format!("10.0.0.0/8\n{wrong}\n").as_bytes()).expect_err(wrong);
            assert!(error.starts_with("line 2 "), "{wrong}: {error}");
        }
    }

    /// Enough ranges for an index, whose edges are those of the first 16 bits.
    #[test]
    fn many_as_a_search_through_all() {
        let nets: Vec<IpNet> = (0..6_000_u32)
            .flat_map(|n| {
                let bits = n.wrapping_mul(0x9e37_79b1) & !0xff;
                let wide = (u128::from(bits) << 96) | u128::from(n);
                [IpNet::new(IpAddr::V4(bits.into()), 24), IpNet::new(IpAddr::V6(wide.into()), 128)]
            })
            .chain([IpNet::new([0, 0, 0, 0].into(), 32), IpNet::new([255, 254, 0, 0].into(), 15)])
            .map(|net| net.expect("a network"))
            .collect();
        let set: Networks = nets.iter().copied().collect();
        assert!(!set.v4.index.is_empty() && !set.v6.index.is_empty());
        let edges = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
        for address in edges.step_by(7).flat_map(|address| match address {
            IpAddr::V4(v4) => {
                let bits = u32::from(v4);
                [bits, bits.wrapping_sub(1), bits.wrapping_add(1)].map(|bits| IpAddr::V4(bits.into()))
            }
            IpAddr::V6(v6) => {
                let bits = u128::from(v6);
                [bits, bits.wrapping_sub(1), bits.wrapping_add(1)].map(|bits| IpAddr::V6(bits.into()))
            }
        }) {
            let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
            let found = nets.iter().any(|net| net.contains(&address));
            assert!(is_mapped || set.contains(address) == found, "{address}");
        }
    }

    proptest! {
        /// The ranges contain what a search through all networks finds. Few different bits make networks overlap.
        #[test]
        fn as_a_search_through_all(
            v4 in proptest::collection::vec((0_u32..64, 24_u8..=32), 0..24),
            v6 in proptest::collection::vec((0_u128..64, 120_u8..=128), 0..24),
            asked in proptest::collection::vec(0_u32..80, 40),
        ) {
            let nets: Vec<IpNet> = v4.iter()
                .map(|(bits, prefix)| IpNet::new(IpAddr::V4((*bits).into()), *prefix).expect("a network"))
                .chain(v6.iter().map(|(bits, prefix)| {
                    IpNet::new(IpAddr::V6((*bits | 1 << 120).into()), *prefix).expect("a network")
                }))
                .collect();
            let set: Networks = nets.iter().copied().collect();
            for asked in asked {
                for address in [IpAddr::V4(asked.into()), IpAddr::V6((u128::from(asked) | 1 << 120).into())] {
                    let found = nets.iter().any(|net| net.contains(&address));
                    prop_assert_eq!(set.contains(address), found, "{}", address);
                }
            }
        }
    }
}
