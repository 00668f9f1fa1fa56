//! All templates of an API in one tree, which is walked along the path of a request.

use ahash::AHashMap;
use http::Method;
use smallvec::SmallVec;

use super::template::{PathTemplate, Segment};

/// The method of HTTP that a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleMethod {
    /// This one.
    Is(Method),
    /// Any method: a custom rule of the kind `*`.
    Any,
}

impl RuleMethod {
    fn takes(&self, method: &Method) -> bool {
        match self {
            Self::Is(own) => own == method,
            Self::Any => true,
        }
    }
}

/// What ends at a node.
#[derive(Debug)]
struct End {
    verb: Option<Box<str>>,
    method: RuleMethod,
    rule: usize,
}

#[derive(Debug, Default)]
struct Node {
    literals: AHashMap<Box<str>, usize>,
    one: Option<usize>,
    /// The rules that end here.
    ends: Vec<End>,
    /// The rules that end here with `**`.
    rest: Vec<End>,
}

/// The tree.
#[derive(Debug)]
pub struct RuleTree {
    nodes: Vec<Node>,
}

/// The rule for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matched {
    /// This rule.
    Rule {
        /// Its number.
        rule: usize,
        /// Whether the last segment ends with a verb, which is no part of it.
        has_verb: bool,
    },
    /// The path has rules for these methods only.
    OtherMethods(Vec<Method>),
    /// The path has no rule.
    None,
}

/// The best rule so far: how many literals it has, and its number.
type Best = Option<(usize, usize)>;

impl Default for RuleTree {
    fn default() -> Self {
        Self { nodes: vec![Node::default()] }
    }
}

impl RuleTree {
    /// Adds a rule.
    ///
    /// # Errors
    /// Returns the rule that has the same method and a template that matches the same paths.
    pub fn add(&mut self, rule: usize, method: &RuleMethod, template: &PathTemplate) -> Result<(), usize> {
        let (mut at, mut is_rest) = (0, false);
        for segment in &template.segments {
            let next = self.nodes.len();
            let found = match segment {
                Segment::Literal(text) => *self.nodes[at].literals.entry(text.clone()).or_insert(next),
                Segment::One => *self.nodes[at].one.get_or_insert(next),
                Segment::Rest => {
                    is_rest = true;
                    break;
                }
            };
            if found == next {
                self.nodes.push(Node::default());
            }
            at = found;
        }
        let node = &mut self.nodes[at];
        let ends = if is_rest { &mut node.rest } else { &mut node.ends };
        if let Some(same) = ends.iter().find(|end| end.verb == template.verb && end.method == *method) {
            return Err(same.rule);
        }
        ends.push(End { verb: template.verb.clone(), method: method.clone(), rule });
        Ok(())
    }

    /// Returns the rule for a request with these decoded segments, the last of which may be one with a verb. Rules with
    /// more literals come first, then those that were added earlier. `HEAD` has the rules of `GET`, if it has none of
    /// its own.
    pub fn find(&self, method: &Method, segments: &[&str], verb: Option<(&str, &str)>) -> Matched {
        let mut others = Vec::new();
        if let (Some((last, verb)), Some((_, before))) = (verb, segments.split_last()) {
            let mut shortened: SmallVec<[&str; 16]> = before.into();
            shortened.push(last);
            match self.find_with(method, &shortened, Some(verb), &mut others) {
                Some(rule) => return Matched::Rule { rule, has_verb: true },
                None if !others.is_empty() => return Matched::OtherMethods(others),
                None => {}
            }
        }
        match self.find_with(method, segments, None, &mut others) {
            Some(rule) => Matched::Rule { rule, has_verb: false },
            None if others.is_empty() => Matched::None,
            None => Matched::OtherMethods(others),
        }
    }

    fn find_with(
        &self,
        method: &Method,
        segments: &[&str],
        verb: Option<&str>,
        others: &mut Vec<Method>,
    ) -> Option<usize> {
        let mut search = Search { tree: self, method, verb, best: None, others };
        search.visit(0, segments, 0);
        if search.best.is_none() && method == Method::HEAD {
            search.method = &Method::GET;
            search.visit(0, segments, 0);
        }
        search.best.map(|(_, rule)| rule)
    }
}

struct Search<'s> {
    tree: &'s RuleTree,
    method: &'s Method,
    verb: Option<&'s str>,
    best: Best,
    others: &'s mut Vec<Method>,
}

