//! Texts against requests: what is filled in, how it is encoded, and what is an error.

use super::*;
use crate::exchange::Identity;
use proptest::prelude::*;

fn template(text: &str, form: TextForm) -> Result<Template, String> {
    Template::new(text, &TextScope { form, errors: true, params: &|| vec!["id".to_owned(), "*".to_owned()] })
}

fn filled(text: &str, form: TextForm) -> String {
    let mut request =
        RequestHeader::build("GET", b"/v/7%2F/a/b?x=a%0d%0ab&y=%3Cb%3E&z=a%2Fb", None).expect("a request");
    request.append_header("x-a", "1").expect("a header");
    request.append_header("x-a", "2").expect("a header");
    request.append_header("cookie", "c=d").expect("a header");
    let claims = serde_json::json!({"sub": "u", "realm": {"roles": ["a", "b"]}, "n": 5, "a.b": "dotted"});
    let identity = Identity {
        name: "ann".into(),
        consumer: None,
        claims: claims.as_object().cloned().map(Into::into),
        scopes: None,
    };
    let exchange = Exchange { identity: Some(identity), host: "h.example".to_owned(), ..Exchange::default() };
    let pattern: PathPattern = "/v/{id}/*".parse().expect("a pattern");
    let response = Some(ErrorFacts { status: 404, reason: Reason::RouteNotFound, detail: "" });
    let view = RequestView { request: &request, exchange: &exchange, pattern: Some(&pattern), response };
    template(text, form).expect(text).fill_text(&view)
}

#[test]
fn values_are_filled_in() {
    use TextForm::{Header, Html, Json, Plain, Target};
    for (text, form, wanted) in [
        ("{client}", Plain, "127.0.0.1"),
        (
            "{method} {scheme}://{host}{path}{query}",
            Plain,
            "GET http://h.example/v/7%2F/a/b?x=a%0d%0ab&y=%3Cb%3E&z=a%2Fb",
        ),
        ("/u/{id}/{*}", Target, "/u/7%2F/a/b"),
        ("/u?z={query.z}", Target, "/u?z=a%2Fb"),
        ("/u?id={path}&b", Target, "/u?id=/v/7%2F/a/b&b"),
        ("{scheme}://{host}{path}{query}", Target, "http://h.example/v/7%2F/a/b?x=a%0d%0ab&y=%3Cb%3E&z=a%2Fb"),
        ("{header.X-A} {cookie.c} {consumer}", Header, "1, 2 d ann"),
        ("{claim.sub} {claim.realm.roles} {claim.n} {claim.a.b} {claim.none|-}", Header, "u a,b 5 dotted -"),
        ("{header.none|none} {query.none}|{tls.sni|plain}", Header, "none |plain"),
        // A line break would end the header.
        ("{query.x|bad}", Header, "bad"),
        ("<p>{query.y}</p>", Html, "<p>&lt;b&gt;</p>"),
        (r#"{"a": "{query.x}", "b": {"c": 1}}"#, Json, r#"{"a": "a\r\nb", "b": {"c": 1}}"#),
        (
            "p{color:red} {{id} {status} {reason} {title}",
            Plain,
            "p{color:red} {id} 404 route_not_found No route matches this request",
        ),
    ] {
        assert_eq!(filled(text, form), wanted, "{text}");
    }
}

#[test]
fn what_cannot_be_filled_in_is_an_error() {
    for (text, part) in [
        ("{ib}", "did you mean \"id\""),
        ("{clent}", "did you mean \"client\""),
        ("x $remote_addr", "write {client}"),
        ("${http_x_tenant}", "write {header.x-tenant}"),
        ("$arg_page", "write {query.page}"),
        ("%[src]", "write values as"),
        ("%REQ(X)%", "write values as"),
        ("$my_map", "values are written as"),
        ("{ client }", "without spaces"),
        ("{header.a b}", ""),
    ] {
        match template(text, TextForm::Header) {
            Err(why) => assert!(why.contains(part), "{text}: {why}"),
            Ok(_) => assert_eq!(part, "", "{text}"),
        }
    }
    for wrong in
        ["/{", "/b/$1", r"/b/\1", "https://a.example{id}", "https://{id}/", "{id}/x", "//{host}", "/x?a=1{query}"]
    {
        assert!(template(wrong, TextForm::Target).is_err(), "{wrong}");
    }
    let outside = TextScope::outside(TextForm::Header);
    assert!(Template::new("{id}", &outside).is_err());
    assert!(Template::new("{*}", &outside).is_err_and(|why| why.contains("/*")));
    assert_eq!(Template::new("$5 {\"a\":1}", &outside).expect("text").as_text(), Some("$5 {\"a\":1}"));
}

#[test]
fn the_headers_that_a_text_names() {
    assert_eq!(Template::headers_in("{header.X-A} {client} {header.b|c} {{header.c}"), ["x-a", "b", "c"]);
}

proptest! {
    #[test]
    fn whatever_is_written(text in "[a{}|*.$ ]{0,12}") {
        if let Ok(template) = template(&text, TextForm::Header) {
            let request = RequestHeader::build("GET", b"/", None).expect("a request");
            let exchange = Exchange::default();
            let view = RequestView { request: &request, exchange: &exchange, pattern: None, response: None };
            let _ = template.fill(&view);
        }
    }
}
