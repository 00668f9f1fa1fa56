//! Vectors of AWS's documentation and of the npm package aws4, and everything that must not be accepted.

use super::*;

const SECRET: &[u8] = b"wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const NOW: u64 = 1_440_938_160;
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Returns a text that is too long for a line here.
fn vector(name: &str) -> &'static str {
    let file = include_str!("../../../tests/vectors/sigv4.json");
    let all: serde_json::Value = serde_json::from_str(file).expect("JSON");
    all[name].as_str().expect("a text").to_owned().leak()
}

/// A request: method and target, headers, and the body.
struct Sent {
    method: Method,
    target: String,
    headers: HeaderMap,
    body: &'static str,
}

fn sent(line: &str, headers: &[(&'static str, &str)], body: &'static str) -> Sent {
    let (method, target) = line.split_once(' ').expect("a method and a target");
    let headers = headers.iter().map(|(name, value)| {
        (http::HeaderName::from_static(name), value.parse::<http::HeaderValue>().expect("a value"))
    });
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        all.append(name, value);
    }
    Sent { method: method.parse().expect("a method"), target: target.to_owned(), headers: all, body }
}

impl Sent {
    fn request(&self) -> SignedRequest<'_> {
        let (path, query) =
            self.target.split_once('?').map_or((&*self.target, None), |(path, query)| (path, Some(query)));
        SignedRequest { method: &self.method, path, query, headers: &self.headers, authority: "" }
    }

    fn verify(&self, secret: &[u8], now: u64) -> Result<bool, &'static str> {
        let request = self.request();
        let signature = parse(&request)?.ok_or("there is none")?;
        signature.check_time(now, 300)?;
        let body = digest_of_body(self.body.as_bytes());
        let payload = match signature.payload(&request)? {
            SignedPayload::Digest(digest) if digest == body => digest,
            SignedPayload::Digest(_) => return Err("another body"),
            SignedPayload::Unsigned => "UNSIGNED-PAYLOAD",
            SignedPayload::OfBody => &body,
            SignedPayload::Unknown => return Err("unknown"),
        };
        signature.verify(&request, payload, secret)
    }
}

fn authorization(scope: &str, headers: &str, signature: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}/aws4_request, SignedHeaders={headers}, Signature={signature}"
    )
}

/// What the npm package aws4 1.13.2 signs; the first is `get-vanilla` of AWS's own test suite.
fn of_aws4() -> Vec<Sent> {
    let date = ("x-amz-date", "20150830T123600Z");
    let vanilla = authorization(
        "20150830/us-east-1/service",
        "host;x-amz-date",
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    );
    let query = authorization(
        "20150830/eu-central-1/execute-api",
        "host;x-amz-date",
        "a428903d6960c26c8157a41749ce46baae5fdd71f88ab486ddfe1b1c3a045664",
    );
    let post = authorization(
        "20150830/eu-central-1/execute-api",
        "content-length;content-type;host;x-amz-date;x-two",
        "dbf120bf1144f7c793b0e36f28b16dab0e9dbc2a3042ed322fd451a541f6d7f8",
    );
    let put = authorization(
        "20150830/eu-central-1/s3",
        "content-length;content-type;host;x-amz-content-sha256;x-amz-date",
        "d541b9b68887682bedc54f1c6aa321842f8e4def35b50f9dfbfe6db362a9a05b",
    );
    let form = "application/x-www-form-urlencoded; charset=utf-8";
    let hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    vec![
        sent("GET /", &[date, ("host", "example.amazonaws.com"), ("authorization", &vanilla)], ""),
        sent(
            "GET /a%20b/c%2Fd/e?b=2&a=1&a=0&empty=&flag=&x=%20y%2B%C3%A9",
            &[date, ("host", "example.org:8443"), ("authorization", &query)],
            "",
        ),
        sent(
            "POST /orders",
            &[
                date,
                ("host", "example.org"),
                ("content-type", "application/json"),
                ("x-two", " a   b  c "),
                ("content-length", "7"),
                ("authorization", &post),
            ],
            "{\"a\":1}",
        ),
        sent(
            // It takes a plus sign in a path for a blank; targets and other clients do not.
            "PUT /a%20b/%C3%A9/x%20y?prefix=J",
            &[
                date,
                ("host", "bucket.example.org"),
                ("content-type", form),
                ("content-length", "5"),
                ("x-amz-content-sha256", hello),
                ("authorization", &put),
            ],
            "hello",
        ),
        sent(vector("presigned_s3"), &[("host", "bucket.example.org")], ""),
        sent(vector("presigned_api"), &[("host", "api.example.org")], ""),
    ]
}

