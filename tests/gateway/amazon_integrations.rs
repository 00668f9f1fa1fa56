//! OpenAPI documents with the integrations of Amazon API Gateway.

use serde_json::json;

use super::harness::gateway::{Gateway, run};
use super::harness::lambda::{Functions, Returned, header};
use super::harness::target::Target;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const KEY: &str = "credentials: {key: {access_key_id: AKIDEXAMPLE, secret_access_key: \
                   wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY}}";

/// The document whose GET /hello calls a function.
const HELLO: &str = r#"{
  "swagger": "2.0",
  "info": {"title": "Hello", "version": "1.0"},
  "paths": {
    "/hello": {
      "get": {
        "responses": {"200": {"description": "A greeting"}},
        "x-amazon-apigateway-integration": {
          "type": "aws_proxy",
          "httpMethod": "POST",
          "uri": "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/arn:aws:lambda:us-east-1:123456789012:function:my-function/invocations",
          "passthroughBehavior": "when_no_match"
        }
      }
    }
  }
}
"#;

fn greet(_: &str, event: &serde_json::Value) -> Returned {
    let name = event["queryStringParameters"]["name"].as_str().unwrap_or("world");
    Returned::json(&json!({"statusCode": 200, "headers": {"x-f": "1"}, "body": format!("hello {name}")}).to_string())
}

fn start(document: &str, yaml: &str) -> Gateway {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("api.json"), document).expect("written");
    Gateway::start_in(folder, yaml, &[])
}

#[test]
fn a_swagger_file_with_an_aws_proxy_integration_calls_its_function() {
    let functions = Functions::start(SECRET, greet);
    let gateway = start(
        HELLO,
        &format!(
            "
upstreams: {{aws: {{targets: ['{}']}}}}
routes: [{{name: api, openapi: {{file: api.json}}, action: {{amazon_integrations: {{lambda: aws, {KEY}}}}}}}]
",
            functions.target.address
        ),
    );
    let got = gateway.get("/hello?name=ada");
    assert_eq!((got.status, got.text().as_str(), got.header("x-f")), (200, "hello ada", Some("1")));
    let call = functions.calls()[0].clone();
    assert!(
        call.target.starts_with(
            "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Afunction%3Amy-function/"
        )
    );
    assert_eq!(header(&call, "host").as_deref(), Some("lambda.us-east-1.amazonaws.com"));
    // A REST API has version 1.0, and one value of each parameter.
    let event = functions.event();
    assert_eq!((&event["version"], &event["resource"]), (&json!("1.0"), &json!("/hello")));
    assert_eq!((&event["httpMethod"], &event["requestContext"]["accountId"]), (&json!("GET"), &json!("123456789012")));
    let got = gateway.request("POST", "/hello", &[("content-length", "0")]);
    assert_eq!((got.status, got.header("allow").is_some()), (405, true));
    assert_eq!(gateway.get("/other").status, 404);
}

const ALL: &str = r##"
openapi: 3.0.3
info: {title: All, version: '1'}
servers: [{url: /v1}]
paths:
  /pets/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: integer}}]
    get:
      parameters: [{name: tag, in: query, schema: {type: string}}]
      x-amazon-apigateway-integration:
        type: http_proxy
        httpMethod: GET
        uri: http://${stageVariables.host}/animals/{number}?fixed=1
        requestParameters:
          integration.request.path.number: method.request.path.id
          integration.request.querystring.label: method.request.querystring.tag
          integration.request.header.X-From: "'gateway'"
          integration.request.header.X-Agent: method.request.header.User-Agent
    x-amazon-apigateway-any-method:
      x-amazon-apigateway-integration:
        type: aws_proxy
        httpMethod: POST
        uri: arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/arn:aws:lambda:us-east-1:123456789012:function:${stageVariables.fn}:live/invocations
        payloadFormatVersion: '2.0'
        timeoutInMillis: 5000
  /files/{proxy+}:
    parameters: [{name: proxy, in: path, required: true, schema: {type: string}}]
    x-amazon-apigateway-any-method:
      x-amazon-apigateway-integration:
        type: http_proxy
        httpMethod: ANY
        uri: http://orders.example.com/store/{proxy}
  /functions/{rest+}:
    get:
      parameters: [{name: rest, in: path, required: true, schema: {type: string}}]
      x-amazon-apigateway-integration:
        type: AWS_PROXY
        httpMethod: POST
        uri: arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions/arn:aws:lambda:us-east-1:123456789012:function:rest/invocations
  /mock:
    options:
      x-amazon-apigateway-integration:
        type: mock
        requestTemplates: {application/json: '{"statusCode": 204}'}
        responses:
          "204":
            statusCode: "204"
            responseParameters: {method.response.header.Access-Control-Allow-Origin: "'*'"}
    get:
      x-amazon-apigateway-integration:
        type: mock
        responses: {default: {statusCode: 201, responseTemplates: {application/json: '{"a":1}'}}}
