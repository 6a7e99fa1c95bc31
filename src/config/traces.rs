//! What `[traces]` may say, and the names that OpenTelemetry gives to the same things. These lose against `AUTHSERVICE__*`.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use url::Url;

use super::Draft;

/// Names of the endpoint, the more special one last: it wins, and is taken as it stands.
const ENDPOINTS: [(&str, &str); 2] =
    [("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")];
/// Names with the same meaning and form as ours, the more special ones last.
const SAME: [(&str, &str); 4] = [
    ("OTEL_EXPORTER_OTLP_HEADERS", "traces.headers"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "traces.headers"),
    ("OTEL_RESOURCE_ATTRIBUTES", "traces.resource_attributes"),
    ("OTEL_SERVICE_NAME", "traces.service_name"),
];
/// Names that count milliseconds.
const TIMEOUTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TIMEOUT", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"];
/// Names of what we speak in one way only.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"];

/// Reads OpenTelemetry's names; an empty value is none, as its specification says.
pub(super) fn read(draft: &mut Draft, environment: &BTreeMap<String, String>) {
    let get = |name: &str| environment.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
    let mut is_meant = false;
    for (name, path) in ENDPOINTS {
        if let Some(base) = get(name) {
            let base = if path.is_empty() { base } else { base.trim_end_matches('/') };
            draft.set_text("traces.endpoint", &format!("{base}{path}"), name);
            is_meant = true;
        }
    }
    for (name, path) in SAME {
        if let Some(text) = get(name) {
            draft.set_text(path, text, name);
        }
    }
    for name in TIMEOUTS {
        if let Some(text) = get(name) {
            let seconds = text.parse::<u32>().map(|milliseconds| milliseconds.div_ceil(1000).to_string());
            draft.set_text("traces.timeout_seconds", seconds.as_deref().unwrap_or(text), name);
        }
    }
    if let Some(sampler) = get("OTEL_TRACES_SAMPLER") {
        let ratio = match sampler.trim_start_matches("parentbased_") {
            "always_on" => Some("1.0"),
            "always_off" => Some("0.0"),
            "traceidratio" => Some(get("OTEL_TRACES_SAMPLER_ARG").unwrap_or("1.0")),
            _ => None,
        };
        match ratio {
            Some(ratio) => draft.set_text("traces.sample_ratio", ratio, "OTEL_TRACES_SAMPLER"),
            None => draft.faults.push(
                "traces.sample_ratio (OTEL_TRACES_SAMPLER): must be always_on, always_off or traceidratio, with \
                 parentbased_ before it or not"
                    .to_owned(),
            ),
        }
    }
    // They say where traces go only when they do: whoever sends none may have set them for others.
    for name in PROTOCOLS {
        if is_meant && get(name).is_some_and(|protocol| protocol != "http/protobuf") {
            draft.faults.push(format!("traces.endpoint ({name}): only http/protobuf is spoken here (port 4318)"));
        }
    }
    let is_disabled = get("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    for (name, is_off) in
        [("OTEL_TRACES_EXPORTER", get("OTEL_TRACES_EXPORTER") == Some("none")), ("OTEL_SDK_DISABLED", is_disabled)]
    {
        if is_off {
            draft.set_text("traces.endpoint", "", name);
        }
    }
}

/// Everything that is wrong with the section but its integers.
pub(super) fn faults(draft: &Draft) -> Vec<String> {
    let text = |path: &str| draft.value(path).as_str().unwrap_or_default();
    let attributes = draft.value("traces.resource_attributes").as_array();
    let mut attributes = attributes.into_iter().flatten().map(|item| item.as_str().and_then(pair));
    let ratio = draft.value("traces.sample_ratio").as_float().unwrap_or_default();
    let rows = [
        ("traces.endpoint", endpoint(text("traces.endpoint"))),
        ("traces.headers", headers(text("traces.headers")).is_none().then_some("must be name=value, parted by commas")),
        ("traces.service_name", text("traces.service_name").trim().is_empty().then_some("must not be empty")),
        (
            "traces.resource_attributes",
            attributes.any(|pair| pair.is_none()).then_some("must be texts such as deployment.environment.name=test"),
        ),
        ("traces.sample_ratio", (!(0.0..=1.0).contains(&ratio)).then_some("must be between 0 and 1")),
    ];
    rows.into_iter().filter_map(|(path, fault)| Some(format!("{}: {}", draft.name(path), fault?))).collect()
}

fn endpoint(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return None;
    }
    let Ok(url) = Url::parse(text) else {
        return Some("must be a URL such as http://collector:4318/v1/traces");
    };
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return Some("must be an http or https URL");
    }
    // A user would be shown and logged with it.
    let has_user = !url.username().is_empty() || url.password().is_some();
    (has_user || url.fragment().is_some())
        .then_some("must have no user and no fragment; secrets go into traces.headers")
}

