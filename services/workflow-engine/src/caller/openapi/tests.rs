//! What becomes of a document and parameters.

use muster_workflow_dsl::document::ResponseFormat;
use muster_workflow_dsl::request::Resource;
use serde_json::json;

use super::*;

fn call(operation: &str, parameters: Value) -> OpenApi {
    OpenApi {
        document: Resource {
            name: None,
            endpoint: Destination {
                uri: "https://docs.example/v1/openapi.yaml".into(),
                authentication: None,
            },
        },
        operation: operation.into(),
        parameters: serde_json::from_value(parameters).unwrap(),
        authentication: None,
        output: ResponseFormat::Content,
        redirect: false,
    }
}

fn request(document: &str, operation: &str, parameters: Value) -> Result<Http, String> {
    let call = call(operation, parameters);
    described(document, &call.document.endpoint.uri, &call).map_err(|failure| failure.detail)
}

const THREE: &str = r"
openapi: 3.0.3
servers: [{url: 'https://{stage}.example/api/', variables: {stage: {default: test}}}]
paths:
  /pets/{petId}:
    parameters:
      - {name: petId, in: path, required: true, schema: {type: string}}
    get:
      operationId: getPet
      parameters:
        - $ref: '#/components/parameters/Fields'
        - {name: tags, in: query, explode: false, schema: {type: array}}
        - {name: filter, in: query, style: deepObject, schema: {type: object}}
        - {name: X-Trace, in: header, schema: {type: string}}
        - {name: session, in: cookie, schema: {type: string}}
    put:
      operationId: putPet
      servers: [{url: /other}]
      requestBody: {required: true, content: {application/xml: {}, application/json: {}}}
components:
  parameters:
    Fields: {name: fields, in: query, schema: {type: array}}
";

#[test]
fn parameters_go_where_version_3_says() {
    let parameters = json!({
        "petId": "a/b", "fields": ["x", "y"], "tags": ["p", "q"], "filter": {"age": 3}, "X-Trace": 5, "session": "s",
    });
    let http = request(THREE, "getPet", parameters).unwrap();
    assert_eq!(
        (http.method.as_str(), http.endpoint.uri.as_str()),
        ("GET", "https://test.example/api/pets/a%2Fb")
    );
    let query = json!({"fields": ["x", "y"], "tags": "p,q", "filter[age]": 3});
    assert_eq!(serde_json::to_value(&http.query).unwrap(), query);
    assert_eq!(
        (http.headers["x-trace"].as_str(), http.headers["cookie"].as_str()),
        ("5", "session=s")
    );
    assert_eq!(http.body, None);
}

#[test]
fn bodies_of_version_3() {
    let http = request(THREE, "putPet", json!({"petId": 1, "body": {"name": "Rex"}})).unwrap();
    assert_eq!(http.endpoint.uri, "https://docs.example/other/pets/1");
    assert_eq!(http.body.as_deref(), Some(&json!({"name": "Rex"})));
    assert_eq!(http.headers["content-type"], "application/json");
    let loose = request(THREE, "putPet", json!({"petId": 1, "name": "Rex", "age": 3})).unwrap();
    assert_eq!(loose.body.as_deref(), Some(&json!({"name": "Rex", "age": 3})));
    assert!(
        request(THREE, "putPet", json!({"petId": 1}))
            .unwrap_err()
            .contains("needs a body")
    );
}

#[test]
fn what_is_missing_or_strange_is_named() {
    for (operation, parameters, words) in [
        ("getPat", json!({}), "did you mean 'getPet'"),
        ("getPet", json!({}), "needs the parameter 'petId' (path)"),
        ("getPet", json!({"petId": ""}), "must not be empty"),
        (
            "getPet",
            json!({"petId": 1, "field": 2}),
            "has no parameter 'field'; did you mean 'fields'",
        ),
    ] {
        let error = request(THREE, operation, parameters).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    assert!(
        request("a: [", "x", json!({}))
            .unwrap_err()
            .contains("cannot be read: line")
    );
    assert!(
        request("{}", "x", json!({}))
            .unwrap_err()
            .contains("describes none")
    );
}

#[test]
fn version_2_is_understood() {
    let document = json!({
        "swagger": "2.0", "host": "pets.example", "basePath": "/v2", "schemes": ["http"],
        "paths": {
            "/pet/findByStatus": {"get": {"operationId": "find", "parameters": [
                {"name": "status", "in": "query", "required": true, "type": "array", "collectionFormat": "multi"},
                {"name": "sort", "in": "query", "type": "array", "collectionFormat": "pipes"}]}},
            "/pet": {"post": {"operationId": "add", "consumes": ["application/json"], "parameters": [
                {"name": "body", "in": "body", "schema": {}}]}},
            "/form": {"post": {"operationId": "form", "parameters": [{"name": "a", "in": "formData"}]}},
        },
    })
    .to_string();
    let find = request(&document, "find", json!({"status": ["sold"], "sort": ["a", "b"]})).unwrap();
    assert_eq!(find.endpoint.uri, "http://pets.example/v2/pet/findByStatus");
    assert_eq!(
        serde_json::to_value(&find.query).unwrap(),
        json!({"status": ["sold"], "sort": "a|b"})
    );
    let add = request(&document, "add", json!({"body": {"id": 1}})).unwrap();
    assert_eq!(add.body.as_deref(), Some(&json!({"id": 1})));
    let form = request(&document, "form", json!({"a": "x"})).unwrap();
    assert_eq!(form.headers["content-type"], "application/x-www-form-urlencoded");
}

#[test]
fn variables_that_stand_for_variables_fill_no_memory() {
    let variables = (0..20).map(|number| {
        (
            format!("v{number:02}"),
            json!({"default": format!("{{v{:02}}}", number + 1).repeat(10)}),
        )
    });
    let variables: Map<String, Value> = variables.collect();
    let document = json!({
        "openapi": "3.1.0",
        "servers": [{"url": "https://{v00}.example", "variables": variables}],
        "paths": {"/": {"get": {"operationId": "get"}}},
    });
    let http = request(&document.to_string(), "get", json!({})).unwrap();
    assert_eq!(
        http.endpoint.uri,
        format!("https://{}.example/", "{v01}".repeat(10))
    );
    let often = json!({
        "openapi": "3.1.0",
        "servers": [{"url": format!("https://{}.example", "{v}".repeat(100_000)), "variables": {"v": {"default": "x".repeat(100_000)}}}],
        "paths": {"/": {"get": {"operationId": "get"}}},
    });
    let error = request(&often.to_string(), "get", json!({})).unwrap_err();
    assert!(error.contains("longer than 65536 bytes"), "{error}");
}
