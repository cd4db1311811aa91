//! Durations (`"500ms"`, `"1m30s"`, `"7d"`), sizes (`"1MiB"`) and addresses as people write them.
//!
//! The three empty types give the schema their form, and so the loader its words for a fault.

use std::{borrow::Cow, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// For `#[serde(with = "units::duration")]`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_duration(&text).map_err(D::Error::custom)
    }

    pub fn serialize<S: serde::Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::write_duration(*value))
    }
}

/// For `#[serde(with = "units::optional_duration")]`.
pub mod optional_duration {
    use std::time::Duration;

    use serde::Deserializer;

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        super::duration::deserialize(from).map(Some)
    }

    pub fn serialize<S: serde::Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(span) => to.serialize_str(&super::write_duration(*span)),
            None => to.serialize_none(),
        }
    }
}

/// For `#[serde(with = "units::durations")]`: a list of them.
pub mod durations {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| super::parse_duration(text).map_err(D::Error::custom)).collect()
    }

    pub fn serialize<S: serde::Serializer>(value: &[Duration], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(value.iter().map(|span| super::write_duration(*span)))
    }
}

/// For `#[serde(with = "units::size")]`: bytes.
pub mod size {
    use serde::{Deserialize, Deserializer, de::Error};

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_size(&text).map_err(D::Error::custom)
    }

    pub fn serialize<S: serde::Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&super::write_size(*value))
    }
}

/// For `#[serde(with = "units::optional_size")]`.
pub mod optional_size {
    use serde::Deserializer;

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        super::size::deserialize(from).map(Some)
    }

    pub fn serialize<S: serde::Serializer>(value: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(bytes) => to.serialize_str(&super::write_size(*bytes)),
            None => to.serialize_none(),
        }
    }
}

/// `"500ms"`, `"15s"`, `"1m30s"`, `"24h"`, `"7d"`, `"1d12h"`. A bare number, a negative one and more than ten years
/// are refused.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unread = || {
        format!(
            "`{text}` is not a duration; write for example \"500ms\", \"15s\", \"24h\" or \"7d\""
        )
    };
    let (days, rest) = match text.split_once('d') {
        Some((days, rest)) if !days.is_empty() && days.bytes().all(|b| b.is_ascii_digit()) => {
            (days.parse::<u64>().map_err(|_| too_long(text))?, rest)
        }
        _ => (0, text),
    };
    let rest = match rest.trim() {
        "" if rest.len() < text.len() => Duration::ZERO,
        rest => {
            let span: jiff::SignedDuration = rest.parse().map_err(|_| unread())?;
            Duration::try_from(span)
                .map_err(|_| format!("`{text}` is negative; write for example \"15s\""))?
        }
    };
    let days = Duration::from_secs(days.checked_mul(86_400).ok_or_else(|| too_long(text))?);
    days.checked_add(rest).filter(|span| *span <= LONGEST).ok_or_else(|| too_long(text))
}

/// `"64KiB"`, `"1MiB"`, `"1000"` (bytes).
pub fn parse_size(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .ok()
        .filter(|bytes| i64::try_from(*bytes).is_ok())
        .ok_or_else(|| {
            format!("`{text}` is not a size; write for example \"64KiB\", \"1MiB\" or \"10GiB\"")
        })
}

/// The shortest form that `parse_duration` reads back: `15s`, `500ms`, `24h`, `7d`.
pub fn write_duration(span: Duration) -> String {
    let millis = span.as_millis();
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if millis >= unit && millis.is_multiple_of(unit) {
            // One day is written "24h", as people say it.
            if name == "d" && millis == unit {
                continue;
            }
            return format!("{}{name}", millis / unit);
        }
    }
    format!("{millis}ms")
}

/// The shortest exact form that `parse_size` reads back: `64KiB`, `10GiB`, `1000B`.
pub fn write_size(bytes: u64) -> String {
    for (shift, name) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.trailing_zeros() >= shift {
            return format!("{}{name}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// Schema of a duration.
pub(super) struct DurationText;
/// Schema of a size.
pub(super) struct SizeText;
/// Schema of an address with port.
pub(super) struct AddressText;
/// Schema of a network or single address.
pub(super) struct NetworkText;

macro_rules! text_schema {
    ($type:ty, $format:literal, $examples:expr) => {
        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $format.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "examples": $examples })
            }
        }
    };
}

text_schema!(DurationText, "standin-duration", ["500ms", "15s", "24h", "7d"]);
text_schema!(SizeText, "standin-size", ["64KiB", "1MiB", "10GiB"]);
text_schema!(AddressText, "standin-address", ["127.0.0.1:8080", "[::1]:8080"]);
text_schema!(NetworkText, "standin-network", ["10.0.0.0/8", "127.0.0.1/32", "::1/128"]);

fn too_long(text: &str) -> String {
    format!("`{text}` is longer than ten years; write for example \"15s\" or \"7d\"")
}

/// So that adding it to any clock reading cannot overflow.
const LONGEST: Duration = Duration::from_secs(3650 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        let secs = |text| parse_duration(text).map(|span| span.as_secs_f64());
        assert_eq!(secs("500ms"), Ok(0.5));
        assert_eq!(secs("1m30s"), Ok(90.0));
        assert_eq!(secs("24h"), Ok(86_400.0));
        assert_eq!(secs("7d"), Ok(7.0 * 86_400.0));
        assert_eq!(secs("1d12h"), Ok(36.0 * 3_600.0));
        assert_eq!(secs("0s"), Ok(0.0));
    }

    #[test]
    fn what_is_no_duration_is_refused_and_never_panics() {
        for text in [
            "",
            "15",
            "-5s",
            "-5d",
            "d",
            "1x",
            "15 parsecs",
            "3651d",
            "99999999999999999999d",
            "9223372036854775807d",
            "9223372036854775807h",
            "1d-3h",
            "NaN",
            "∞",
        ] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_and_written_exactly() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("1MiB"), Ok(1 << 20));
        assert_eq!(parse_size("1000"), Ok(1000));
        for bytes in [0, 1, 1000, 1024, 1 << 20, 10 << 30, (1 << 20) + 1] {
            assert_eq!(parse_size(&write_size(bytes)), Ok(bytes));
        }
        for text in ["", "1 potato", "-1", "99999999999999999999", "NaN", "18EiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_written_duration_reads_back() {
        for millis in [0, 1, 500, 1_000, 90_000, 3_600_000, 86_400_000, 604_800_000] {
            let span = Duration::from_millis(millis);
            assert_eq!(parse_duration(&write_duration(span)), Ok(span));
        }
    }
}
