//! Hashes by example.

use super::super::document::tests::edited;
use super::*;
use proptest::prelude::*;

fn hashed(paths: &[&str], key: Option<&[u8]>, text: &str, cut: usize) -> String {
    let paths: Vec<_> = paths.iter().map(|path| path.parse().expect("a path")).collect();
    let hashes = Hashes::new(&paths, key).expect("few steps");
    String::from_utf8(edited(&hashes, text.as_bytes(), cut)).expect("UTF-8")
}

#[test]
fn by_example() {
    // printf abc | sha256sum, and the same with openssl's -hmac.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let keyed = "9c196e32dc0175f86f4b1cb89289d6619de6bee699e4c378e68309ed97a1a6ab";
    for cut in 1..30 {
        for given in [r#"{"a": "abc" }"#, r#"{"a": "\u0061b\u0063" }"#, r#"{"a": abc }"#] {
            assert_eq!(hashed(&["a"], None, given, cut), format!("{{\"a\": \"{abc}\" }}"), "{given} cut at {cut}");
        }
        assert_eq!(hashed(&["a"], Some(b"key"), r#"{"a":"abc"}"#, cut), format!("{{\"a\":\"{keyed}\"}}"));
        assert_eq!(hashed(&["a"], None, r#"{"a":null ,"b":1}"#, cut), r#"{"a":null ,"b":1}"#);
        let space = hashed(&["a"], None, r#"{"a":{ "x" : [ 1, " " ] }}"#, cut);
        assert_eq!(space, hashed(&["a"], None, r#"{"a":{"x":[1," "]}}"#, 1));
        let nul = hashed(&["a"], None, r#"{"a":"null"}"#, cut);
        assert!(nul.len() > 60, "{nul}");
    }
    let smile = hashed(&["a"], None, "{\"a\":\"\u{1f600}\"}", 9);
    assert_eq!(hashed(&["a"], None, r#"{"a":"\ud83d\uDE00"}"#, 3), smile);
    assert_ne!(hashed(&["a"], None, r#"{"a":"\ud83d"}"#, 3), smile);
    let list = hashed(&["/a/0"], None, r#"{"a":["abc"]}"#, 5);
    assert_eq!(list, format!("{{\"a\":[\"{abc}\"]}}"));
}

proptest! {
    #[test]
    fn of_any_text(text: String, cut in 1_usize..20) {
        let document = format!("{{\"a\":{}}}", serde_json::Value::from(text.as_str()));
        let escaped: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        let wanted = format!("{{\"a\":\"{}\"}}", String::from_utf8(hex(digest.as_ref())).expect("digits"));
        prop_assert_eq!(hashed(&["a"], None, &document, cut), wanted.clone());
        prop_assert_eq!(hashed(&["a"], None, &format!("{{\"a\":\"{escaped}\"}}"), cut), wanted);
    }

    #[test]
    fn whatever_is_sent(text in "[a{}\\[\\],:\" \\\\u0d8n]{0,60}", cut in 1_usize..20) {
        let _ = hashed(&["a", "/0"], None, &text, cut);
    }
}