impl Search<'_> {
    fn visit(&mut self, at: usize, left: &[&str], literals: usize) {
        // No more can be won than there are segments left.
        if self.best.is_some_and(|(best, _)| best > literals + left.len()) {
            return;
        }
        let node = &self.tree.nodes[at];
        self.ends(&node.rest, literals);
        let Some((first, rest)) = left.split_first() else {
            return self.ends(&node.ends, literals);
        };
        if let Some(next) = node.literals.get(*first) {
            self.visit(*next, rest, literals + 1);
        }
        if let Some(next) = node.one.filter(|_| !first.is_empty()) {
            self.visit(next, rest, literals);
        }
    }

    fn ends(&mut self, ends: &[End], literals: usize) {
        for end in ends.iter().filter(|end| end.verb.as_deref() == self.verb) {
            if end.method.takes(self.method) {
                let is_better = |(best, rule): (usize, usize)| literals > best || literals == best && end.rule < rule;
                if self.best.is_none_or(is_better) {
                    self.best = Some((literals, end.rule));
                }
            } else if let RuleMethod::Is(method) = &end.method {
                for method in [Some(method), (*method == Method::GET).then_some(&Method::HEAD)].into_iter().flatten() {
                    if !self.others.contains(method) {
                        self.others.push(method.clone());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tree(rules: &[(&str, &str)]) -> RuleTree {
        let mut tree = RuleTree::default();
        for (number, (method, template)) in rules.iter().enumerate() {
            let method =
                if *method == "*" { RuleMethod::Any } else { RuleMethod::Is(method.parse().expect("a method")) };
            tree.add(number, &method, &PathTemplate::parse(template).expect("a template")).expect("no conflict");
        }
        tree
    }

    fn find(tree: &RuleTree, method: &str, path: &str) -> Matched {
        let segments: Vec<&str> = path.split('/').skip(1).filter(|_| path != "/").collect();
        let verb = segments.last().and_then(|last| last.rsplit_once(':'));
        tree.find(&method.parse().expect("a method"), &segments, verb)
    }

    #[test]
    fn more_literals_win_and_then_the_order() {
        let tree = tree(&[
            ("GET", "/{a=**}"),
            ("GET", "/v1/{a}"),
            ("GET", "/v1/items"),
            ("GET", "/{a}/x/y"),
            ("GET", "/v/{b}/{c}"),
            ("GET", "/{a}/items"),
            ("POST", "/v1/{a}:cancel"),
            ("GET", "/v1/{a=b/**}:get"),
            ("*", "/any"),
            ("HEAD", "/own"),
            ("GET", "/own"),
        ]);
        let rule = |rule, has_verb| Matched::Rule { rule, has_verb };
        for (method, path, expected) in [
            ("GET", "/", rule(0, false)),
            ("GET", "/v1", rule(0, false)),
            ("GET", "/v1/x", rule(1, false)),
            ("HEAD", "/v1/x", rule(1, false)),
            ("GET", "/v1/items", rule(2, false)),
            ("GET", "/v2/items", rule(5, false)),
            ("GET", "/v/x/y", rule(3, false)),
            ("GET", "/v/x/z", rule(4, false)),
            ("GET", "/v1/x/", rule(0, false)),
            ("POST", "/v1/x:cancel", rule(6, true)),
            ("POST", "/v1/x:y:cancel", rule(6, true)),
            ("GET", "/v1/x:cancel", Matched::OtherMethods(vec![Method::POST])),
            ("GET", "/v1/x:unknown", rule(1, false)),
            ("GET", "/v1/b/c/d:get", rule(7, true)),
            ("GET", "/v1/b:get", rule(7, true)),
            ("DELETE", "/any", rule(8, false)),
            ("HEAD", "/own", rule(9, false)),
            ("POST", "/v1/x", Matched::OtherMethods(vec![Method::GET, Method::HEAD])),
        ] {
            assert_eq!(find(&tree, method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn equal_templates_conflict() {
        let mut tree = tree(&[("GET", "/v1/{a}"), ("GET", "/v2/{a=**}")]);
        let get = RuleMethod::Is(Method::GET);
        assert_eq!(tree.add(9, &get, &PathTemplate::parse("/v1/{b=*}").expect("a template")), Err(0));
        assert_eq!(tree.add(9, &get, &PathTemplate::parse("/v2/**").expect("a template")), Err(1));
        assert_eq!(tree.add(9, &get, &PathTemplate::parse("/v1/{b}:c").expect("a template")), Ok(()));
        assert_eq!(tree.add(9, &RuleMethod::Any, &PathTemplate::parse("/v1/*").expect("a template")), Ok(()));
        assert_eq!(tree.find(&Method::GET, &["v3"], None), Matched::None);
        // An encoded colon is part of the segment.
        assert_eq!(tree.find(&Method::GET, &["v1", "x:c"], None), Matched::Rule { rule: 0, has_verb: false });
    }

    /// Whether a template matches the segments, without a tree.
    fn naive(template: &PathTemplate, segments: &[&str]) -> bool {
        let mut left = segments;
        for segment in &template.segments {
            match (segment, left.split_first()) {
                (Segment::Rest, _) => return true,
                (Segment::Literal(text), Some((first, rest))) if **text == **first => left = rest,
                (Segment::One, Some((first, rest))) if !first.is_empty() => left = rest,
                _ => return false,
            }
        }
        left.is_empty()
    }

    proptest! {
        #[test]
        fn the_tree_finds_what_all_rules_in_turn_find(
            templates in proptest::collection::vec("(/(a|b|\\*)){0,4}(/\\*\\*)?", 1..30),
            path in "(/(a|b|c)){0,5}",
        ) {
            let mut tree = RuleTree::default();
            let templates: Vec<PathTemplate> = templates
                .iter()
                .map(|text| PathTemplate::parse(if text.is_empty() { "/" } else { text }).expect("a template"))
                .collect();
            for (number, template) in templates.iter().enumerate() {
                let _ = tree.add(number, &RuleMethod::Is(Method::GET), template);
            }
            let segments: Vec<&str> = path.split('/').skip(1).collect();
            let all = templates.iter().enumerate().filter(|(_, template)| naive(template, &segments));
            let best = all.max_by_key(|(number, template)| (template.literals(), std::cmp::Reverse(*number)));
            let found = match tree.find(&Method::GET, &segments, None) {
                Matched::Rule { rule, .. } => Some(rule),
                _ => None,
            };
            prop_assert_eq!(found, best.map(|(number, _)| number));
        }
    }
}
