//! Expressions: what they mean, what is rejected when they are compiled, and that nothing gets out.

use super::*;
use serde_json::json;

const KNOWN: [(&str, FactKind); 8] = [
    ("request.method", FactKind::Single),
    ("request.path", FactKind::Single),
    ("request.headers", FactKind::Map),
    ("identity.groups", FactKind::List),
    ("identity.claims", FactKind::Map),
    ("identity.many", FactKind::List),
    ("time.hour", FactKind::Single),
    ("tls.secure", FactKind::Single),
];

#[derive(Debug)]
struct Headers;

impl Members for Headers {
    fn member(&self, name: &str) -> Result<Option<Fact<'_>>, String> {
        match name {
            "x-tenant" => Ok(Some(Fact::Text("acme".into()))),
            "x-twice" => Err("it occurs twice".to_owned()),
            _ => Ok(None),
        }
    }
}

#[derive(Debug)]
struct Claims(Json);

impl Members for Claims {
    fn member(&self, name: &str) -> Result<Option<Fact<'_>>, String> {
        Ok(self.0.get(name).map(Fact::Json))
    }
}

struct Request(Claims);

impl Facts for Request {
    fn fact(&self, name: &str) -> Option<Fact<'_>> {
        Some(match name {
            "request.method" => Fact::Text("GET".into()),
            "request.path" => Fact::Text("/orders/7".into()),
            "request.headers" => Fact::Members(&Headers),
            "identity.groups" => Fact::Texts(vec!["admins".into(), "staff".into()]),
            "identity.many" => Fact::Texts(vec!["x".into(); MAX_ITEMS + 1]),
            "identity.claims" => Fact::Members(&self.0),
            "time.hour" => Fact::Number(13),
            "tls.secure" => Fact::Flag(true),
            _ => return None,
        })
    }
}

fn request() -> Request {
    Request(Claims(json!({
        "tenant": "acme", "age": 7, "ratio": 0.5, "roles": ["a", "b"], "address": {"city": "Bonn"}, "none": null,
    })))
}

fn holds(source: &str) -> Result<bool, String> {
    let expression = Expression::compile(source, &KNOWN).unwrap_or_else(|why| panic!("{source}: {why}"));
    expression.holds(&request())
}

#[test]
fn what_expressions_mean() {
    for (source, expected) in [
        ("request.method == 'GET'", true),
        ("request.path.startsWith('/orders/') && time.hour >= 9 && time.hour < 17", true),
        ("request.path.matches('^/orders/[0-9]+$')", true),
        ("request.path.matches('^/orders/$') || request.path.matches('^/orders/7$')", true),
        ("request.headers['x-tenant'] == identity.claims.tenant", true),
        ("'x-tenant' in request.headers && !('x-none' in request.headers)", true),
        ("has(request.headers.host)", false),
        ("has(identity.claims.tenant) && has(identity.claims.address.city)", true),
        ("identity.claims.address.city == 'Bonn' && identity.claims['age'] == 7", true),
        ("identity.claims.age + 1 == 8 && identity.claims.ratio < 1.0", true),
        ("'admins' in identity.groups", true),
        ("identity.groups == ['admins', 'staff']", true),
        ("identity.claims.roles != ['a', 'b']", false),
        ("identity.groups.exists(group, group.startsWith('adm'))", true),
        ("identity.groups.all(group, group in ['admins', 'staff'])", true),
        ("identity.claims.roles.filter(role, role == 'a').size() == 1", true),
        ("tls.secure ? request.method in ['GET', 'HEAD'] : false", true),
        ("identity.claims.none == null", true),
        // An error of one side does not count where the other decides (the language's definition of logic).
        ("identity.claims.missing == 'x' || request.method == 'GET'", true),
    ] {
        assert_eq!(holds(source), Ok(expected), "{source}");
    }
}

