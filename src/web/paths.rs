//! Which paths exist and with which methods: for 404, 405 with `Allow`, the redirect of a trailing slash, and the route in a log line.

use poem::http::Method;

/// The paths of a server.
#[derive(Debug, Default)]
pub(crate) struct Paths(Vec<Path>);

#[derive(Debug)]
struct Path {
    /// As written in the routes, `{name}` for a segment that varies.
    template: String,
    methods: Vec<Method>,
}

/// What a request's path and method are to the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Match<'a> {
    /// A route.
    Route(&'a str),
    /// A path with other methods, as an `Allow` header lists them (RFC 9110 10.2.1).
    OtherMethods(String),
    /// A path if the slash at its end is left away.
    TrailingSlash,
    /// Nothing.
    Nothing,
}

impl Paths {
    pub(crate) fn add(&mut self, template: impl Into<String>, methods: &[Method]) {
        self.0.push(Path { template: template.into(), methods: methods.to_vec() });
    }

    pub(crate) fn find(&self, method: &Method, path: &str) -> Match<'_> {
        if let Some(found) = self.0.iter().find(|known| known.is(path)) {
            // GET answers HEAD too (RFC 9110 9.3.2).
            let wanted = if method == Method::HEAD { &Method::GET } else { method };
            return if found.methods.contains(wanted) {
                Match::Route(&found.template)
            } else {
                Match::OtherMethods(found.allow())
            };
        }
        let without = path.strip_suffix('/').filter(|path| !path.ends_with('/'));
        if without.is_some_and(|path| self.0.iter().any(|known| known.is(path))) {
            return Match::TrailingSlash;
        }
        Match::Nothing
    }
}

impl Path {
    fn is(&self, path: &str) -> bool {
        let (mut known, mut given) = (self.template.split('/'), path.split('/'));
        loop {
            match (known.next(), given.next()) {
                (None, None) => return true,
                (Some(known), Some(given)) if known == given => {}
                (Some(known), Some(given)) if known.starts_with('{') && !given.is_empty() => {}
                _ => return false,
            }
        }
    }

    fn allow(&self) -> String {
        let mut names: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        if self.methods.contains(&Method::GET) {
            names.push("HEAD");
        }
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_matched_whole_and_without_normalisation() {
        let mut paths = Paths::default();
        paths.add("/", &[Method::GET]);
        paths.add("/a/login", &[Method::POST]);
        paths.add("/a/sessions/{id}", &[Method::DELETE]);
        let rows = [
            (Method::GET, "/", Match::Route("/")),
            (Method::HEAD, "/", Match::Route("/")),
            (Method::POST, "/", Match::OtherMethods("GET, HEAD".to_owned())),
            (Method::POST, "/a/login", Match::Route("/a/login")),
            (Method::GET, "/a/login", Match::OtherMethods("POST".to_owned())),
            (Method::HEAD, "/a/login", Match::OtherMethods("POST".to_owned())),
            (Method::POST, "/a/login/", Match::TrailingSlash),
            (Method::GET, "/a/login/", Match::TrailingSlash),
            (Method::POST, "/a/login//", Match::Nothing),
            (Method::POST, "//a/login", Match::Nothing),
            (Method::POST, "/a/./login", Match::Nothing),
            (Method::DELETE, "/a/sessions/x", Match::Route("/a/sessions/{id}")),
            (Method::DELETE, "/a/sessions/", Match::Nothing),
            (Method::DELETE, "/a/sessions/x/y", Match::Nothing),
            (Method::GET, "/a", Match::Nothing),
        ];
        for (method, path, expected) in rows {
            assert_eq!(paths.find(&method, path), expected, "{method} {path}");
        }
    }
}
