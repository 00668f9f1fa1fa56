//! The merge of several documents into one. The order is the configured one, never that of arrival.

use std::borrow::Cow;
use std::collections::HashMap;

use super::children::Children;
use super::path::unescaped;

/// What happens to members of one name in several documents that are merged flat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflicts {
    /// That of the first document counts.
    First,
    /// That of the last document counts.
    Last,
    /// There is no result.
    Reject,
}

/// Appends a member to an object that is being written.
pub fn push_member(out: &mut String, name: &str, value: &str) {
    out.push_str(if out.len() > 1 { ",\"" } else { "\"" });
    out.push_str(name);
    out.push_str("\":");
    out.push_str(value);
}

/// Returns an object in which each document stands under its name. The names need no escapes. The last member, if
/// there is one, is the gateway's own.
pub fn merge_named(parts: &[(&str, &str)], own: Option<(&str, &str)>) -> String {
    let length = parts.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>();
    let mut out = String::with_capacity(length + 2 + own.map_or(0, |(name, value)| name.len() + value.len() + 4));
    out.push('{');
    parts.iter().copied().chain(own).for_each(|(name, value)| push_member(&mut out, name, value));
    out.push('}');
    out
}

/// Returns an object with the members of all documents, which are objects. The last member, if there is one, is the
/// gateway's own, and takes the place of any other of its name.
///
/// # Errors
/// Returns the name that several have, where that is rejected.
pub fn merge_flat(parts: &[&str], conflicts: Conflicts, own: Option<(&str, &str)>) -> Result<String, String> {
    let mut owners: HashMap<Cow<'_, str>, usize> = HashMap::new();
    for (at, part) in parts.iter().enumerate() {
        for child in Children::of_object(part).into_iter().flatten() {
            let name = unescaped(child.name);
            match owners.get_mut(&name) {
                Some(owner) if *owner != at => match conflicts {
                    Conflicts::First => {}
                    Conflicts::Last => *owner = at,
                    Conflicts::Reject => return Err(name.into_owned()),
                },
                Some(_) => {}
                None => _ = owners.insert(name, at),
            }
        }
    }
    let mut out = String::with_capacity(parts.iter().map(|part| part.len() + 1).sum::<usize>() + 2);
    out.push('{');
    for (at, part) in parts.iter().enumerate() {
        for child in Children::of_object(part).into_iter().flatten() {
            let name = unescaped(child.name);
            if owners.get(&name) == Some(&at) && own.is_none_or(|(own, _)| own != name) {
                push_member(&mut out, child.name, child.value);
            }
        }
    }
    own.into_iter().for_each(|(name, value)| push_member(&mut out, name, value));
    out.push('}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_stand_in_the_configured_order() {
        assert_eq!(merge_named(&[("b", "1.00"), ("a", "[ 1 ]")], None), r#"{"b":1.00,"a":[ 1 ]}"#);
        assert_eq!(merge_named(&[], Some(("errors", "[]"))), r#"{"errors":[]}"#);
        assert_eq!(merge_named(&[], None), "{}");
    }

    #[test]
    fn conflicts_are_decided_by_order() {
        let parts = [r#"{"a":1,"b":{"x":[]}}"#, r#"{ "\u0061" : 2 , "c":3e400}"#, "{}"];
        assert_eq!(merge_flat(&parts, Conflicts::First, None).as_deref(), Ok(r#"{"a":1,"b":{"x":[]},"c":3e400}"#));
        let last = r#"{"b":{"x":[]},"\u0061":2,"c":3e400}"#;
        assert_eq!(merge_flat(&parts, Conflicts::Last, None).as_deref(), Ok(last));
        assert_eq!(merge_flat(&parts, Conflicts::Reject, None), Err("a".to_owned()));
        let own = merge_flat(&parts, Conflicts::First, Some(("a", "0")));
        assert_eq!(own.as_deref(), Ok(r#"{"b":{"x":[]},"c":3e400,"a":0}"#));
    }

    /// Returns the text of a scalar or small container, of any form.
    fn value() -> impl Strategy<Value = String> {
        prop_oneof![
            "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?",
            "\"([a-z{},:\u{e9} ]|\\\\[\"\\\\n/]){0,12}\"",
            Just("[ 1 , {\"a\" : []} ]".to_owned()),
            Just("null".to_owned()),
        ]
    }

    proptest! {
        /// Every value of the result is a value of a part, byte for byte, and every part that counts is there.
        #[test]
        fn merging_never_invents_or_bends_a_value(
            parts in proptest::collection::vec(proptest::collection::vec(("[a-d]", value()), 0..4), 0..5),
            last: bool,
        ) {
            let texts: Vec<String> = parts
                .iter()
                .map(|members| {
                    let list: Vec<_> = members.iter().map(|(name, value)| format!(" \"{name}\" : {value}")).collect();
                    format!("{{{}}}", list.join(" ,"))
                })
                .collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let conflicts = if last { Conflicts::Last } else { Conflicts::First };
            let flat = merge_flat(&texts, conflicts, None).expect("no conflict is rejected");
            let got: Vec<(String, String)> = Children::of_object(&flat)
                .expect("an object")
                .map(|child| (child.name.to_owned(), child.value.to_owned()))
                .collect();
            let has = |part: &Vec<(String, String)>, name: &str| part.iter().any(|(n, _)| n == name);
            let wanted: Vec<(String, String)> = parts
                .iter()
                .enumerate()
                .flat_map(|(at, part)| part.iter().map(move |member| (at, member)))
                .filter(|(at, (name, _))| {
                    let counts_before = |other: &usize| if last { other > at } else { other < at };
                    let mut others = parts.iter().enumerate().filter(|(other, _)| counts_before(other));
                    !others.any(|(_, part)| has(part, name))
                })
                .map(|(_, member)| member.clone())
                .collect();
            prop_assert_eq!(got, wanted);
            let named: Vec<(&str, &str)> = texts.iter().map(|text| ("n", *text)).collect();
            let values: Vec<String> = Children::of_object(&merge_named(&named, None))
                .expect("an object")
                .map(|child| child.value.to_owned())
                .collect();
            prop_assert_eq!(values, texts);
        }
    }
}