#[test]
fn errors_of_evaluations() {
    for (source, why) in [
        ("identity.claims.missing == 'x'", "missing"),
        ("request.headers['x-twice'] == 'x'", "it occurs twice"),
        ("request.headers['x-none'] == 'x'", "x-none"),
        ("identity.claims.age.startsWith('x')", "startsWith"),
        ("identity.claims.tenant < 7", "overload"),
        ("1 / (identity.claims.age - 7) == 1", "zero"),
        ("identity.claims.age + 9223372036854775807 > 0", "verflow"),
        ("'x' in identity.many", "overload"),
        ("identity.many.all(x, x == 'x')", "iterable"),
        ("request.path", "not a truth value"),
        ("identity.claims.age.matches('^7$')", "matchesPattern"),
        ("!identity.claims.tenant", "overload"),
    ] {
        let error = holds(source).expect_err(source);
        assert!(error.contains(why), "{source}: {error}");
        assert!(error.len() <= 900, "{source}: {error}");
    }
}

#[test]
fn what_is_rejected_when_compiled() {
    let long = format!("request.path == '{}'", "x".repeat(MAX_SOURCE));
    let deep = format!("{}true{}", "(".repeat(2_000), ")".repeat(2_000));
    let not = format!("{}true", "!".repeat(4_000));
    let lists = format!("{}1{} == []", "[".repeat(90), "]".repeat(90));
    let sum = vec!["request.path"; 40].join(" + ");
    let ors = vec!["request.path=='x'"; 200].join("||");
    for (source, why) in [
        ("", "column"),
        ("request.path ==", "column"),
        ("request.pfad == 'x'", "did you mean request.path?"),
        ("requests.path == 'x'", "did you mean request.path?"),
        ("request == 'x'", "is no value itself"),
        ("request.path.length == 1", "request.path has no fields"),
        ("foo(1)", "there is no function foo"),
        ("request.path.lowerAscii() == 'x'", "there is no function lowerAscii"),
        ("request.path.matches(request.method)", "constant"),
        ("request.path.matches('(')", "is wrong"),
        ("request.path.matches('((a{99}){99}){99}')", "is wrong"),
        ("request.headers == {}", "holds values by name"),
        ("request.headers.all(name, true)", "holds values by name"),
        ("identity.claims.?x == 1", "column"),
        ("Message{a: 1} == 1", "messages"),
        ("[1].all(request, request == 1)", "cannot be that of a loop's variable"),
        ("identity.groups.all(a, identity.groups.all(b, a == b))", "steps"),
        ("[1,2,3,4,5,6,7,8].all(a, identity.groups.all(b, [1,2,3].all(c, a == c)))", "steps"),
        (long.as_str(), "at most 4096 bytes"),
        (deep.as_str(), "nested too deeply"),
        (not.as_str(), "nested too deeply"),
        (lists.as_str(), "nested too deeply"),
        (sum.as_str(), "additions"),
    ] {
        let error = Expression::compile(source, &KNOWN).err().unwrap_or_else(|| panic!("{source} was accepted"));
        assert!(error.contains(why), "{source}: {error}");
    }
    let many = Expression::compile(&ors, &KNOWN);
    assert!(many.is_ok(), "{:?}", many.err());
}

/// The parser is recursive: what it gets must not exhaust the stack of a thread, whatever is written.
#[test]
fn hostile_sources_do_not_exhaust_the_stack() {
    let parts =
        ["a.", "-", "!", "a+", "a?", "a?b:", "a&&", "a||", "a==", "[", "(", "{1:", "a[", "f(", "a.f(", "'x'+", "in "];
    let work = move || {
        for part in parts {
            for length in [100, 1_000, MAX_SOURCE] {
                let source = part.repeat(length / part.len());
                for end in ["", "a", "1", "true"] {
                    let _ = Expression::compile(&format!("{source}{end}"), &KNOWN);
                }
            }
        }
    };
    // Threads of the runtime have as much.
    let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(work).expect("a thread");
    thread.join().expect("no overflow");
}

#[test]
fn names_of_facts_and_costs() {
    let source = "request.path == 'x' && identity.claims.a == request.path";
    let expression = Expression::compile(source, &KNOWN).expect("it is right");
    assert_eq!(expression.facts(), ["request.path", "identity.claims"]);
    let cost = |source: &str| {
        let program = ENVIRONMENT.as_ref().expect("an interpreter").compile(source).expect("it is right");
        check::check(program.expression(), &KNOWN).expect("it is right").cost
    };
    assert!(cost(source) < 20, "{}", cost(source));
    assert!(cost("identity.groups.exists(g, g == 'x')") > MAX_ITEMS as u64);
}
