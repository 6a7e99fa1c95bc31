//! JSON bodies, read as the seed reads them: every faulty field is reported at once, unknown ones are ignored, nothing is coerced.
//!
//! Differs where the seed was wrong: a rejected password is never echoed, a member that comes twice is refused, NUL is a faulty
//! value and not a 500.

use poem::http::{StatusCode, header};
use poem::{Request, RequestBody, Result};
use poem_openapi::registry::{MetaMediaType, MetaRequest, Registry};
use poem_openapi::types::{Any, ToJSON, Type};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions, Object};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use super::error::Refusal;
use crate::accounts::{Claimed, Email, EmailError, FULL_NAME_LENGTH, PASSWORD_LENGTH};
use crate::json as strict;

/// A JSON body.
pub(super) struct Body<T>(pub(super) T);

/// A body that is read field by field.
pub(super) trait Form: Sized {
    /// How it looks in the document.
    type Schema: Type + ToJSON;

    /// Reads every field, in the order in which faults are reported, before it gives up.
    fn read(fields: &mut Fields) -> Result<Self, Faulty>;
}

impl<'a, T: Form + Send> ApiExtractor<'a> for Body<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        T::Schema::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let content = vec![MetaMediaType { content_type: "application/json", schema: T::Schema::schema_ref() }];
        Some(MetaRequest { description: None, content, required: true })
    }

    async fn from_request(request: &'a Request, body: &mut RequestBody, _: ExtractParamOptions<()>) -> Result<Self> {
        let bytes = body.take()?.into_bytes().await.unwrap_or_default();
        let content_type = request.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
        let object = object(content_type, &bytes)?;
        let mut fields = Fields { object, faults: Vec::new() };
        match T::read(&mut fields) {
            Ok(form) => Ok(Self(form)),
            Err(Faulty) => Err(Refusal::Faults(fields.faults).into()),
        }
    }
}

/// One faulty field.
#[derive(Debug, Object)]
pub(crate) struct FieldFault {
    /// Kind of fault; made for programs.
    #[oai(rename = "type")]
    kind: String,
    /// Where: `body`, then the field.
    loc: Vec<Any<Value>>,
    /// Made for people; may change.
    msg: String,
    /// What was rejected; never a password.
    #[oai(skip_serializing_if_is_none)]
    input: Option<Any<Value>>,
    /// Numbers and reasons of the message.
    #[oai(skip_serializing_if_is_none)]
    ctx: Option<Any<Value>>,
}

impl FieldFault {
    fn new(kind: &str, loc: &[Value], msg: String) -> Self {
        let loc = loc.iter().cloned().map(Any).collect();
        Self { kind: kind.to_owned(), loc, msg, input: None, ctx: None }
    }

    fn of(kind: &str, field: &str, msg: String) -> Self {
        Self::new(kind, &[json!("body"), json!(field)], msg)
    }

    fn string_type(field: &str) -> Self {
        Self::of("string_type", field, "Input should be a valid string".to_owned())
    }

    /// A required field is not there.
    pub(super) fn missing(field: &str) -> Self {
        Self::of("missing", field, "Field required".to_owned()).with_input(json!({}))
    }

    /// A field breaks a rule that no type tells.
    pub(super) fn value_error(field: &str, what: &str, reason: &str) -> Self {
        Self::of("value_error", field, format!("{what}: {reason}")).with_ctx(json!({"reason": reason}))
    }

    /// A path parameter is no UUID.
    pub(super) fn uuid_parsing(parameter: &str) -> Self {
        let loc = [json!("path"), json!(parameter)];
        Self::new("uuid_parsing", &loc, "Input should be a valid UUID".to_owned())
    }

    fn with_input(self, input: Value) -> Self {
        Self { input: Some(Any(input)), ..self }
    }

    fn with_ctx(self, ctx: Value) -> Self {
        Self { ctx: Some(Any(ctx)), ..self }
    }
}

/// A field was faulty; the fault is noted.
pub(super) struct Faulty;

/// The members of a body and the faults found so far.
pub(super) struct Fields {
    object: Map<String, Value>,
    faults: Vec<FieldFault>,
}

impl Fields {
    /// A required e-mail address that an account can have.
    pub(super) fn email(&mut self) -> Result<Email, Faulty> {
        let typed = self.text("email")?;
        Email::parse(&typed).or_else(|refusal| self.not_an_email(typed, &refusal))
    }

    /// A required e-mail address, also one that only our rules refuse.
    pub(super) fn email_of_anybody(&mut self) -> Result<Claimed, Faulty> {
        let typed = self.text("email")?;
        Claimed::parse(&typed).or_else(|refusal| self.not_an_email(typed, &refusal))
    }