#[test]
fn what_aws4_signs() {
    for (index, sent) in of_aws4().iter().enumerate() {
        assert_eq!(sent.verify(SECRET, NOW), Ok(true), "{index}");
        assert_eq!(sent.verify(b"another", NOW), Ok(false), "{index}");
    }
}

/// "Examples: Signature calculations" of the documentation of S3, with the header and with a presigned URL.
#[test]
fn examples_of_aws() {
    let secret = b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    let now = 1_369_353_600;
    let header = vector("authorization_example");
    let object = sent(
        "GET /test.txt",
        &[
            ("host", "examplebucket.s3.amazonaws.com"),
            ("range", "bytes=0-9"),
            ("x-amz-content-sha256", EMPTY),
            ("x-amz-date", "20130524T000000Z"),
            ("authorization", header),
        ],
        "",
    );
    assert_eq!(object.verify(secret, now), Ok(true));
    let presigned = sent(vector("presigned_example"), &[("host", "examplebucket.s3.amazonaws.com")], "");
    assert_eq!(presigned.verify(secret, now + 86_400), Ok(true));
    assert_eq!(presigned.verify(secret, now + 86_401), Err("the signature has expired"));
}

#[test]
fn every_part_is_signed() {
    let good = |change: &dyn Fn(&mut Sent)| {
        let mut post = of_aws4().remove(2);
        change(&mut post);
        post.verify(SECRET, NOW)
    };
    assert_eq!(good(&|_| {}), Ok(true));
    assert_eq!(good(&|sent| sent.method = Method::PUT), Ok(false));
    assert_eq!(good(&|sent| sent.target = "/orders/".to_owned()), Ok(false));
    assert_eq!(good(&|sent| sent.target = "/orders?a".to_owned()), Ok(false));
    assert_eq!(good(&|sent| sent.body = "{\"a\":2}"), Ok(false));
    assert_eq!(good(&|sent| drop(sent.headers.insert("host", "other.org".parse().expect("a value")))), Ok(false));
    assert_eq!(good(&|sent| assert!(sent.headers.append("x-two", "more".parse().expect("a value")))), Ok(false));
    assert_eq!(good(&|sent| drop(sent.headers.remove("x-two"))), Err("a signed header is missing"));
    let later = "20150830T123601Z".parse().expect("a value");
    assert_eq!(good(&|sent| drop(sent.headers.insert("x-amz-date", http::HeaderValue::clone(&later)))), Ok(false));
}

#[test]
fn a_plus_sign_is_itself_in_a_path_and_a_blank_in_a_query() {
    let moved = |index: usize, from: &str, to: &str| {
        let mut sent = of_aws4().remove(index);
        sent.target = sent.target.replace(from, to);
        sent.verify(SECRET, NOW)
    };
    // What was signed as a blank is no plus sign, and the other way round.
    assert_eq!(moved(3, "x%20y", "x+y"), Ok(false));
    assert_eq!(moved(1, "y%2B", "y+"), Ok(false));
    assert_eq!(moved(1, "=%20y", "=+y"), Ok(true));
}

