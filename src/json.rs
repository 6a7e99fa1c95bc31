//! JSON read strictly: no member twice, bounded nesting.
//!
//! `serde_json` lets the last of two equal members win, so two readers can see two different tokens or requests in the same bytes.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Arrays and objects within each other that are still read.
const MAX_DEPTH: usize = 32;

/// Parses one JSON value that fills the whole text.
pub(crate) fn parse(text: &str) -> serde_json::Result<Value> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Strict { depth: MAX_DEPTH }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("nested too deeply"))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(inner)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("duplicate member"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::hash_map(any::<String>(), inner, 0..6).prop_map(Value::from_iter),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(value in any_value()) {
            prop_assert_eq!(parse(&value.to_string()).expect("JSON"), value);
        }

        /// Strict means fewer texts, and no text that means another thing.
        #[test]
        fn what_is_read_is_what_others_read(text in r#"[ \[\]{}:,"\\a1.eE+-]{0,24}"#) {
            if let Ok(value) = parse(&text) {
                prop_assert_eq!(value, serde_json::from_str::<Value>(&text).expect("JSON"));
            }
        }
    }

    #[test]
    fn only_strict_json_is_read() {
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let rows = [
            ("plain", r#"{"a":[1,-2,0.5,"x",null,true]}"#.to_owned(), true),
            ("duplicate", r#"{"a":1,"a":1}"#.to_owned(), false),
            ("escaped duplicate", r#"{"a":1,"\u0061":1}"#.to_owned(), false),
            ("nested duplicate", r#"{"b":{"a":1,"a":1}}"#.to_owned(), false),
            ("32 deep", deep(32), true),
            ("33 deep", deep(33), false),
            ("100,000 deep", deep(100_000), false),
            ("two values", "{}{}".to_owned(), false),
            ("lone surrogate", r#""\ud800""#.to_owned(), false),
            ("byte order mark", "\u{feff}{}".to_owned(), false),
        ];
        for (name, text, is_read) in rows {
            assert_eq!(parse(&text).is_ok(), is_read, "{name}");
        }
    }
}