    /// A required password. Its length is counted in characters as typed.
    pub(super) fn password(&mut self) -> Result<SecretString, Faulty> {
        let typed = match self.object.remove("password") {
            Some(Value::String(typed)) => SecretString::from(typed),
            Some(_) => return self.fail(FieldFault::string_type("password")),
            None => return self.missing("password"),
        };
        let (length, least, most) =
            (typed.expose_secret().chars().count(), *PASSWORD_LENGTH.start(), *PASSWORD_LENGTH.end());
        if length < least {
            let msg = format!("Value should have at least {least} items after validation, not {length}");
            let ctx = json!({"field_type": "Value", "min_length": least, "actual_length": length});
            return self.fail(FieldFault::of("too_short", "password", msg).with_ctx(ctx));
        }
        if length > most {
            let msg = format!("Value should have at most {most} items after validation, not {length}");
            let ctx = json!({"field_type": "Value", "max_length": most, "actual_length": length});
            return self.fail(FieldFault::of("too_long", "password", msg).with_ctx(ctx));
        }
        if typed.expose_secret().contains('\0') {
            return self.fail(nul("password"));
        }
        Ok(typed)
    }

    /// An optional name; null is the same as absent.
    pub(super) fn full_name(&mut self) -> Result<Option<String>, Faulty> {
        if self.object.get("full_name").is_none_or(Value::is_null) {
            return Ok(None);
        }
        let typed = self.text("full_name")?;
        if typed.chars().count() > FULL_NAME_LENGTH {
            let msg = format!("String should have at most {FULL_NAME_LENGTH} characters");
            let fault = FieldFault::of("string_too_long", "full_name", msg);
            return self.fail(fault.with_input(typed.into()).with_ctx(json!({"max_length": FULL_NAME_LENGTH})));
        }
        if typed.contains('\0') {
            return self.fail(nul("full_name").with_input(typed.into()));
        }
        Ok(Some(typed))
    }

    fn text(&mut self, field: &str) -> Result<String, Faulty> {
        match self.object.get(field) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => {
                let fault = FieldFault::string_type(field);
                let fault = if is_plain(other) { fault.with_input(other.clone()) } else { fault };
                self.fail(fault)
            }
            None => self.missing(field),
        }
    }

    fn not_an_email<T>(&mut self, typed: String, refusal: &EmailError) -> Result<T, Faulty> {
        let fault = FieldFault::value_error("email", "value is not a valid email address", &refusal.to_string());
        self.fail(fault.with_input(typed.into()))
    }

    /// The seed shows the whole body; we show what cannot be a secret.
    fn missing<T>(&mut self, field: &str) -> Result<T, Faulty> {
        let is_shown = |name: &str, value: &Value| ["email", "full_name"].contains(&name) && is_plain(value);
        let shown = self.object.iter().filter(|(name, value)| is_shown(name, value));
        let shown = shown.map(|(name, value)| (name.clone(), value.clone())).collect();
        self.fail(FieldFault::missing(field).with_input(Value::Object(shown)))
    }

    fn fail<T>(&mut self, fault: FieldFault) -> Result<T, Faulty> {
        self.faults.push(fault);
        Err(Faulty)
    }
}

/// A list or an object may hold a secret anywhere.
fn is_plain(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

fn nul(field: &str) -> FieldFault {
    FieldFault::value_error(field, "value is not a valid text", "NUL characters are not allowed")
}

/// No content type counts as JSON; a form or a text does not.
fn object(content_type: Option<&str>, bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let whole = |kind: &str, msg: &str| FieldFault::new(kind, &[json!("body")], msg.to_owned());
    let not_an_object =
        || whole("model_attributes_type", "Input should be a valid dictionary or object to extract fields from");
    let refuse = |fault| Err(Refusal::Faults(vec![fault]));
    if bytes.is_empty() {
        return refuse(whole("missing", "Field required").with_input(Value::Null));
    }
    if !content_type.is_none_or(is_json) {
        return refuse(not_an_object());
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(Refusal::Detail(StatusCode::BAD_REQUEST, "There was an error parsing the body"));
    };
    match strict::parse(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null) => refuse(whole("missing", "Field required").with_input(Value::Null)),
        // Lists and texts may hold a secret.
        Ok(Value::Array(list)) if list.is_empty() => refuse(not_an_object().with_input(json!([]))),
        Ok(Value::Array(_) | Value::String(_)) => refuse(not_an_object()),
        Ok(other) => refuse(not_an_object().with_input(other)),
        Err(error) => {
            let (offset, reason) = syntax_error(text, &error);
            let fault =
                FieldFault::new("json_invalid", &[json!("body"), json!(offset)], "JSON decode error".to_owned());
            refuse(fault.with_input(json!({})).with_ctx(json!({"error": reason})))
        }
    }
}

/// `application/json` or `application/*+json` (RFC 6839 3.1), whatever the parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let Some(("application", subtype)) = essence.split_once('/') else {
        return false;
    };
    subtype == "json" || subtype.ends_with("+json")
}

