//! Swagger 2.0 (OpenAPI Specification 2.0) as OpenAPI 3.0: what is different about paths, parameters, bodies and
//! responses. Schemas stay where they are, so that references to them hold.

use serde_json::{Map, Value, json};

use super::load::METHODS;

/// The key of an operation of API Gateway for all other methods.
pub const ANY_METHOD: &str = "x-amazon-apigateway-any-method";

/// The keywords of a parameter that are those of a schema.
const OF_SCHEMA: &[&str] = &[
    "type",
    "format",
    "items",
    "default",
    "enum",
    "maximum",
    "exclusiveMaximum",
    "minimum",
    "exclusiveMinimum",
    "maxLength",
    "minLength",
    "pattern",
    "maxItems",
    "minItems",
    "uniqueItems",
    "multipleOf",
];

/// Returns a document of Swagger 2.0 as one of OpenAPI 3.0.
pub fn of_swagger(document: &Value) -> Value {
    let Value::Object(mut out) = document.clone() else { return Value::Null };
    out.remove("swagger");
    out.insert("openapi".to_owned(), "3.0.3".into());
    let base = document.get("basePath").and_then(Value::as_str).unwrap_or("/");
    out.insert("servers".to_owned(), json!([{"url": base}]));
    let media = |key: &str| types(document.get(key)).unwrap_or_else(|| vec!["application/json".to_owned()]);
    let converter = Converter { document, consumes: media("consumes"), produces: media("produces") };
    if let Some(Value::Object(shared)) = out.get_mut("parameters") {
        shared.values_mut().for_each(|parameter| *parameter = of_parameter(parameter));
    }
    if let Some(Value::Object(shared)) = out.get_mut("responses") {
        shared.values_mut().for_each(|response| of_response(response, &converter.produces));
    }
    if let Some(Value::Object(paths)) = out.get_mut("paths") {
        paths.values_mut().filter_map(Value::as_object_mut).for_each(|item| converter.path_item(item));
    }
    out.into()
}

struct Converter<'d> {
    document: &'d Value,
    consumes: Vec<String>,
    produces: Vec<String>,
}

impl Converter<'_> {
    fn path_item(&self, item: &mut Map<String, Value>) {
        let shared = self.list(item.get("parameters"));
        let is_body = |parameter: &&Value| matches!(place(parameter), "body" | "formData");
        let bodies: Vec<Value> = shared.iter().filter(is_body).cloned().collect();
        if item.contains_key("parameters") {
            let others = shared.iter().filter(|one| !is_body(one)).map(of_parameter).collect();
            item.insert("parameters".to_owned(), others);
        }
        for method in METHODS.iter().chain(&[ANY_METHOD]) {
            if let Some(Value::Object(operation)) = item.get_mut(*method) {
                self.operation(operation, &bodies);
            }
        }
    }

    /// Returns parameters, those that are written elsewhere in the document in place of their references.
    fn list(&self, list: Option<&Value>) -> Vec<Value> {
        let of = |parameter: &Value| {
            let reference = parameter.get("$ref").and_then(Value::as_str);
            let local = reference.and_then(|reference| reference.strip_prefix('#'));
            local.and_then(|pointer| self.document.pointer(pointer)).unwrap_or(parameter).clone()
        };
        list.and_then(Value::as_array).into_iter().flatten().map(of).collect()
    }

    fn operation(&self, operation: &mut Map<String, Value>, shared: &[Value]) {
        let consumes = types(operation.get("consumes")).unwrap_or_else(|| self.consumes.clone());
        let produces = types(operation.get("produces")).unwrap_or_else(|| self.produces.clone());
        let own = self.list(operation.get("parameters"));
        let is_own = |one: &Value| own.iter().any(|own| own.get("name") == one.get("name") && place(own) == place(one));
        let all: Vec<&Value> = own.iter().chain(shared.iter().filter(|one| !is_own(one))).collect();
        let body = all.iter().find(|one| place(one) == "body");
        let form: Vec<&Value> = all.iter().filter(|one| place(one) == "formData").copied().collect();
        if let Some(body) = body {
            let schema = body.get("schema").cloned().unwrap_or_else(|| json!({}));
            let required = body.get("required").cloned().unwrap_or_else(|| false.into());
            operation.insert(
                "requestBody".to_owned(),
                json!({"required": required, "content": content(&consumes, &schema)}),
            );
        } else if !form.is_empty() {
            operation.insert("requestBody".to_owned(), form_body(&form, &consumes));
        }
        let others: Vec<Value> =
            all.iter().filter(|one| !matches!(place(one), "body" | "formData")).map(|one| of_parameter(one)).collect();
        operation.insert("parameters".to_owned(), others.into());
        if let Some(Value::Object(responses)) = operation.get_mut("responses") {
            responses.values_mut().for_each(|response| of_response(response, &produces));
        }
    }
}

/// Returns where a parameter is.
fn place(parameter: &Value) -> &str {
    parameter.get("in").and_then(Value::as_str).unwrap_or_default()
}

