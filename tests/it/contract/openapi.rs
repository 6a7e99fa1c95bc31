//! `/openapi.json`: every operation of the seed, every answer with an example, every code somewhere.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::assert_current;
use crate::support::{Answer, Engine, PASSWORD, TestApp};

/// The operations that clients of the seed were generated from: path, method, operationId, security scheme.
const SEED: [(&str, &str, &str, Option<&str>); 8] = [
    ("/", "get", "start_test__get", None),
    ("/auth_api/v1/users/register", "post", "register_user_auth_api_v1_users_register_post", None),
    ("/auth_api/v1/users/me", "get", "me_auth_api_v1_users_me_get", Some("AccessToken")),
    ("/auth_api/v1/auth/login", "post", "login_auth_api_v1_auth_login_post", None),
    ("/auth_api/v1/auth/refresh", "post", "refresh_auth_api_v1_auth_refresh_post", Some("RefreshToken")),
    ("/auth_api/v1/auth/logout", "post", "logout_auth_api_v1_auth_logout_post", Some("RefreshToken")),
    ("/auth_api/v1/auth/logout-all", "post", "logout_all_auth_api_v1_auth_logout_all_post", Some("AccessToken")),
    ("/auth_api/v1/auth/sessions", "get", "list_my_sessions_auth_api_v1_auth_sessions_get", Some("AccessToken")),
];
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

pub(super) async fn document() -> (String, Value) {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let answer = app.get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    (answer.body.clone(), answer.json())
}

/// Every operation with its path and method.
pub(super) fn operations(document: &Value) -> Vec<(String, &Map<String, Value>)> {
    let paths = document["paths"].as_object().unwrap();
    let items = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter().filter(|(name, _)| METHODS.contains(&name.as_str()));
        methods.map(move |(method, operation)| (format!("{method} {path}"), operation.as_object().unwrap()))
    });
    items.collect()
}

/// The schema behind a reference.
fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("{reference}")),
        None => schema,
    }
}

#[tokio::test]
async fn the_stored_document_is_current() {
    let (text, _) = document().await;
    assert_current("docs/openapi.json", &format!("{}\n", text.trim_end()));
}

#[tokio::test]
async fn every_operation_of_the_seed_is_there_under_its_name() {
    let (_, document) = document().await;
    for (path, method, id, scheme) in SEED {
        let operation = &document["paths"][path][method];
        assert_eq!(operation["operationId"], id, "{method} {path}");
        let security = operation["security"].as_array().cloned().unwrap_or_default();
        let schemes: Vec<&str> =
            security.iter().flat_map(|one| one.as_object().unwrap().keys()).map(String::as_str).collect();
        assert_eq!(schemes, scheme.into_iter().collect::<Vec<_>>(), "{method} {path}");
    }
    for scheme in ["AccessToken", "RefreshToken"] {
        let scheme = &document["components"]["securitySchemes"][scheme];
        assert_eq!((&scheme["type"], &scheme["scheme"]), (&"http".into(), &"bearer".into()));
    }
    for schema in ["UserCreate", "UserLogin", "UserRead", "TokenPair", "SessionRead"] {
        assert!(document["components"]["schemas"][schema].is_object(), "{schema}");
    }
    assert_eq!(document["info"]["title"], "Auth Service");
}

#[tokio::test]
async fn operations_are_named_once_and_explained() {
    let (_, document) = document().await;
    let operations = operations(&document);
    let ids: BTreeSet<&str> =
        operations.iter().map(|(_, operation)| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations.len());
    for (name, operation) in operations {
        assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{name} has no summary");
    }
}

/// Whoever reads the document sees what each answer looks like.
#[tokio::test]
async fn every_answer_is_described_and_has_an_example() {
    let (_, document) = document().await;
    let mut faults = Vec::new();
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let name = format!("{name} {status}");
            if response["description"].as_str().unwrap_or_default().is_empty() {
                faults.push(format!("{name}: no description"));
            }
            let content = response["content"].as_object().cloned().unwrap_or_default();
            if status == "204" {
                if !content.is_empty() {
                    faults.push(format!("{name}: has content"));
                }
                continue;
            }
            let Some(json) = content.get("application/json").filter(|_| content.len() == 1) else {
                faults.push(format!("{name}: is not application/json alone"));
                continue;
            };
            if !has_example(&document, json) {
                faults.push(format!("{name}: no example"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn has_example(document: &Value, media: &Value) -> bool {
    let schema = &media["schema"];
    let of = |schema: &Value| !schema["example"].is_null() || !schema["examples"].is_null();
    let is_list = schema["type"] == "array" && of(resolved(document, &schema["items"]));
    let is_choice = schema["oneOf"].as_array().is_some_and(|choices| choices.iter().any(of));
    of(media) || of(schema) || of(resolved(document, schema)) || is_list || is_choice
}

/// Examples are true: an error's example has the status of its code, and its code is one that the description names.
#[tokio::test]
async fn every_code_stands_where_it_can_come() {
    let (_, document) = document().await;
    let codes: BTreeSet<&str> = document["components"]["schemas"]["ErrorCode"]["enum"]
        .as_array()
        .expect("the enum ErrorCode")
        .iter()
        .map(|code| code.as_str().unwrap())
        .collect();
    let mut seen = BTreeSet::new();
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let description = response["description"].as_str().unwrap_or_default();
            for word in description.split('`') {
                seen.extend(codes.get(word));
            }
            let example = &response["content"]["application/json"]["schema"]["example"]["error"]["code"];
            if let Some(code) = example.as_str() {
                assert!(codes.contains(code) && description.contains(&format!("`{code}`")), "{name} {status}: {code}");
            }
            let headers: Vec<String> = response["headers"]
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, _)| name.to_ascii_lowercase())
                .collect();
            let has = |header: &str| headers.iter().any(|name| name == header);
            assert_eq!(has("www-authenticate"), status == "401", "{name} {status}");
            assert_eq!(has("retry-after"), status == "429" || status == "503", "{name} {status}");
        }
    }
    assert_eq!(seen, codes);
}