/// Offset in characters and reason, in the words of the seed's parser where it has a word for it.
fn syntax_error(text: &str, error: &serde_json::Error) -> (usize, &'static str) {
    let before = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
    // The column counts bytes from 1 and stands on the offending one, or behind the last at the end of the text.
    let column = if error.is_eof() { error.column() } else { error.column().saturating_sub(1) };
    let offset = text.get(..before + column).map_or_else(|| text.chars().count(), |text| text.chars().count());
    let message = error.to_string();
    let rows = [
        ("duplicate member", "Duplicate member name"),
        ("nested too deeply", "Nested too deeply"),
        ("recursion limit", "Nested too deeply"),
        ("EOF while parsing a value", "Expecting value"),
        ("EOF while parsing a string", "Unterminated string starting at"),
        ("EOF while parsing", "Expecting ',' delimiter"),
        ("key must be a string", "Expecting property name enclosed in double quotes"),
        ("trailing comma", "Expecting property name enclosed in double quotes"),
        ("expected `:`", "Expecting ':' delimiter"),
        ("expected `,`", "Expecting ',' delimiter"),
        ("control character", "Invalid control character at"),
        ("invalid escape", "Invalid \\escape"),
        ("surrogate", "Invalid \\uXXXX escape"),
        ("trailing characters", "Extra data"),
    ];
    let reason = rows.iter().find(|(ours, _)| message.contains(ours)).map_or("Expecting value", |(_, theirs)| theirs);
    (offset, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A text that must not come back.
    const SECRET: &str = "Tr0ub4dor&3";

    /// What the answer to a body would be; empty when it is a form without faults.
    fn answer(content_type: Option<&str>, body: &[u8]) -> String {
        let object = match object(content_type, body) {
            Ok(object) => object,
            Err(refusal) => return format!("{refusal:?}"),
        };
        let mut fields = Fields { object, faults: Vec::new() };
        let _ = (fields.email(), fields.password(), fields.full_name());
        let _ = fields.email_of_anybody();
        json!(fields.faults.to_json()).to_string()
    }

    /// A member of a body, with the secret somewhere in it or not.
    fn member() -> impl Strategy<Value = (String, Value)> {
        let text = prop_oneof![
            Just(SECRET.to_owned()),
            Just(format!("{SECRET}\0")),
            Just("a@x.org".to_owned()),
            any::<String>()
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from)
        ];
        let value = leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::hash_map(prop_oneof![Just(SECRET.to_owned()), any::<String>()], inner, 0..3)
                    .prop_map(Value::from_iter),
            ]
        });
        let name = prop_oneof![Just("email"), Just("password"), Just("full_name"), Just("passwort"), Just(SECRET)];
        (name.prop_map(str::to_owned), value)
    }

    proptest! {
        /// No secret is echoed, whatever is wrong with the body and wherever the secret stands.
        #[test]
        fn no_secret_is_echoed(
            members in prop::collection::vec(member(), 0..5),
            cut in any::<prop::sample::Index>(),
            noise in any::<char>(),
        ) {
            let whole = Value::from_iter(members).to_string();
            let at = cut.index(whole.len() + 1);
            let at = (0..=at).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or_default();
            let (before, after) = whole.split_at(at);
            let noisy = format!("{before}{noise}{after}");
            for body in [before, after, &noisy, &format!("[{whole}]"), &whole] {
                let answer = answer(None, body.as_bytes());
                let is_shown = strict::parse(body).is_ok_and(|body| is_shown(&body));
                prop_assert!(!answer.contains(SECRET) || is_shown, "{}: {}", body, answer);
            }
        }

        #[test]
        fn any_bytes_are_a_body(
            content_type in prop::option::of("(application/json|text/plain|a/b\\+json)?[;= a-zA-Z/]{0,9}"),
            body in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            answer(content_type.as_deref(), &body);
        }
    }

    /// As an address or a name it would be shown, and be no secret.
    fn is_shown(body: &Value) -> bool {
        ["email", "full_name"].iter().any(|name| body[name].as_str().is_some_and(|text| text.contains(SECRET)))
    }

    #[test]
    fn syntax_errors_are_placed_as_the_seed_places_them() {
        let rows = [
            (r#"{"email": "#, 10, "Expecting value"),
            ("{", 1, "Expecting ',' delimiter"),
            (r#"{"a" 1}"#, 5, "Expecting ':' delimiter"),
            (r#"{"a":1 "b":2}"#, 7, "Expecting ',' delimiter"),
            ("{}{}", 2, "Extra data"),
            (r#"{"é":x}"#, 5, "Expecting value"),
            (r#"{"a":1,"a":1}"#, 12, "Duplicate member name"),
        ];
        for (text, offset, reason) in rows {
            let error = strict::parse(text).expect_err("faulty");
            let (found, why) = syntax_error(text, &error);
            assert_eq!(why, reason, "{text}: {error}");
            assert_eq!(found, offset, "{text}: {error}");
        }
    }
}