fn types(list: Option<&Value>) -> Option<Vec<String>> {
    let list: Vec<String> = list?.as_array()?.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect();
    (!list.is_empty()).then_some(list)
}

fn content(types: &[String], schema: &Value) -> Value {
    types.iter().map(|kind| (kind.clone(), json!({"schema": schema}))).collect::<Map<_, _>>().into()
}

/// Returns a parameter whose type stands in its schema, and whose list has a style.
fn of_parameter(parameter: &Value) -> Value {
    let Value::Object(mut out) = parameter.clone() else { return parameter.clone() };
    if out.contains_key("$ref") {
        return out.into();
    }
    let mut schema = Map::new();
    for key in OF_SCHEMA {
        if let Some(value) = out.remove(*key) {
            schema.insert((*key).to_owned(), value);
        }
    }
    let is_list = schema.get("type").is_some_and(|kind| kind == "array");
    if is_list && matches!(place(parameter), "query") {
        let format = out.remove("collectionFormat");
        let (style, explode) = match format.as_ref().and_then(Value::as_str) {
            Some("multi") => ("form", true),
            Some("ssv") => ("spaceDelimited", false),
            Some("pipes") => ("pipeDelimited", false),
            _ => ("form", false),
        };
        out.insert("style".to_owned(), style.into());
        out.insert("explode".to_owned(), explode.into());
    }
    out.insert("schema".to_owned(), schema.into());
    out.into()
}

fn form_body(form: &[&Value], consumes: &[String]) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for one in form {
        let Some(name) = one.get("name").and_then(Value::as_str) else { continue };
        let schema = of_parameter(one).get("schema").cloned().unwrap_or_default();
        let is_file = schema.get("type").is_some_and(|kind| kind == "file");
        let schema = if is_file { json!({"type": "string", "format": "binary"}) } else { schema };
        properties.insert(name.to_owned(), schema);
        if one.get("required") == Some(&Value::Bool(true)) {
            required.push(name.to_owned());
        }
    }
    let is_form = |kind: &&String| kind.contains("form");
    let types: Vec<String> = consumes.iter().filter(is_form).cloned().collect();
    let types = if types.is_empty() { vec!["application/x-www-form-urlencoded".to_owned()] } else { types };
    let schema = json!({"type": "object", "properties": properties, "required": required});
    json!({"required": !required.is_empty(), "content": content(&types, &schema)})
}

/// Moves the schema and the examples of a response to its media types.
fn of_response(response: &mut Value, produces: &[String]) {
    let Some(members) = response.as_object_mut() else { return };
    let schema = members.remove("schema");
    let examples = members.remove("examples");
    let mut media = Map::new();
    for kind in produces.iter().filter(|_| schema.is_some()) {
        media.insert(kind.clone(), json!({"schema": schema}));
    }
    if let Some(Value::Object(examples)) = examples {
        for (kind, example) in examples {
            let entry = media.entry(kind).or_insert_with(|| json!({}));
            entry["example"] = example;
        }
    }
    if !media.is_empty() {
        members.insert("content".to_owned(), media.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_converted() {
        let document = json!({
            "swagger": "2.0",
            "basePath": "/v1",
            "consumes": ["application/json"],
            "parameters": {"tenant": {"name": "x-tenant", "in": "header", "type": "string"}},
            "definitions": {"Pet": {"type": "object"}},
            "paths": {
                "/pets": {
                    "parameters": [{"$ref": "#/parameters/tenant"}],
                    "get": {
                        "produces": ["text/csv"],
                        "parameters": [{"name": "tag", "in": "query", "type": "array", "items": {"type": "string"}}],
                        "responses": {"200": {"description": "", "schema": {"$ref": "#/definitions/Pet"}}}
                    },
                    "post": {
                        "parameters": [
                            {"name": "b", "in": "body", "required": true, "schema": {"$ref": "#/definitions/Pet"}}
                        ],
                        "responses": {}
                    },
                    "put": {
                        "parameters": [{"name": "n", "in": "formData", "type": "integer", "required": true}],
                        "responses": {}
                    }
                }
            }
        });
        let out = of_swagger(&document);
        assert_eq!(out["openapi"], "3.0.3");
        assert_eq!(out["servers"][0]["url"], "/v1");
        let item = &out["paths"]["/pets"];
        assert_eq!(item["parameters"], json!([{"name": "x-tenant", "in": "header", "schema": {"type": "string"}}]));
        let tag = &item["get"]["parameters"][0];
        assert_eq!(
            (&tag["schema"]["type"], &tag["style"], &tag["explode"]),
            (&json!("array"), &json!("form"), &json!(false))
        );
        let pet = json!({"schema": {"$ref": "#/definitions/Pet"}});
        assert_eq!(item["get"]["responses"]["200"]["content"], json!({"text/csv": pet}));
        assert_eq!(item["post"]["requestBody"], json!({"required": true, "content": {"application/json": pet}}));
        let form = &item["put"]["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"];
        assert_eq!((&form["properties"]["n"]["type"], &form["required"]), (&json!("integer"), &json!(["n"])));
    }
}
