//! What is stored of which responses, and how a confirmation changes it.

use super::*;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).expect("a value"));
    }
    headers
}

fn decide(
    request: &StoreRequest,
    status: u16,
    lines: &[(&'static str, &str)],
    rules: &StoreRules,
) -> Option<NotStored> {
    let now = 1_800_000_000_000;
    decide_storing(request, status, &headers(lines), rules, (now, now)).err()
}

fn plain(status: u16, lines: &[(&'static str, &str)]) -> Option<NotStored> {
    decide(&StoreRequest::default(), status, lines, &StoreRules::default())
}

#[test]
fn what_responses_say() {
    let control = |text: &str| plain(200, &[("cache-control", text)]);
    assert_eq!(control("max-age=60"), None);
    assert_eq!(control("max-age=60, no-store"), Some(NotStored::NoStore));
    assert_eq!(control("max-age=60, no-store, must-understand"), None);
    assert_eq!(control("max-age=60, private"), Some(NotStored::Private));
    assert_eq!(control("max-age=60, private=\"x\""), None);
    assert_eq!(control("no-cache"), Some(NotStored::Stale), "it could not be validated");
    assert_eq!(plain(200, &[("cache-control", "no-cache"), ("etag", "\"a\"")]), None);
    assert_eq!(plain(599, &[("cache-control", "max-age=60, no-store, must-understand")]), Some(NotStored::NoStore));
    assert_eq!(plain(200, &[]), Some(NotStored::Stale));
    assert_eq!(plain(200, &[("etag", "\"a\"")]), None);
    assert_eq!(plain(302, &[("etag", "\"a\"")]), Some(NotStored::Stale), "its status is not stored by itself");
    assert_eq!(plain(302, &[("cache-control", "max-age=60")]), None);
    for status in [101, 206, 304] {
        assert_eq!(plain(status, &[("cache-control", "max-age=60")]), Some(NotStored::Status), "{status}");
    }
}

#[test]
fn what_is_of_one_client() {
    let fresh = ("cache-control", "max-age=60");
    let authorized = StoreRequest { is_authorized: true, is_identified: true, ..StoreRequest::default() };
    let of = |lines: &[(&'static str, &str)], rules: &StoreRules| decide(&authorized, 200, lines, rules);
    let shared = StoreRules::default();
    let personal = StoreRules { is_personal: true, ..StoreRules::default() };
    assert_eq!(of(&[fresh], &shared), Some(NotStored::Authorized));
    for permits in ["public, max-age=60", "must-revalidate, max-age=60", "s-maxage=60"] {
        assert_eq!(of(&[("cache-control", permits)], &shared), None, "{permits}");
    }
    assert_eq!(of(&[("cache-control", "private, max-age=60")], &personal), None);
    // Clients without an identity share what is stored for them.
    let anonymous = decide(&StoreRequest::default(), 200, &[("cache-control", "private, max-age=60")], &personal);
    assert_eq!(anonymous, Some(NotStored::Private));
    // An identity counts whatever the credential is, unless responses are the same for all.
    let same = StoreRules { is_same_for_all: true, ..StoreRules::default() };
    let identified = |rules: &StoreRules| StoreRequest::of(&HeaderMap::new(), true, rules).is_authorized;
    assert_eq!((identified(&shared), identified(&same)), (true, false));
    let cookie = ("set-cookie", "a=b");
    assert_eq!(plain(200, &[fresh, cookie]), Some(NotStored::Cookies));
    for cookies in [CookieRule::Remove, CookieRule::Keep] {
        let rules = StoreRules { cookies, ..StoreRules::default() };
        assert_eq!(decide(&StoreRequest::default(), 200, &[fresh, cookie], &rules), None);
    }
    assert_eq!(plain(200, &[("cache-control", "max-age=60, private=\"set-cookie\""), cookie]), None);
    assert_eq!(plain(200, &[fresh, ("vary", "a, *")]), Some(NotStored::Varies));
    let no_store = RequestDirectives { no_store: true, ..RequestDirectives::default() };
    let request = StoreRequest { directives: no_store, ..StoreRequest::default() };
    assert_eq!(decide(&request, 200, &[fresh], &shared), Some(NotStored::Request));
}

#[test]
fn fields_of_the_connection_and_named_ones_are_not_stored() {
    let mut head = headers(&[
        ("connection", "a, content-length"),
        ("a", "1"),
        ("b", "2"),
        ("cache-control", "max-age=5, private=\"c\", no-cache=\"d\""),
        ("c", "3"),
        ("d", "4"),
        ("age", "5"),
        ("keep-alive", "x"),
        ("proxy-authenticate", "x"),
        ("set-cookie", "x"),
        ("content-length", "9"),
    ]);
    prepare_stored(&mut head, CookieRule::Remove);
    let mut left: Vec<&str> = head.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(left, ["b", "cache-control", "content-length"]);
}

#[test]
fn a_confirmation_replaces_fields() {
    let mut stored = headers(&[("a", "1"), ("a", "2"), ("b", "1"), ("content-length", "5"), ("etag", "\"x\"")]);
    let confirming = headers(&[
        ("a", "3"),
        ("c", "4"),
        ("content-length", "0"),
        ("content-range", "bytes 0-1/2"),
        ("content-encoding", "br"),
        ("connection", "d"),
        ("d", "5"),
    ]);
    merge_confirmed(&mut stored, confirming, CookieRule::Skip);
    let all: Vec<(&str, &str)> = stored.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    for wanted in [("a", "3"), ("b", "1"), ("c", "4"), ("content-length", "5"), ("etag", "\"x\"")] {
        assert!(all.contains(&wanted), "{wanted:?} in {all:?}");
    }
    assert_eq!(all.len(), 5);
    let tagged = |tag: &str| headers(&[("etag", tag)]);
    assert!(is_confirmed(&tagged("\"x\""), &tagged("W/\"x\"")) && !is_confirmed(&tagged("\"x\""), &tagged("\"y\"")));
    assert!(is_confirmed(&tagged("\"x\""), &HeaderMap::new()));
}
