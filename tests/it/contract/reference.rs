//! `docs/api-reference.md`, made from the OpenAPI document, and `docs/api.md`, which explains every code of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

use super::assert_current;
use super::openapi::{document, operations};

const GUIDE: &str = include_str!("../../../docs/api.md");

#[tokio::test]
async fn the_reference_is_current() {
    let (_, document) = document().await;
    assert_current("docs/api-reference.md", &page(&document));
}

#[tokio::test]
async fn every_code_is_explained_with_its_status() {
    let (_, document) = document().await;
    let mut statuses = BTreeMap::new();
    for (_, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let codes = response["description"].as_str().unwrap().split("; ").filter_map(|line| line.split_once("`: "));
            statuses.extend(codes.map(|(code, _)| (code.trim_start_matches('`').to_owned(), status.clone())));
        }
    }
    let known = document["components"]["schemas"]["ErrorCode"]["enum"].as_array().unwrap();
    assert_eq!(statuses.len(), known.len(), "{statuses:?}");
    let chapter = GUIDE.split("### Codes").nth(1).expect("the chapter is there").split("\n##").next().unwrap();
    let rows: BTreeMap<_, _> = chapter
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split(" | ");
            Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.to_owned()))
        })
        .collect();
    assert_eq!(rows, statuses, "docs/api.md");
}

/// The whole page.
fn page(document: &Value) -> String {
    let operations = operations(document);
    let common = common(&operations.iter().map(|(_, operation)| &operation["responses"]).collect::<Vec<_>>());
    let mut page = String::from(
        "# API reference\n\n\
         Made from [openapi.json](openapi.json); [API](api.md) explains conventions, codes and how to refresh. \
         Paths are those of the default `server.api_prefix`.\n\n\
         | operation | |\n|---|---|\n",
    );
    for (name, operation) in &operations {
        let summary = text(&operation["summary"]);
        writeln!(page, "| [`{}`](#{}) | {summary} |", shown(name), anchor(&summary)).unwrap();
    }
    for (name, operation) in &operations {
        writeln!(page, "\n## {}\n\n```text\n{}\n```", text(&operation["summary"]), shown(name)).unwrap();
        if let Some(description) = operation.get("description") {
            writeln!(page, "\n{}", description.as_str().unwrap()).unwrap();
        }
        let token = operation.get("security").and_then(|schemes| schemes[0].as_object()?.keys().next());
        let token = token.map(|scheme| &document["components"]["securitySchemes"][scheme]["description"]);
        if let Some(token) = token {
            writeln!(page, "\n`Authorization: Bearer …` with: {}", text(token)).unwrap();
        }
        for parameter in operation.get("parameters").and_then(Value::as_array).into_iter().flatten() {
            let (name, description) = (text(&parameter["name"]), text(&parameter["description"]));
            writeln!(page, "\nIn the path, `{name}`: {description}").unwrap();
        }
        if let Some(body) = operation.get("requestBody") {
            let schema = &body["content"]["application/json"]["schema"];
            writeln!(page, "\nBody: {}.", link(schema)).unwrap();
        }
        page.push_str("\n| status | body | |\n|---|---|---|\n");
        for (status, response) in operation["responses"].as_object().unwrap() {
            if !common.contains_key(status) {
                page.push_str(&answer(status, response));
            }
        }
    }
    page.push_str(
        "\n## Answers of every operation\n\nBeside its own, which stand in its table.\n\n\
         | status | body | |\n|---|---|---|\n",
    );
    for (status, response) in &common {
        page.push_str(&answer(status, response));
    }
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        writeln!(page, "\n## {name}\n\n{}", text(&schema["description"])).unwrap();
        if let Some(values) = schema["enum"].as_array() {
            let values: Vec<String> = values.iter().map(|value| format!("`{}`", text(value))).collect();
            writeln!(page, "\nOne of {}.", values.join(", ")).unwrap();
            continue;
        }
        page.push_str("\n| member | type | |\n|---|---|---|\n");
        let required = schema["required"].as_array().unwrap();
        for (member, property) in schema["properties"].as_object().unwrap() {
            let optional = if required.iter().any(|name| name == member) { "" } else { "Optional. " };
            let description = format!("{optional}{}", text(&property["description"]));
            writeln!(page, "| `{member}` | {} | {} |", link(property), description.trim_end()).unwrap();
        }
        if let Some(example) = schema.get("example") {
            writeln!(page, "\n```json\n{}\n```", serde_json::to_string_pretty(example).unwrap()).unwrap();
        }
    }
    page
}

/// The answers that every operation under the prefix may give in the same words.
fn common(responses: &[&Value]) -> BTreeMap<String, Value> {
    let under_the_prefix: Vec<_> = responses.iter().filter(|of| of.as_object().unwrap().len() > 1).collect();
    let first = under_the_prefix[0].as_object().unwrap();
    let all = first.iter().filter(|(status, response)| {
        under_the_prefix.iter().all(|of| of[status.as_str()]["description"] == response["description"])
    });
    all.filter(|(status, _)| status.as_str() >= "400").map(|(status, one)| (status.clone(), one.clone())).collect()
}

/// A row about one answer.
fn answer(status: &str, response: &Value) -> String {
    let schema = &response["content"]["application/json"]["schema"];
    let body = if schema.is_null() { "none".to_owned() } else { link(schema) };
    let headers = response.get("headers").and_then(Value::as_object).into_iter().flatten();
    let headers: Vec<_> = headers.map(|(name, of)| format!(". `{name}`: {}", text(&of["description"]))).collect();
    let description = text(&response["description"]).replace(".; ", "; ");
    format!("| {status} | {body} | {description}{} |\n", headers.concat())
}

/// What a value is: a schema of the page, or a plain type with its bounds.
fn link(schema: &Value) -> String {
    let inner = ["allOf", "oneOf"].into_iter().find_map(|of| schema.get(of)?.as_array());
    if let Some(inner) = inner {
        let all: Vec<String> = inner.iter().map(link).filter(|link| !link.is_empty()).collect();
        return all.join(" or ");
    }
    if let Some(reference) = schema.get("$ref") {
        let name = text(reference).rsplit('/').next().unwrap_or_default().to_owned();
        return format!("[{name}](#{})", anchor(&name));
    }
    if schema["type"] == "array" {
        return format!(
            "list of {}",
            if schema["items"] == serde_json::json!({}) { "anything".to_owned() } else { link(&schema["items"]) }
        );
    }
    let Some(kind) = schema.get("type").or_else(|| schema.get("nullable").map(|_| &Value::Null)) else {
        return String::new();
    };
    let mut kind = if kind.is_null() { "anything".to_owned() } else { text(kind) };
    if let Some(format) = schema["format"].as_str() {
        write!(kind, ", {format}").unwrap();
    }
    match (schema["minLength"].as_u64(), schema["maxLength"].as_u64()) {
        (Some(least), Some(most)) => write!(kind, ", {least} to {most} characters").unwrap(),
        (None, Some(most)) => write!(kind, ", at most {most} characters").unwrap(),
        _ => {}
    }
    if schema["nullable"] == true && kind != "anything" {
        kind.push_str(", or null");
    }
    kind
}

/// `get /path` as it is asked for.
fn shown(name: &str) -> String {
    let (method, path) = name.split_once(' ').unwrap();
    format!("{} {path}", method.to_uppercase())
}

/// The anchor of a heading without punctuation.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}

/// A text for a cell of a table; empty when there is none.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|")
}
