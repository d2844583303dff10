//! Bytes as JSON strings: each byte one character of the same number. ASCII stays readable, anything round-trips.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// For `#[serde(with)]`.
pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    serializer.serialize_str(&text)
}

/// For `#[serde(with)]`.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    let byte = |c| u8::try_from(c).map_err(|_| D::Error::custom("a character above U+00FF"));
    text.chars().map(|c| byte(u32::from(c))).collect()
}
