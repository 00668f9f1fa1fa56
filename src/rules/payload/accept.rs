//! The choice of a content coding (RFC 9110, sections 8.4.1 and 12.5.3).

use smallvec::SmallVec;

/// A content coding that the gateway can apply to a body and decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Coding {
    /// `zstd` (RFC 8878).
    Zstd,
    /// `br` (RFC 7932).
    Br,
    /// `gzip` (RFC 1952), also known as `x-gzip`.
    Gzip,
}

impl Coding {
    /// All codings, ordered by size of the output for the time spent, smallest first.
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Br, Self::Gzip];

    /// Returns the coding of that name, in whatever case.
    pub fn of(name: &str) -> Option<Self> {
        let is = |other: &str| name.trim().eq_ignore_ascii_case(other);
        Self::ALL.into_iter().find(|coding| is(coding.name())).or_else(|| is("x-gzip").then_some(Self::Gzip))
    }

    /// Returns its name, as it stands in `Content-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }
}

/// A weight in thousandths.
pub(super) type Weight = u16;

/// The weight of a member that has none.
const FULL: Weight = 1000;

/// Returns which of `offered` the values of `Accept-Encoding` like best, and of equals the one that is offered first.
///
/// It is `None` when the body is to stay as it is: no field, none of the codings listed, or `identity` preferred by
/// name. A client that rejects `identity` too gets it nevertheless: RFC 9110 leaves that open, and a body is of more
/// use than 406. A malformed member is ignored; of two members of one name the first counts.
pub fn choose<'v>(values: impl IntoIterator<Item = &'v [u8]>, offered: &[Coding]) -> Option<Coding> {
    let (mut named, mut identity, mut any) = ([None; Coding::ALL.len()], None, None);
    for member in values.into_iter().flat_map(|value| value.split(|byte| *byte == b',')) {
        let Some((name, weight)) = read_member(member) else { continue };
        let slot = match name {
            "*" => &mut any,
            _ if name.eq_ignore_ascii_case("identity") => &mut identity,
            _ => match Coding::of(name) {
                Some(coding) => &mut named[coding as usize],
                None => continue,
            },
        };
        slot.get_or_insert(weight);
    }
    let mut best = (None, identity.unwrap_or(0).max(1));
    for coding in offered {
        let weight = named[*coding as usize].or(any).unwrap_or(0);
        // Of the same weight as `identity` the smaller body is meant.
        if weight > best.1 || (best.0.is_none() && weight == best.1) {
            best = (Some(*coding), weight);
        }
    }
    best.0
}

/// Returns those of `offered` that the client prefers to the body as it is, in the order in which [`choose`] would
/// choose them.
pub fn rank(values: &[&[u8]], offered: &[Coding]) -> SmallVec<[Coding; 3]> {
    let mut left: SmallVec<[Coding; 3]> = offered.into();
    let mut ranked = SmallVec::new();
    while let Some(best) = choose(values.iter().copied(), &left) {
        ranked.push(best);
        left.retain(|coding| *coding != best);
    }
    ranked
}

/// Parses a member such as `gzip;q=0.5`.
pub(super) fn read_member(member: &[u8]) -> Option<(&str, Weight)> {
    let mut parts = std::str::from_utf8(member).ok()?.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let weight = parts.find_map(|part| part.strip_prefix(['q', 'Q'])?.trim_start().strip_prefix('='));
    Some((name, weight.map_or(Some(FULL), |text| read_weight(text.trim_start()))?))
}

/// Parses a weight of at most three decimals (RFC 9110, section 12.4.2).
fn read_weight(text: &str) -> Option<Weight> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let decimals =
        decimals.bytes().chain([b'0'; 3]).take(3).fold(0, |sum, digit| sum * 10 + Weight::from(digit - b'0'));
    match whole {
        "0" => Some(decimals),
        "1" if decimals == 0 => Some(FULL),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chosen(value: &str) -> Option<&'static str> {
        choose([value.as_bytes()], &Coding::ALL).map(Coding::name)
    }

    #[test]
    fn the_order_of_preference() {
        for (value, wanted) in [
            ("", &[][..]),
            ("gzip, br", &[Coding::Br, Coding::Gzip]),
            ("gzip, br;q=0.5, identity;q=0.7", &[Coding::Gzip]),
            ("*", &Coding::ALL),
            ("gzip;q=0, *", &[Coding::Zstd, Coding::Br]),
        ] {
            assert_eq!(rank(&[value.as_bytes()], &Coding::ALL).as_slice(), wanted, "{value}");
        }
    }

    #[test]
    fn by_weight_and_then_by_our_order() {
        for (value, wanted) in [
            ("", None),
            ("identity", None),
            ("gzip", Some("gzip")),
            ("x-GZip", Some("gzip")),
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("gzip, deflate, br", Some("br")),
            ("gzip;q=1.0, br;q=0.5, zstd;q=0.001", Some("gzip")),
            ("br ; q=0.8 , gzip ;Q = 0.9", Some("gzip")),
            ("*", Some("zstd")),
            ("*;q=0.5, gzip;q=0.2", Some("zstd")),
            ("*;q=0, gzip", Some("gzip")),
            ("zstd;q=0, *", Some("br")),
            ("gzip;q=0", None),
            ("*;q=0", None),
            ("identity;q=0", None),
            ("identity;q=0, gzip;q=0.1", Some("gzip")),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some("gzip")),
            ("gzip;q=0.5, identity;q=0.4", Some("gzip")),
            ("deflate, compress", None),
            ("gzip;q=2", None),
            ("gzip;q=0.1234", None),
            ("gzip;q=x, br;q=0.1", Some("br")),
            ("gzip;q=1.000", Some("gzip")),
            ("gzip;q=1.001", None),
            ("gzip;level=9", Some("gzip")),
            ("gzip;q=0, gzip", None),
            (",, ,gzip,", Some("gzip")),
        ] {
            assert_eq!(chosen(value), wanted, "{value:?}");
        }
        assert_eq!(choose([], &Coding::ALL), None);
        assert_eq!(choose([b"\xff, gzip".as_slice()], &Coding::ALL), Some(Coding::Gzip));
        assert_eq!(choose([b"gzip;q=0.5".as_slice(), b"br"], &Coding::ALL), Some(Coding::Br));
        assert_eq!(choose([b"gzip, br".as_slice()], &[Coding::Gzip, Coding::Br]), Some(Coding::Gzip));
        assert_eq!(choose([b"zstd".as_slice()], &[Coding::Gzip, Coding::Br]), None);
    }

    proptest! {
        /// Compares the choice with a model that sorts.
        #[test]
        fn the_best_of_all(
            weights in proptest::collection::vec(0_u16..=1000, 4),
            order in Just(Coding::ALL.to_vec()).prop_shuffle(),
        ) {
            let text = |name: &str, weight: u16| format!("{name};q={}.{:03}", weight / 1000, weight % 1000);
            let named = Coding::ALL.iter().zip(&weights);
            let mut value: Vec<_> = named.map(|(coding, weight)| text(coding.name(), *weight)).collect();
            value.push(text("identity", weights[3]));
            let mut all: Vec<_> = order.iter().map(|coding| (weights[*coding as usize], Some(*coding))).collect();
            all.push((weights[3], None));
            all.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
            let wanted = if all[0].0 == 0 { None } else { all[0].1 };
            prop_assert_eq!(choose([value.join(", ").as_bytes()], &order), wanted);
        }

        #[test]
        fn whatever_is_sent(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = choose([value.as_slice()], &Coding::ALL);
        }
    }
}