/// The headers in a text such as `authorization=Bearer%20abc,x-tenant=1`; values are percent-decoded.
pub(crate) fn headers(text: &str) -> Option<Vec<(String, String)>> {
    let headers = text.split(',').filter(|item| !item.trim().is_empty()).map(pair).collect::<Option<Vec<_>>>()?;
    let is_name = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let is_value = |value: &str| value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    headers.iter().all(|(name, value)| is_name(name) && is_value(value)).then_some(headers)
}

/// A name and a value with an equals sign between them; the value is percent-decoded.
pub(crate) fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim(), percent_decode_str(value.trim()).decode_utf8().ok()?);
    (!name.is_empty()).then(|| (name.to_owned(), value.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Faults};

    fn load(pairs: &[(&str, &str)]) -> Result<Config, Faults> {
        Config::load(None, &pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    }

    #[test]
    fn the_names_of_opentelemetry_are_understood() {
        let traces = load(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20sesame, x-tenant=1"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
            ("OTEL_SERVICE_NAME", "sign-in"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,team=a%2Cb"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
        ])
        .expect("valid");

        assert!(!traces.show().contains("sesame"), "{}", traces.show());
        let traces = traces.traces;
        assert_eq!(traces.endpoint, "http://collector:4318/v1/traces");
        assert_eq!((traces.service_name.as_str(), traces.timeout_seconds), ("sign-in", 3));
        assert_eq!(traces.resource_attributes, ["deployment.environment.name=test", "team=a%2Cb"]);
        assert_eq!(pair(&traces.resource_attributes[1]), Some(("team".to_owned(), "a,b".to_owned())));
        assert!((traces.sample_ratio - 0.25).abs() < f64::EPSILON);
        let headers = headers(secrecy::ExposeSecret::expose_secret(&traces.headers)).expect("headers");
        assert_eq!(headers[0], ("authorization".to_owned(), "Bearer sesame".to_owned()));
        assert_eq!(headers[1], ("x-tenant".to_owned(), "1".to_owned()));
    }

    #[test]
    fn the_endpoint_is_the_one_that_was_named_last() {
        let general = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
        let rows: [(&[(&str, &str)], &str); 7] = [
            (&[], ""),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], ""),
            (&[general, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://b/in?x=1")], "https://b/in?x=1"),
            (&[general, ("OTEL_SDK_DISABLED", "True")], ""),
            (&[general, ("OTEL_TRACES_EXPORTER", "none")], ""),
            (&[general, ("OTEL_SDK_DISABLED", "false"), ("OTEL_TRACES_EXPORTER", "otlp")], "http://a:4318/v1/traces"),
            (&[("OTEL_SDK_DISABLED", "true"), ("AUTHSERVICE__TRACES__ENDPOINT", "http://c/d")], "http://c/d"),
        ];
        for (pairs, expected) in rows {
            assert_eq!(load(pairs).expect("valid").traces.endpoint, expected, "{pairs:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_named_and_not_quoted() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
        let rows: [(&[(&str, &str)], &str); 12] = [
            (&[("AUTHSERVICE__TRACES__ENDPOINT", "sesame")], "traces.endpoint"),
            (&[("AUTHSERVICE__TRACES__ENDPOINT", "unix:/sesame")], "traces.endpoint"),
            (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://u:sesame@a:4318")], "OTEL_EXPORTER_OTLP_ENDPOINT"),
            (&[("AUTHSERVICE__TRACES__HEADERS", "sesame")], "traces.headers"),
            (&[("AUTHSERVICE__TRACES__HEADERS", "x=sesame%0Ay")], "traces.headers"),
            (&[("OTEL_RESOURCE_ATTRIBUTES", "sesame")], "OTEL_RESOURCE_ATTRIBUTES"),
            (&[("AUTHSERVICE__TRACES__SERVICE_NAME", " ")], "traces.service_name"),
            (&[("AUTHSERVICE__TRACES__SAMPLE_RATIO", "1.5")], "traces.sample_ratio"),
            (&[("AUTHSERVICE__TRACES__SAMPLE_RATIO", "nan")], "traces.sample_ratio"),
            (&[("OTEL_TRACES_SAMPLER", "sesame")], "OTEL_TRACES_SAMPLER"),
            (&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "OTEL_EXPORTER_OTLP_PROTOCOL"),
            (&[("OTEL_EXPORTER_OTLP_TIMEOUT", "0")], "OTEL_EXPORTER_OTLP_TIMEOUT"),
        ];
        for (pairs, expected) in rows {
            let faults = load(pairs).expect_err(expected).0;
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(expected) && !faults[0].contains("sesame"), "{faults:?}");
        }
        load(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]).expect("no traces, no matter");
    }
}