"##;

fn all(functions: &Functions, orders: &Target) -> Gateway {
    start(
        ALL,
        &format!(
            "
upstreams: {{aws: {{targets: ['{}']}}, orders: {{targets: ['{}']}}}}
routes:
  - name: api
    openapi: {{file: api.json}}
    action:
      amazon_integrations:
        lambda: aws
        http: {{'http://orders.example.com': orders}}
        stage: prod
        stage_variables: {{fn: pets, host: orders.example.com}}
        {KEY}
",
            functions.target.address, orders.address
        ),
    )
}

#[test]
fn each_operation_does_what_its_integration_says() {
    let (functions, orders) = (Functions::start(SECRET, greet), Target::echo("orders"));
    let gateway = all(&functions, &orders);
    let seen = gateway.request("GET", "/v1/pets/7?tag=a%20b", &[("user-agent", "curl/8")]).json();
    assert_eq!(seen["target"], "/animals/7?fixed=1&label=a%20b&tag=a%20b", "{seen}");
    // What has no value is left out, and what is mapped is not the client's.
    for (query, target) in [
        ("", "/animals/7?fixed=1"),
        ("?tag=", "/animals/7?fixed=1&tag="),
        ("?label=x&%6Cabel=y&other=1", "/animals/7?fixed=1&other=1"),
        ("?label=x&tag=a", "/animals/7?fixed=1&label=a&tag=a"),
    ] {
        assert_eq!(gateway.get(&format!("/v1/pets/7{query}")).json()["target"], target, "{query}");
    }
    let headers = &seen["headers"];
    assert_eq!((&headers["x-from"], &headers["x-agent"]), (&json!("gateway"), &json!("curl/8")), "{headers}");
    assert_eq!(headers["host"], "orders.example.com");
    // The document's rules hold for the gateway as well.
    assert_eq!(gateway.get("/v1/pets/x").status, 400);
    let got = gateway.request("DELETE", "/v1/pets/8", &[]);
    assert_eq!((got.status, got.text().as_str()), (200, "hello world"));
    let call = functions.calls()[0].clone();
    assert!(call.target.ends_with("%3Afunction%3Apets/invocations?Qualifier=live"), "{}", call.target);
    let event = functions.event();
    assert_eq!((&event["version"], &event["routeKey"]), (&json!("2.0"), &json!("DELETE /pets/{id}")));
    assert_eq!(event["pathParameters"], json!({"id": "8"}));
    assert_eq!(event["stageVariables"]["fn"], "pets");
    assert_eq!(event["requestContext"]["stage"], "prod");
    for (path, to) in [("/v1/files/a", "/store/a"), ("/v1/files/a/b%20c?x=1", "/store/a/b%20c?x=1")] {
        assert_eq!(gateway.request("PUT", path, &[("content-length", "0")]).json()["target"], to);
    }
    assert_eq!(gateway.get("/v1/files").status, 404);
    assert_eq!(gateway.get("/v1/functions/a/b").status, 200);
    let event = functions.event();
    assert_eq!((&event["resource"], &event["pathParameters"]), (&json!("/functions/{rest+}"), &json!({"rest": "a/b"})));
    let got = gateway.request("OPTIONS", "/v1/mock", &[]);
    assert_eq!((got.status, got.header("access-control-allow-origin")), (204, Some("*")));
    let got = gateway.get("/v1/mock");
    assert_eq!((got.status, got.text().as_str()), (201, "{\"a\":1}"));
    assert_eq!(got.header("content-type"), Some("application/json"));
}

