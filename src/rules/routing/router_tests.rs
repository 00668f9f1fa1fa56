//! The router, compared with a model that tries every entry and takes the greatest rank.

use super::*;
use proptest::prelude::*;
use std::sync::Arc;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn entry(host: &str, path: &str, methods: &[Method], route: usize) -> RouteEntry {
    RouteEntry {
        host: host.parse().expect("host"),
        path: path.parse().expect("path"),
        predicates: Arc::new(Predicates { methods: methods.to_vec(), ..Predicates::default() }),
        route,
        operation: EntryOperation::None,
    }
}

fn find(router: &Router, host: &str, path: &str, method: &Method) -> RouteMatch {
    let headers = HeaderMap::new();
    router.find(&RequestFacts { host, path, query: None, method, headers: &headers, client: CLIENT })
}

#[test]
fn precedence_by_example() {
    let router = Router::new(vec![
        entry("*", "/*", &[], 0),
        entry("*", "/api/*", &[], 1),
        entry("*", "/api/users", &[], 2),
        entry("*", "/api/{kind}", &[], 3),
        entry("*", "~^/api/u", &[], 4),
        entry("*.example.com", "/*", &[], 5),
        entry("api.example.com", "/x", &[Method::GET], 6),
        entry("*", "/api/users", &[Method::POST], 7),
    ]);
    let get = Method::GET;
    for (host, path, route) in [
        ("h", "/", 0),
        ("h", "/other", 0),
        ("h", "/api", 1),
        ("h", "/api/", 1),
        ("h", "/api/users", 2),
        ("h", "/api/things", 3),
        ("h", "/api/users/1", 4),
        ("h", "/api/things/1", 1),
        ("h", "/apix", 0),
        ("a.b.example.com", "/api/users", 5),
        ("example.com", "/api/users", 2),
        ("api.example.com", "/x", 6),
        ("api.example.com", "/y", 5),
    ] {
        assert_eq!(find(&router, host, path, &get), RouteMatch::Found(route), "{host}{path}");
    }
    assert_eq!(find(&router, "h", "/api/users", &Method::POST), RouteMatch::Found(7));
    assert_eq!(find(&router, "api.example.com", "/x", &Method::HEAD), RouteMatch::Found(6));
}

#[test]
fn a_method_that_no_route_takes() {
    let router = Router::new(vec![entry("*", "/a", &[Method::GET], 0), entry("*", "/a", &[Method::PUT], 1)]);
    let verdict = find(&router, "h", "/a", &Method::DELETE);
    assert_eq!(verdict, RouteMatch::MethodNotAllowed(vec![Method::GET, Method::PUT]));
    assert_eq!(find(&router, "h", "/b", &Method::DELETE), RouteMatch::NotFound);
}

#[test]
fn conflicts() {
    let plain = entry("*", "/a/{x}", &[], 0);
    assert!(plain.conflicts(&entry("*", "/a/{y}", &[], 1)));
    assert!(!plain.conflicts(&entry("*", "/a/{y}", &[Method::GET], 1)));
    assert!(entry("*", "/a", &[Method::GET, Method::PUT], 0).conflicts(&entry("*", "/a", &[Method::PUT], 1)));
    assert!(!entry("*", "/a", &[Method::GET], 0).conflicts(&entry("*", "/a", &[Method::PUT], 1)));
    assert!(!plain.conflicts(&entry("h", "/a/{x}", &[], 1)));
}

/// Returns whether a path matches a pattern, by a direct implementation of the rules.
fn model_path(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Regex(expression) => expression.is_match(path),
        PathPattern::Segments { segments, rest } => {
            let steps: Vec<&str> = path.split('/').skip(1).collect();
            let enough = if *rest { steps.len() >= segments.len() } else { steps.len() == segments.len() };
            enough
                && segments.iter().zip(&steps).all(|(segment, step)| match segment {
                    Segment::Literal(text) => text == step,
                    Segment::Param(_) => !step.is_empty(),
                })
        }
    }
}

fn model_host(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Any => true,
        HostPattern::Exact(name) => name == host,
        HostPattern::Below(suffix) => host.strip_suffix(suffix.as_str()).is_some_and(|h| h.ends_with('.')),
    }
}

fn some_path() -> impl Strategy<Value = String> {
    let step = prop_oneof![Just("a"), Just("b"), Just("*"), Just("{p}")];
    let tail = prop_oneof![Just(""), Just("/*"), Just("/")];
    let segments = (proptest::collection::vec(step, 1..4), tail).prop_filter_map("once", |(steps, tail)| {
        (steps.iter().filter(|s| **s == "{p}").count() < 2).then(|| format!("/{}{tail}", steps.join("/")))
    });
    prop_oneof![4 => segments, 1 => Just("~^/a".to_owned()), 1 => Just("~b$".to_owned()), 1 => Just("/*".to_owned())]
}

proptest! {
    #[test]
    fn agrees_with_the_model(
        routes in proptest::collection::vec(
            (prop_oneof![Just("*"), Just("x.y"), Just("*.y")], some_path(), any::<bool>()),
            1..12,
        ),
        host in prop_oneof![Just("x.y"), Just("z.y"), Just("w.z.y"), Just("y"), Just("")],
        path in "(/[abc]){1,4}/?",
        put in any::<bool>(),
    ) {
        let entries: Vec<RouteEntry> = routes.iter().enumerate()
            .map(|(i, (host, path, get))| entry(host, path, if *get { &[Method::GET] } else { &[] }, i))
            .collect();
        let method = if put { Method::PUT } else { Method::GET };
        let fits = |e: &&RouteEntry| model_host(&e.host, host) && model_path(&e.path, &path);
        let best = entries.iter().filter(fits)
            .filter(|e| e.predicates.methods.is_empty() || !put)
            .max_by(|a, b| a.rank().cmp(&b.rank()));
        let wanted = match best {
            Some(entry) => RouteMatch::Found(entry.route),
            None if entries.iter().any(|e| fits(&e)) => RouteMatch::MethodNotAllowed(vec![Method::GET]),
            None => RouteMatch::NotFound,
        };
        let router = Router::new(entries);
        prop_assert_eq!(find(&router, host, &path, &method), wanted);
    }
}