/// A password goes in and never comes out.
#[tokio::test]
async fn passwords_are_write_only() {
    let (_, document) = document().await;
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        if let Some(password) = schema["properties"].get("password") {
            assert_eq!(password["writeOnly"], true, "{name}");
        }
    }
}

/// Another prefix moves the REST paths and leaves the names alone.
#[tokio::test]
async fn the_prefix_is_a_setting() {
    let app = TestApp::start(Engine::Sqlite, &[("API_V1_PREFIX", "/id/v2")]).await;
    let document = app.get("/openapi.json").await.json();
    for (path, method, id, _) in SEED {
        let path = path.replace("/auth_api/v1", "/id/v2");
        assert_eq!(document["paths"][&path][method]["operationId"], id, "{path}");
    }
    assert!(!document["paths"].to_string().contains("\"/auth_api"));
}

/// A client that was generated from the document reads what the server really sends, nulls included.
#[tokio::test]
async fn real_answers_are_as_the_document_says() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let document = app.get("/openapi.json").await.json();
    let credentials = json!({"email": "alice@example.com", "password": PASSWORD});
    let rows = [
        ("post", "users/register", app.post("users/register", &credentials).await),
        ("post", "users/register", app.post("users/register", &credentials).await),
        ("post", "users/register", app.post("users/register", &json!({})).await),
        ("post", "users/register", Answer::of(app.request(Method::POST, "users/register").body("{")).await),
        ("post", "auth/login", app.post("auth/login", &credentials).await),
        ("post", "auth/login", app.post("auth/login", &json!({"email": "a@b.example", "password": PASSWORD})).await),
    ];
    let pair = app.sign_in("alice@example.com").await;
    let with_token = [
        ("get", "users/me", app.me(&pair.access).await),
        ("get", "users/me", app.me(&pair.refresh).await),
        ("get", "users/me", app.me("x").await),
        ("get", "auth/sessions", app.sessions(&pair.access).await),
        ("get", "auth/sessions", app.get("auth/sessions?access_token=x").await),
        ("post", "auth/refresh", app.refresh(&pair.refresh).await),
        ("post", "auth/refresh", app.refresh(&pair.access).await),
        ("post", "auth/logout-all", app.with_token(Method::POST, "auth/logout-all", "x").await),
    ];
    let mut faults = Vec::new();
    for (method, path, answer) in rows.into_iter().chain(with_token) {
        let path = format!("/auth_api/v1/{}", path.split('?').next().unwrap());
        let name = format!("{method} {path} {}", answer.status);
        let response = &document["paths"][&path][method]["responses"][answer.status.to_string()];
        if response.is_null() {
            faults.push(format!("{name}: is not documented"));
            continue;
        }
        let schema = &response["content"]["application/json"]["schema"];
        faults.extend(
            faults_of(&document, schema, &answer.json(), "$").into_iter().map(|fault| format!("{name}: {fault}")),
        );
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Where the value is not what the schema describes: as much of OpenAPI 3.0 as the document uses.
fn faults_of(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let schema = resolved(document, schema);
    let alternatives = ["oneOf", "anyOf"].iter().find_map(|name| schema[*name].as_array());
    if let Some(alternatives) = alternatives {
        let fits = alternatives.iter().any(|one| faults_of(document, one, value, at).is_empty());
        return if fits { Vec::new() } else { vec![format!("{at}: fits no alternative: {value}")] };
    }
    if let Some(parts) = schema["allOf"].as_array() {
        return parts.iter().flat_map(|part| faults_of(document, part, value, at)).collect();
    }
    let is_right = match (schema["type"].as_str(), value) {
        (_, Value::Null) => schema["nullable"] == true,
        (None, _)
        | (Some("object"), Value::Object(_))
        | (Some("array"), Value::Array(_))
        | (Some("number"), Value::Number(_))
        | (Some("boolean"), Value::Bool(_)) => true,
        (Some("string"), Value::String(text)) => {
            schema["enum"].as_array().is_none_or(|texts| texts.iter().any(|one| one == text.as_str()))
        }
        (Some("integer"), Value::Number(number)) => number.is_i64(),
        _ => false,
    };
    if !is_right {
        return vec![format!("{at}: {value} is no {}", schema["type"])];
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let missing = required.filter(|name| value.get(name).is_none()).map(|name| format!("{at}.{name}: is missing"));
    let mut faults: Vec<String> = missing.collect();
    for (name, inner) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        match schema["properties"].get(name) {
            Some(property) => faults.extend(faults_of(document, property, inner, &at)),
            None if schema["properties"].is_object() => faults.push(format!("{at}: is not documented")),
            None => {}
        }
    }
    for inner in value.as_array().into_iter().flatten() {
        faults.extend(faults_of(document, &schema["items"], inner, &format!("{at}[]")));
    }
    faults
}
