//! Configurations that are valid, or nearly, and most likely not what was intended.

use super::harness::gateway::run;

fn check(text: &str) -> (i32, String) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("c.yaml"), text).expect("written");
    let (code, _, errors) = run(&["check", "c.yaml"], Some(folder.path()));
    (code, errors)
}

#[test]
fn a_listener_without_routes_and_a_path_with_a_slash_are_warnings() {
    let text = "
listeners: [{name: main, address: 127.0.0.1:0}, {name: idle, address: 127.0.0.2:0}]
routes:
  - {name: a, listeners: main, match: {path: /a/}, action: {respond: {}}}
  - {name: b, listeners: main, match: {path: [/b/, '/b/*']}, action: {respond: {}}}
  - {name: c, listeners: main, match: {path: [/, /c, '/{x}/']}, action: {respond: {}}}
";
    let (code, errors) = check(text);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(
        errors,
        "warning: c.yaml:2:49: listeners[1]: no route is for this listener: all requests are rejected with 404 \
         (route_not_found)
warning: c.yaml:4:46: routes[0].match.path: matches /a/ and nothing below it: /a/* is a prefix
warning: c.yaml:6:54: routes[2].match.path[2]: matches /{x}/ and nothing below it: /{x}/* is a prefix
"
    );
}

/// The names of the routes that hide another one, each before the route that it hides.
fn hidden(routes: &str) -> Vec<String> {
    let (code, errors) = check(&format!("listeners: [{{name: main, address: 127.0.0.1:0}}]\nroutes:\n{routes}"));
    assert_eq!(code, 0, "{errors}");
    errors.lines().map(str::to_owned).collect()
}

fn route(name: &str, matches: &str) -> String {
    format!("  - {{name: {name}, match: {{{matches}}}, action: {{respond: {{}}}}}}\n")
}

#[test]
fn a_route_that_one_with_a_host_hides_is_a_warning() {
    let (app, health) = (route("app", "host: app.test"), route("health", "path: /healthz"));
    let warnings = hidden(&(app.clone() + &health));
    assert_eq!(
        warnings,
        ["warning: c.yaml:4:20: routes[1].match: requests of the host app.test for /healthz take the route \"app\", \
          which names the host: a host has precedence over a path. If this route is for them too, name the host here as \
          well"]
    );
    for (other, is_hidden) in [
        (route("app", "host: '*.test', path: '/*'"), true),
        (route("app", "host: app.test, path: '/{any}'"), true),
        (route("app", "host: app.test, path: '~^/h'"), true),
        (route("app", "host: app.test, methods: [GET]"), true),
        // It is another path, the same one, or a more specific one.
        (route("app", "host: app.test, path: '/api/*'"), false),
        (route("app", "host: app.test, path: /healthz"), false),
        // Further conditions show that the route is meant to precede.
        (route("app", "host: app.test, headers: {x-a: b}"), false),
        (route("app", "host: app.test, client: 10.0.0.0/8"), false),
        // The host has a route of its own for that path.
        (app.clone() + &route("own", "host: app.test, path: /healthz"), false),
        (route("app", "host: '*'"), false),
    ] {
        assert_eq!(hidden(&(other.clone() + &health)).len(), usize::from(is_hidden), "{other}");
    }
    let posts = route("health", "path: /healthz, methods: [POST]");
    assert_eq!(hidden(&(route("app", "host: app.test, methods: [GET]") + &posts)), Vec::<String>::new());
    // A route for all other requests is not hidden by a more specific one.
    assert_eq!(hidden(&(app.clone() + &route("rest", "path: '/*'"))), Vec::<String>::new());
    // Another host has it itself, and this one has not.
    let two = app + &route("other", "host: other.test") + &route("own", "host: other.test, path: /healthz");
    assert_eq!(hidden(&(two + &health)).len(), 1);
}

#[test]
fn many_hosts_and_routes_are_compared_in_little_time() {
    let mut routes = String::new();
    for n in 0..20_000 {
        routes.push_str(&route(&format!("h{n}"), &format!("host: h{n}.test")));
        routes.push_str(&route(&format!("r{n}"), &format!("path: /r{n}/x")));
    }
    let start = std::time::Instant::now();
    assert_eq!(hidden(&routes).len(), 100, "as many as are shown");
    // In a debug build on a loaded machine it takes seconds; as many pairs as there are would take many minutes.
    assert!(start.elapsed() < std::time::Duration::from_secs(120), "{:?}", start.elapsed());
}

#[test]
fn what_is_counted_by_consumer_needs_one() {
    let config = |defaults: &str, filters: &str, action: &str| {
        format!(
            "listeners: [{{name: main, address: 127.0.0.1:0}}]
upstreams:
  users: {{targets: 127.0.0.1:1, balance: {{hash: {{by: consumer}}}}}}
  other: {{targets: 127.0.0.1:2}}
consumers: {{one: {{credentials: {{api_key: {{value: key-of-one}}}}}}}}
defaults: {{filters: [{defaults}]}}
routes: [{{name: a, filters: [{filters}], action: {action}}}]
"
        )
    };
    let limit = "{rate_limit: {limit: 5/s, by: [consumer, route]}}";
    let both = "{forward: {split: [{upstream: users, weight: 1}, {upstream: other, weight: 1}], split_by: consumer}}";
    let (code, errors) = check(&config("", limit, both));
    assert!(
        code == 2 && errors.contains("c.yaml:7:56: routes[0].filters[0].rate_limit.by: the route does not"),
        "{errors}"
    );
    let (code, errors) = check(&config(limit, "", both));
    assert_eq!(code, 0, "{errors}");
    for part in [
        "defaults.filters[0].rate_limit.by: no route with this limit authenticates",
        "routes[0].action.forward.split_by: the route does not authenticate",
        "routes[0].action: the upstream \"users\" hashes by consumer, and this route does not authenticate",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert_eq!(check(&config(limit, "{api_key: {}}", both)), (0, String::new()));
    assert_eq!(check(&config("{api_key: {}}", limit, both)), (0, String::new()));
}

#[test]
fn a_certificate_that_ends_is_a_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let day = |days: i64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        chrono::DateTime::from_timestamp(now as i64 + days * 86_400, 0).expect("a time")
    };
    let text = "listeners: [{name: main, address: 127.0.0.1:0, tls: {certificates: {cert: c.pem, key: c.key}}}]
routes: [{name: a, action: {respond: {}}}]\n";
    std::fs::write(folder.path().join("c.yaml"), text).expect("written");
    for (from, to, warning) in [
        (-10, -1, Some("the certificate expired on")),
        (-80, 10, Some("the certificate expires on")),
        (-1, 80, None),
        // A short-lived one is renewed when a third is left.
        (-1, 5, None),
        (-5, 1, Some("in 0 days")),
        (1, 80, Some("is not valid before")),
    ] {
        let mut parameters = rcgen::CertificateParams::new(vec!["a.test".to_owned()]).expect("parameters");
        let date = |days| {
            use chrono::Datelike;
            let day = day(days);
            rcgen::date_time_ymd(day.year(), day.month() as u8, day.day() as u8)
        };
        (parameters.not_before, parameters.not_after) = (date(from), date(to));
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        std::fs::write(folder.path().join("c.pem"), certificate.pem()).expect("written");
        std::fs::write(folder.path().join("c.key"), key.serialize_pem()).expect("written");
        let (code, _, errors) = run(&["check", "c.yaml"], Some(folder.path()));
        assert_eq!(code, 0, "{errors}");
        match warning {
            Some(part) => assert!(errors.contains(part) && errors.contains("certificates[0]: "), "{part}: {errors}"),
            None => assert_eq!(errors, "", "{from} to {to}"),
        }
    }
}

#[test]
fn a_header_with_the_caller_of_a_route_that_authenticates_nobody_is_a_warning() {
    let with = |value: &str, filters: &str| {
        check(&format!(
            "listeners: [{{name: main, address: 127.0.0.1:0}}]
consumers: {{a: {{credentials: [{{api_key: {{value: key-of-a-0123456789}}}}]}}}}
routes:
  - name: a
    filters: [{filters}headers: {{always: {{set: {{x-who: \"{value}\"}}}}}}]
    action: {{respond: {{}}}}
"
        ))
    };
    for value in ["{consumer}", "by {claim.sub}"] {
        let (code, errors) = with(value, "");
        assert!(
            code == 0 && errors.contains("routes[0].filters[0].headers") && errors.contains("are empty"),
            "{errors}"
        );
    }
    for (value, filters) in [("{consumer|none}", ""), ("{consumer}", "api_key: {}, "), ("{client}", "")] {
        assert!(!with(value, filters).1.contains("are empty"), "{value}");
    }
}
