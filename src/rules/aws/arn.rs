//! Names of Lambda functions, and the ARNs in which they stand.

use percent_encoding::percent_encode;

use crate::rules::identity::sigv4::UNRESERVED;

/// A function as it is named: `my-function`, `my-function:live`, `123456789012:function:my-function`, or its ARN
/// (`arn:aws:lambda:us-east-1:123456789012:function:my-function:live`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionName {
    /// The name without its version or alias.
    pub name: String,
    /// The region of the ARN.
    pub region: Option<String>,
    /// The account of the ARN.
    pub account: Option<String>,
    /// The version or the alias.
    pub qualifier: Option<String>,
}

impl FunctionName {
    /// Parses a name.
    ///
    /// # Errors
    /// Returns what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted = || {
            format!(
                "expected the name of a function, or its ARN such as \
                 arn:aws:lambda:us-east-1:123456789012:function:my-function, found \"{text}\""
            )
        };
        let parts: Vec<&str> = text.split(':').collect();
        let (head, qualifier, region, account) = match parts.as_slice() {
            ["arn", partition, "lambda", region, account, "function", _, rest @ ..]
                if rest.len() < 2 && partition.starts_with("aws") && !region.is_empty() =>
            {
                (7, rest.first(), Some(*region), Some(*account))
            }
            [account, "function", _, rest @ ..] if rest.len() < 2 => (3, rest.first(), None, Some(*account)),
            [_, rest @ ..] if rest.len() < 2 => (1, rest.first(), None, None),
            _ => return Err(wanted()),
        };
        let fine = |part: &str| {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'$' | b'.');
            !part.is_empty() && part.len() <= 140 && part.bytes().all(is_name)
        };
        let is_account = |account: &str| account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
        if !parts.iter().all(|part| fine(part)) || account.is_some_and(|account| !is_account(account)) {
            return Err(wanted());
        }
        Ok(Self {
            name: parts[..head].join(":"),
            region: region.map(str::to_owned),
            account: account.map(str::to_owned),
            qualifier: qualifier.map(|text| (*text).to_owned()),
        })
    }

    /// Returns the name as a segment of a path.
    pub fn segment(&self) -> String {
        percent_encode(self.name.as_bytes(), UNRESERVED).collect()
    }
}

/// Returns the ARN of the function that the `uri` of an integration of API Gateway names:
/// `arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/ARN/invocations`.
///
/// # Errors
/// Returns what was expected.
pub fn integration_function(uri: &str) -> Result<FunctionName, String> {
    let wanted = || {
        format!(
            "expected arn:aws:apigateway:REGION:lambda:path/2015-03-31/functions/ARN/invocations with the ARN of a \
             function, found \"{uri}\""
        )
    };
    let parts: Vec<&str> = uri.splitn(6, ':').collect();
    let ["arn", partition, "apigateway", _, "lambda", path] = parts.as_slice() else { return Err(wanted()) };
    let arn = path
        .strip_prefix("path/2015-03-31/functions/")
        .and_then(|rest| rest.strip_suffix("/invocations"))
        .filter(|arn| partition.starts_with("aws") && arn.starts_with("arn:"))
        .ok_or_else(wanted)?;
    FunctionName::parse(arn)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:lambda:us-east-1:123456789012:function:my-function";

    #[test]
    fn functions_are_named_in_each_form() {
        let parse = |text: &str| FunctionName::parse(text).expect("a function");
        assert_eq!(parse("my-function").segment(), "my-function");
        assert_eq!(parse("my-function:live").qualifier.as_deref(), Some("live"));
        let arn = parse(&format!("{ARN}:$LATEST"));
        assert_eq!((arn.region.as_deref(), arn.account.as_deref()), (Some("us-east-1"), Some("123456789012")));
        assert_eq!((arn.name.as_str(), arn.qualifier.as_deref()), (ARN, Some("$LATEST")));
        assert_eq!(arn.segment(), "arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Amy-function");
        assert_eq!(parse("123456789012:function:f:7").name, "123456789012:function:f");
        for wrong in
            ["", ":", "a:", "a b", "a/b", "a:b:c", "arn:aws:s3:::b", "12:function:f", "arn:aws:lambda::1:function:f"]
        {
            assert!(FunctionName::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn integrations_name_their_function() {
        let uri = format!("arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/{ARN}/invocations");
        assert_eq!(integration_function(&uri), FunctionName::parse(ARN));
        for wrong in [
            "",
            "https://a/b",
            &uri.replace("/invocations", ""),
            &uri.replace(ARN, "f"),
            &uri.replace("lambda:path", "s3:path"),
        ] {
            assert!(integration_function(wrong).is_err(), "{wrong}");
        }
    }
}
