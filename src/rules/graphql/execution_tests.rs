//! Tests of execution in rounds, over a small schema.

use super::*;

const SCHEMA: &str = "
    type Query { user(id: ID!): User users(first: Int = 2): [User!]! node(id: ID!): Node broken: User! }
    type Mutation { add(name: String!): User }
    interface Node { id: ID! }
    type User implements Node { id: ID! name: String posts: [Post!] age: Int }
    type Post implements Node { id: ID! title: String author: User }
";

fn engine() -> Engine {
    let schema = Schema::parse_and_validate(SCHEMA, "schema.graphql").expect("a schema");
    let call = |number: usize, path: &str, method: http::Method| {
        FieldSource::Call(Box::new(FieldResolver {
            number,
            method,
            path: path.parse().expect("a text"),
            query: if number == 1 { vec![("limit".into(), "{args.first}".parse().expect("a text"))] } else { vec![] },
            body: (number == 4).then(|| r#"{"name": {args.name}}"#.parse().expect("a text")),
            take: if number == 1 { vec!["items".into()] } else { vec![] },
        }))
    };
    let sources = [
        (("Query", "user"), call(0, "/users/{args.id}", http::Method::GET)),
        (("Query", "users"), call(1, "/users", http::Method::GET)),
        (("User", "posts"), call(2, "/users/{parent.id}/posts", http::Method::GET)),
        (("Post", "author"), call(0, "/users/{parent.author_id}", http::Method::GET)),
        (("Query", "node"), call(3, "/nodes/{args.id}", http::Method::GET)),
        (("Query", "broken"), call(3, "/broken", http::Method::GET)),
        (("Mutation", "add"), call(4, "/users", http::Method::POST)),
        (("User", "age"), FieldSource::Member("years".into())),
    ];
    let sources = sources.into_iter().map(|((kind, field), source)| ((kind.into(), field.into()), source));
    Engine {
        schema,
        sources: sources.collect(),
        introspection: false,
        max_calls: 20,
        max_values: 200,
        max_bytes: 2_000,
    }
}

/// Executes a query over a server, and returns the response with the targets that were called, by round.
fn run(query: &str, variables: Value) -> (Value, Vec<Vec<String>>) {
    let engine = engine();
    let document = apollo_compiler::ast::Document::parse(query, "query").expect("a document");
    let prepared = match engine.prepare(&document, None, variables.as_object().expect("an object")) {
        Ok(prepared) => prepared,
        Err(error) => return (error.response(), Vec::new()),
    };
    let (mut results, mut rounds) = (HashMap::new(), Vec::new());
    loop {
        match engine.round(&prepared, &results).expect("a round") {
            Round::Done(response) => return (response, rounds),
            Round::Calls(calls) => {
                rounds.push(calls.iter().map(|call| format!("{} {}", call.method, call.target)).collect());
                for call in calls {
                    let result = serve(&call);
                    results.insert(call.key, result);
                }
            }
        }
    }
}

fn serve(call: &FieldCall) -> ResolvedCall {
    let user = |id: &str| json!({"id": id, "name": format!("n{id}"), "years": 30});
    let document = match call.target.as_str() {
        "/users?limit=2" => json!({"items": [user("1"), user("2")]}),
        "/users/1/posts" | "/users/2/posts" => json!([{"id": 9, "title": "t", "author_id": "1"}]),
        "/users" => json!({"id": "new", "name": call.body}),
        "/nodes/p" => json!({"__typename": "Post", "id": "p", "title": "node"}),
        "/nodes/x" => json!({"id": "x"}),
        "/broken" => return Err("the call failed: target_reset".to_owned()),
        path => user(path.rsplit('/').next().expect("an id")),
    };
    Ok(serde_json::from_value(document).expect("JSON"))
}

#[test]
fn equal_calls_are_made_once_and_others_together() {
    let (response, rounds) = run("{users{name age posts{title author{name}}} user(id:1){id}}", json!({}));
    let post = json!({"title": "t", "author": {"name": "n1"}});
    assert_eq!(
        response,
        json!({"data": {
            "users": [{"name": "n1", "age": 30, "posts": [post]}, {"name": "n2", "age": 30, "posts": [post]}],
            "user": {"id": "1"}
        }})
    );
    assert_eq!(
        rounds,
        [vec!["GET /users?limit=2", "GET /users/1"], vec!["GET /users/1/posts", "GET /users/2/posts"]],
        "the author is known from the first round"
    );
}

#[test]
fn variables_abstract_types_and_errors() {
    let (response, _) = run("query($id:ID!){node(id:$id){__typename id ...on Post{title}}}", json!({"id": "p"}));
    assert_eq!(response, json!({"data": {"node": {"__typename": "Post", "id": "p", "title": "node"}}}));
    let (response, _) = run("{node(id:\"x\"){id}}", json!({}));
    assert!(response["data"]["node"].is_null() && response["errors"][0]["path"] == json!(["node"]), "{response}");
    let (response, _) = run("{broken{id} user(id:2){id}}", json!({}));
    assert!(response["data"].is_null(), "{response}");
    assert_eq!(response["errors"][0]["message"], "the call failed: target_reset");
    for (query, variables) in [
        ("{nothing}", json!({})),
        ("query($id:ID!){node(id:$id){id}}", json!({})),
        ("{user{id}}", json!({})),
        ("{users(first:\"x\"){id}}", json!({})),
    ] {
        let (response, rounds) = run(query, variables);
        assert!(response["errors"][0]["message"].is_string() && rounds.is_empty(), "{query}: {response}");
        assert!(response.get("data").is_none());
    }
    let (response, rounds) = run("{__schema{types{name}}}", json!({}));
    assert!(response["errors"][0]["message"].is_string() && rounds.is_empty(), "{response}");
}

#[test]
fn mutations_run_one_after_the_other_and_are_not_shared() {
    let (response, rounds) = run("mutation{a:add(name:\"x\"){name} b:add(name:\"x\"){id}}", json!({}));
    assert_eq!(rounds, [["POST /users"], ["POST /users"]]);
    assert_eq!(response, json!({"data": {"a": {"name": "{\"name\": \"x\"}"}, "b": {"id": "new"}}}));
}

#[test]
fn results_have_a_limit() {
    let mut query = "id name".to_owned();
    for _ in 0..8 {
        query = format!("id posts{{id author{{{query}}}}}");
    }
    let engine = engine();
    let text = format!("{{users{{{query}}}}}");
    let document = apollo_compiler::ast::Document::parse(text, "query").expect("a document");
    let prepared = engine.prepare(&document, None, &serde_json::Map::new()).expect("an operation");
    let posts: Vec<Value> = (0..5).map(|_| json!({"id": 9, "author_id": "1"})).collect();
    let mut results = HashMap::new();
    let failed = loop {
        match engine.round(&prepared, &results) {
            Ok(Round::Calls(calls)) => {
                for call in calls {
                    let document = if call.target.ends_with("posts") {
                        Ok(serde_json::from_value(json!(posts)).expect("JSON"))
                    } else {
                        serve(&call)
                    };
                    results.insert(call.key, document);
                }
            }
            other => break other.err(),
        }
    };
    assert_eq!(failed, Some(GraphqlError::new("the result is too large")));
}

#[test]
fn calls_have_a_limit() {
    let fields: String = (0..30).map(|number| format!("u{number}:user(id:{number}){{id}} ")).collect();
    let (response, rounds) = run(&format!("{{{fields}}}"), json!({}));
    assert_eq!(rounds[0].len(), 20);
    assert_eq!(response["errors"].as_array().map(Vec::len), Some(10));
}