#[test]
fn what_is_not_supported_is_an_error_with_its_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("wrong.yaml");
    let config = "
listeners: [{name: main, address: 127.0.0.1:0}]
upstreams: {aws: {targets: ['127.0.0.1:1']}}
routes:
  - name: api
    openapi: {file: api.yaml}
    action: {amazon_integrations: {lambda: aws, http: {'https://a.example': aws}, stage_variables: {fn: x}}}
  - {name: none, match: {path: /x}, action: {amazon_integrations: {}}}
";
    let arn = "arn:aws:lambda:us-east-1:123456789012:function";
    let uri = "arn:aws:apigateway:us-east-1:lambda:path/2015-03-31/functions";
    let document = format!(
        "openapi: 3.0.3
info: {{title: x, version: '1'}}
paths:
  /vtl: {{get: {{x-amazon-apigateway-integration: {{type: aws, httpMethod: POST, uri: 'x'}}}}}}
  /http: {{get: {{x-amazon-apigateway-integration: {{type: HTTP, httpMethod: GET, uri: 'https://a.example/'}}}}}}
  /none: {{get: {{}}}}
  /get: {{get: {{x-amazon-apigateway-integration: {{type: aws_proxy, httpMethod: GET, uri: '{uri}/{arn}:f/invocations'}}}}}}
  /uri: {{get: {{x-amazon-apigateway-integration: {{type: aws_proxy, httpMethod: POST, uri: 'https://a.example/'}}}}}}
  /var: {{get: {{x-amazon-apigateway-integration: {{type: aws_proxy, httpMethod: POST, uri: '{uri}/{arn}:${{stageVariables.fx}}/invocations'}}}}}}
  /origin: {{get: {{x-amazon-apigateway-integration: {{type: http_proxy, httpMethod: GET, uri: 'https://b.example/'}}}}}}
  /param: {{get: {{x-amazon-apigateway-integration: {{type: http_proxy, httpMethod: GET, uri: 'https://a.example/{{id}}'}}}}}}
  /sqs: {{get: {{x-amazon-apigateway-integration: {{type: aws_proxy, integrationSubtype: SQS-SendMessage}}}}}}
  /key: {{get: {{x-amazon-apigateway-integration: {{type: mock, response: {{}}, responses: {{default: {{}}}}}}}}}}
  /template: {{get: {{x-amazon-apigateway-integration: {{type: mock, responses: {{default: {{responseTemplates: {{a/b: '$input'}}}}}}}}}}}}
"
    );
    std::fs::write(&file, config).expect("written");
    std::fs::write(folder.path().join("api.yaml"), document).expect("written");
    let (code, out, err) = run(&["check", "-c", file.to_str().expect("a path")], Some(folder.path()));
    let all = format!("{out}{err}");
    assert_ne!(code, 0, "{all}");
    for (line, wanted) in [
        (4, "the type aws is not supported"),
        (5, "the type HTTP is not supported"),
        (6, "the operation has no x-amazon-apigateway-integration"),
        (7, "expected POST"),
        (8, "expected arn:aws:apigateway:REGION"),
        (9, "there is no stage variable \"fx\""),
        (10, "set http to the upstream of this URL"),
        (11, "the parameter {id} has no value"),
        (12, "integrations with other services of AWS are not supported"),
        (13, "an integration has no such key"),
        (14, "the templates of responses (VTL) are not supported"),
    ] {
        let is_it = |text: &&str| text.contains(wanted) && text.contains(&format!("api.yaml:{line}:"));
        assert!(all.lines().any(|text| is_it(&text)), "{line} {wanted}: {all}");
    }
    assert!(all.contains("set openapi on the route"), "{all}");
}
