//! The OpenAPI document and its two viewers, made once and served as bytes. Nothing is loaded from elsewhere.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use poem::Response;
use poem::http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::Service;
use crate::web;

/// The message at `/`, as the seed's.
const START: &str = "3, 2, 1, Start! Service Auth!";

/// The API's description in three forms.
pub(crate) struct Document {
    json: Bytes,
    swagger: Page,
    redoc: Page,
}

struct Page {
    html: Bytes,
    policy: HeaderValue,
}

impl Document {
    /// Renders the document of a service that is mounted at `prefix`.
    pub(super) fn new(service: &Service, prefix: &str) -> Self {
        let bare = service.spec();
        let whole = with_prefix(&bare, prefix);
        let page = |html: String| Page::new(&html.replace(&bare, &whole));
        Self { swagger: page(service.swagger_ui_html()), redoc: page(service.redoc_html()), json: whole.into() }
    }

    /// The document as text.
    pub(crate) fn text(&self) -> &[u8] {
        &self.json
    }

    pub(crate) fn openapi(&self) -> Response {
        web::json_bytes(StatusCode::OK, self.json.clone())
    }

    pub(crate) fn swagger(&self) -> Response {
        self.swagger.response()
    }

    pub(crate) fn redoc(&self) -> Response {
        self.redoc.response()
    }
}

/// `GET /`.
pub(crate) fn start() -> Response {
    web::json(StatusCode::OK, &json!({"message": START}))
}

/// Where an OAuth server would send Swagger UI's user back to; the seed serves it, and so does the viewer find it.
pub(crate) fn oauth2_redirect() -> Response {
    const HTML: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Swagger UI: OAuth2 redirect</title></head>\
        <body><script>\
        const flow = window.opener && window.opener.swaggerUIRedirectOauth2;\
        if (flow) {\
            const answer = Object.fromEntries(new URLSearchParams(location.hash.slice(1) || location.search));\
            const isValid = answer.state === flow.state;\
            if (isValid && answer.code) { flow.auth.code = answer.code; }\
            if (isValid && !answer.error) { flow.callback({auth: flow.auth, token: answer, isValid, redirectUrl: flow.redirectUrl}); }\
            else { flow.errCb({authId: flow.auth.name, source: 'auth', level: 'error', message: answer.error || 'state differs'}); }\
            window.close();\
        }\
        </script></body></html>";
    Page::new(HTML).response()
}

impl Page {
    fn new(html: &str) -> Self {
        // ReDoc's fonts: the viewer works without, and a page of ours asks nobody else.
        let html = match (html.find("<link href=\"https://fonts.googleapis.com"), html.contains("redoc-container")) {
            (Some(start), true) => {
                let end = html[start..].find('>').map_or(start, |end| start + end + 1);
                format!("{}{}", &html[..start], &html[end..])
            }
            _ => html.to_owned(),
        };
        let hashes: Vec<String> = scripts(&html)
            .map(|script| format!("'sha256-{}'", BASE64_STANDARD.encode(openssl::sha::sha256(script.as_bytes()))))
            .collect();
        let policy = format!(
            "default-src 'none'; script-src {}; style-src 'unsafe-inline'; img-src 'self' data:; font-src data:; \
             connect-src 'self'; worker-src blob:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
            hashes.join(" ")
        );
        let policy = HeaderValue::try_from(policy).expect("hashes are printable");
        Self { html: html.into(), policy }
    }

    fn response(&self) -> Response {
        Response::builder()
            .header(header::CONTENT_TYPE, "text/html; charset=utf-8")
            .header(header::CONTENT_SECURITY_POLICY, self.policy.clone())
            .body(self.html.clone())
    }
}

/// The texts of inline scripts, which the policy allows by hash. A script may hold the text `<script` itself.
fn scripts(html: &str) -> impl Iterator<Item = &str> {
    let mut rest = html;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once("<script")?;
        let (script, after) = after.split_once('>')?.1.split_once("</script>")?;
        rest = after;
        Some(script)
    })
}

/// Puts the prefix before every path, and adds `/`.
fn with_prefix(bare: &str, prefix: &str) -> String {
    let mut document: Value = serde_json::from_str(bare).expect("poem-openapi writes JSON");
    let mut paths = Map::new();
    if let Some(Value::Object(known)) = document.get_mut("paths").map(Value::take) {
        paths.extend(known.into_iter().map(|(path, item)| (format!("{prefix}{path}"), item)));
    }
    paths.insert(
        "/".to_owned(),
        json!({"get": {
            "summary": "Say that the service runs",
            "operationId": "start_test__get",
            "responses": {"200": {"description": "OK", "content": {"application/json": {
                "schema": {"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}},
                "example": {"message": START},
            }}}},
        }}),
    );
    document["paths"] = Value::Object(paths);
    finish_schemas(&mut document);
    if let Some(document) = document.as_object_mut() {
        document.remove("servers");
    }
    serde_json::to_string_pretty(&document).expect("a JSON value serialises")
}

/// Says what the derive cannot: a field that may be absent may be null, and a password is never sent back.
fn finish_schemas(document: &mut Value) {
    let schemas = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut);
    for schema in schemas.into_iter().flat_map(|schemas| schemas.values_mut()) {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
        for (name, property) in properties.into_iter().flatten() {
            if !required.iter().any(|required| required == name) {
                property["nullable"] = json!(true);
            }
            if property["format"] == "password" {
                property["writeOnly"] = json!(true);
            }
        }
    }
}
