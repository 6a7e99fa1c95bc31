//! What REST operations answer when all went well.

use chrono::{DateTime, SecondsFormat, Utc};
use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse, Response};
use poem_openapi::ApiResponse;
use poem_openapi::registry::{MetaMediaType, MetaResponse, MetaResponses, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type};
use serde_json::Value;

use crate::web;

/// A JSON answer with a status.
pub(super) struct Reply<T, const STATUS: u16 = 200>(pub(super) T);

impl<T: ToJSON, const STATUS: u16> IntoResponse for Reply<T, STATUS> {
    fn into_response(self) -> Response {
        web::json(status(STATUS), &self.0.to_json().unwrap_or_default())
    }
}

impl<T: ToJSON, const STATUS: u16> ApiResponse for Reply<T, STATUS> {
    fn meta() -> MetaResponses {
        let content = vec![MetaMediaType { content_type: "application/json", schema: T::schema_ref() }];
        MetaResponses { responses: vec![meta(STATUS, content)] }
    }

    fn register(registry: &mut Registry) {
        T::register(registry);
    }
}

/// 204. The seed sends a content type with one of its two, and so do we.
pub(super) struct NoContent<const HAS_TYPE: bool = false>;

impl<const HAS_TYPE: bool> IntoResponse for NoContent<HAS_TYPE> {
    fn into_response(self) -> Response {
        let mut response = StatusCode::NO_CONTENT.into_response();
        if HAS_TYPE {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        response
    }
}

impl<const HAS_TYPE: bool> ApiResponse for NoContent<HAS_TYPE> {
    fn meta() -> MetaResponses {
        MetaResponses { responses: vec![meta(204, Vec::new())] }
    }

    fn register(_: &mut Registry) {}
}

fn meta(status: u16, content: Vec<MetaMediaType>) -> MetaResponse {
    let description = if status == 204 { "Done" } else { "OK" };
    MetaResponse { description, status: Some(status), status_range: None, content, headers: Vec::new() }
}

fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).expect("statuses are written in this crate")
}

/// A time as the seed writes it: RFC 3339 with `Z`, six digits of a second or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timestamp(pub(super) DateTime<Utc>);

impl Timestamp {
    fn text(self) -> String {
        let format = if self.0.timestamp_subsec_micros() == 0 { SecondsFormat::Secs } else { SecondsFormat::Micros };
        self.0.to_rfc3339_opts(format, true)
    }
}

impl Type for Timestamp {
    const IS_REQUIRED: bool = true;

    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> std::borrow::Cow<'static, str> {
        "string(date-time)".into()
    }

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema::new_with_format("string", "date-time")))
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(self.as_raw_value().into_iter())
    }
}

impl ParseFromJSON for Timestamp {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        DateTime::parse_from_json(value).map(Self).map_err(ParseError::propagate)
    }
}

impl ToJSON for Timestamp {
    fn to_json(&self) -> Option<Value> {
        Some(Value::String(self.text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_six_digits_or_none() {
        let rows = [(0, "2025-01-01T00:00:00Z"), (500_000_000, "2025-01-01T00:00:00.500000Z")];
        for (nanos, expected) in rows {
            let time = DateTime::from_timestamp(1_735_689_600, nanos).expect("a time");
            assert_eq!(Timestamp(time).text(), expected);
        }
    }
}