#[test]
fn what_is_malformed_or_out_of_time() {
    let host = ("host", "example.org");
    let date = ("x-amz-date", "20150830T123600Z");
    let hex = "0".repeat(64);
    let scope = "20150830/r/s";
    let with = |header: &str| sent("GET /", &[host, date, ("authorization", header)], "").verify(SECRET, NOW);
    for (header, why) in [
        ("Bearer x".to_owned(), "there is none"),
        (authorization(scope, "x-amz-date", &hex), "the host is not signed"),
        (authorization(scope, "x-amz-date;host", &hex), "the list of signed headers is malformed"),
        (authorization(scope, "Host", &hex), "the list of signed headers is malformed"),
        (authorization(scope, "host;host", &hex), "the list of signed headers is malformed"),
        (authorization(scope, "host;x-none", &hex), "a signed header is missing"),
        (authorization("20150831/r/s", "host", &hex), "the date of the signature and of its credential differ"),
        (authorization("20150830/s", "host", &hex), "the credential of the signature is malformed"),
        (authorization(scope, "host", "00"), "the signature is malformed"),
        (authorization(scope, "host", &"0".repeat(63)), "the signature is malformed"),
        (authorization(scope, "host", &hex.replace('0', "G")), "the signature is malformed"),
        ("AWS4-HMAC-SHA256 Credential=x, Signature=y".to_owned(), "the signature lacks a part"),
        ("AWS4-HMAC-SHA256 Credential=x, Credential=x".to_owned(), "the signature is malformed"),
        ("AWS4-HMAC-SHA256 x".to_owned(), "the signature is malformed"),
        ("AWS4-HMAC-SHA256 Algorithm=none".to_owned(), "the signature has an unknown part"),
        ("AWS4-HMAC-SHA512 Credential=x".to_owned(), "there is none"),
    ] {
        assert_eq!(with(&header), Err(why), "{header}");
    }
    let header = authorization(scope, "host", &hex);
    for (dates, why) in [
        (&[][..], "x-amz-date is missing"),
        (&["2015-08-30T12:36:00Z"], "the date of the signature is malformed"),
        (&["20150830T126000Z"], "the date of the signature is malformed"),
        (&["20150830T123600Z", "20150830T123600Z"], "a header of the signature is there twice"),
    ] {
        let mut headers = vec![host, ("authorization", header.as_str())];
        headers.extend(dates.iter().map(|date| ("x-amz-date", *date)));
        assert_eq!(sent("GET /", &headers, "").verify(SECRET, NOW), Err(why), "{dates:?}");
    }
    let vanilla = of_aws4().remove(0);
    assert_eq!(vanilla.verify(SECRET, NOW + 300), Ok(true));
    assert_eq!(vanilla.verify(SECRET, NOW + 301), Err("the signature has expired"));
    assert_eq!(vanilla.verify(SECRET, NOW - 300), Ok(true));
    assert_eq!(vanilla.verify(SECRET, NOW - 301), Err("the signature is not valid yet"));
}

#[test]
fn presigned_urls_that_are_wrong() {
    let good = of_aws4().remove(4).target;
    let with =
        |target: String| sent(&format!("GET {target}"), &[("host", "bucket.example.org")], "").verify(SECRET, NOW);
    assert_eq!(with(good.clone()), Ok(true));
    assert_eq!(with(good.replace("a=2", "a=3")), Ok(false));
    assert_eq!(with(good.replace("Expires=600", "Expires=601")), Ok(false));
    assert_eq!(with(good.replace("Expires=600", "Expires=604801")), Err("the presigned URL is valid for too long"));
    assert_eq!(with(good.replace("Expires=600", "Expires=0")), Err("the presigned URL is valid for too long"));
    assert_eq!(with(good.replace("Expires=600", "Expires=x")), Err("the presigned URL is malformed"));
    assert_eq!(with(good.replace("-SHA256&", "-SHA1&")), Err("the algorithm of the signature is not known"));
    assert_eq!(with(format!("{good}&X-Amz-Expires=600")), Err("the presigned URL has a part twice"));
    assert_eq!(with(format!("{good}&X-Amz-Signature=")), Err("the presigned URL has a part twice"));
    assert_eq!(
        with(good.replace("&X-Amz-Date=20150830T123600Z", "").replace("?X-Amz-Date=20150830T123600Z&", "?")),
        Err("the presigned URL lacks a part")
    );
    let both = sent(&format!("GET {good}"), &[("authorization", "AWS4-HMAC-SHA256 x")], "");
    assert_eq!(both.verify(SECRET, NOW), Err("there are several signatures"));
}
