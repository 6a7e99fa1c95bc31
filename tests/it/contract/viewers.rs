//! `/docs` and `/redoc`: a browser loads nothing from elsewhere and runs no script but ours.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::support::{Engine, TestApp};

const PAGES: [&str; 3] = ["/docs", "/redoc", "/docs/oauth2-redirect"];

/// A page taken apart as a browser does: the markup without the text of its scripts and styles, and those texts.
#[derive(Default)]
struct Page {
    markup: String,
    /// Attributes and text of each script.
    scripts: Vec<(String, String)>,
    styles: Vec<String>,
}

impl Page {
    /// HTML 13.2.5.4: a script's text ends at the first `</script`, whatever stands in it.
    fn parse(html: &str) -> Self {
        let mut page = Self::default();
        let lower = html.to_ascii_lowercase();
        let mut at = 0;
        while let Some(start) = lower[at..].find('<').map(|start| at + start) {
            page.markup.push_str(&html[at..start]);
            let name = ["script", "style"].into_iter().find(|name| {
                let rest = &lower[start + 1..];
                rest.starts_with(name) && rest[name.len()..].starts_with([' ', '>', '\n', '/'])
            });
            let open_end = start + lower[start..].find('>').expect("tags are closed") + 1;
            page.markup.push_str(&html[start..open_end]);
            at = open_end;
            let Some(name) = name else { continue };
            let end = at + lower[at..].find(&format!("</{name}")).expect("the element is closed");
            let text = html[at..end].to_owned();
            match name {
                "script" => page.scripts.push((html[start..open_end].to_owned(), text)),
                _ => page.styles.push(text),
            }
            at = end;
        }
        page.markup.push_str(&html[at..]);
        page
    }
}

async fn pages() -> Vec<(&'static str, Page, String, String)> {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let mut pages = Vec::new();
    for path in PAGES {
        let answer = app.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "text/html; charset=utf-8"), "{path}");
        let policy = answer.header("content-security-policy").to_owned();
        pages.push((path, Page::parse(&answer.body), policy, answer.body));
    }
    pages
}

/// Attributes that make a browser load something.
#[tokio::test]
async fn no_markup_names_another_host() {
    for (path, page, _, _) in pages().await {
        let markup = page.markup.to_ascii_lowercase();
        for attribute in ["src", "href", "srcset", "data", "action", "poster"] {
            for quote in ["\"", "'", ""] {
                for scheme in ["http:", "https:", "//"] {
                    let loads = format!(" {attribute}={quote}{scheme}");
                    assert!(!markup.contains(&loads), "{path}: {loads}");
                }
            }
        }
        assert!(
            !markup.contains("<base") && !markup.contains("<iframe") && !markup.contains("http-equiv=\"refresh"),
            "{path}"
        );
    }
}

/// CSS loads by `url(` and by `@import`, in styles and in styles that scripts write.
#[tokio::test]
async fn no_style_names_another_host() {
    for (path, page, _, _) in pages().await {
        for text in page.styles.iter().chain(page.scripts.iter().map(|(_, text)| text)) {
            for quote in ["", "\"", "'", "\\\"", "\\'"] {
                for scheme in ["http:", "https:", "//"] {
                    for loads in [format!("url({quote}{scheme}"), format!("@import {quote}{scheme}")] {
                        assert!(!text.contains(&loads), "{path}: {loads}");
                    }
                }
            }
        }
    }
}

/// CSP 3 6.7: whatever a script tries, the policy names no other host, and each inline script by its hash.
#[tokio::test]
async fn the_policy_allows_exactly_the_scripts_of_the_page() {
    for (path, page, policy, html) in pages().await {
        // HTML 13.2.3.5: a browser hashes the text after it has replaced these.
        assert!(!html.contains('\r') && !html.contains('\0'), "{path}");
        assert!(!policy.contains("http:") && !policy.contains("https:") && !policy.contains('*'), "{path}: {policy}");
        for directive in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
            assert!(policy.contains(directive), "{path}: {directive}");
        }
        let allowed: Vec<&str> = policy
            .split(';')
            .find_map(|directive| directive.trim().strip_prefix("script-src "))
            .expect("script-src")
            .split_whitespace()
            .collect();
        assert!(!page.scripts.is_empty(), "{path}");
        let mut hashes: Vec<String> = Vec::new();
        for (tag, text) in &page.scripts {
            assert!(!tag.contains("src="), "{path}: {tag}");
            assert!(!is_escaped_twice(text), "{path}: a browser would not end it where we do");
            let hash = BASE64_STANDARD.encode(openssl::sha::sha256(text.as_bytes()));
            hashes.push(format!("'sha256-{hash}'"));
        }
        assert_eq!(allowed, hashes, "{path}");
        let handlers = [" onload=", " onclick=", " onerror=", "javascript:"];
        assert!(
            handlers.iter().all(|handler| !page.markup.contains(handler)),
            "{path}: needs a script that is not allowed"
        );
    }
}

/// HTML 13.2.5.17 to 13.2.5.31: between `<!--` and `-->` a `<script>` makes the next `</script>` end nothing.
fn is_escaped_twice(script: &str) -> bool {
    let mut rest = script;
    while let Some(start) = rest.find("<!--") {
        // `<!-->` and `<!--->` are whole comments.
        let comment = &rest[start + 2..];
        let end = comment.find("-->").unwrap_or(comment.len());
        let is_tag = |at: usize| comment[at + "<script".len()..].starts_with([' ', '\t', '\n', '/', '>']);
        if comment[..end].match_indices("<script").any(|(at, _)| is_tag(at)) {
            return true;
        }
        rest = &comment[end..];
    }
    false
}

/// The viewers show the document that is served, with the prefix before each path.
#[tokio::test]
async fn the_viewers_show_the_served_document() {
    for (path, _, _, html) in pages().await.into_iter().take(2) {
        for operation in ["/auth_api/v1/auth/refresh", "start_test__get", "login_auth_api_v1_auth_login_post"] {
            assert!(html.contains(operation), "{path}: {operation}");
        }
    }
}

/// What is no document has a policy that lets nothing load.
#[tokio::test]
async fn an_api_answer_is_no_document() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    for path in ["/openapi.json", "/", "/health/live", "/.well-known/jwks.json", "/auth_api/v1/users/me"] {
        let answer = app.get(path).await;
        let policy = answer.header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("script-src"), "{path}: {policy}");
    }
}
