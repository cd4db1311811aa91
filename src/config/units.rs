//! Durations (`"500ms"`, `"1m30s"`, `"7d"`) and sizes (`"1MiB"`) as people write them.

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

/// For `#[serde(with = "units::size")]`: bytes.
pub mod size {
    use serde::{Deserialize, Deserializer, de::Error};

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let text = String::deserialize(from)?;
        super::parse_size(&text).map_err(D::Error::custom)
    }

    pub fn serialize<S: serde::Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&bytesize::ByteSize(*value).display().iec().to_string().replace(' ', ""))
    }
}

/// `"500ms"`, `"15s"`, `"1m30s"`, `"24h"`, `"7d"`. A bare number or a negative one is refused.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let span: jiff::SignedDuration = if let Some(days) =
        text.strip_suffix('d').and_then(|n| n.parse::<i64>().ok())
    {
        jiff::SignedDuration::from_hours(days.saturating_mul(24))
    } else {
        text.parse().map_err(|_| format!("`{text}` is not a duration; write for example \"500ms\", \"15s\", \"24h\" or \"7d\""))?
    };
    std::time::Duration::try_from(span).map_err(|_| format!("`{text}` is negative"))
}

/// `"64KiB"`, `"1MiB"`, `"1000"` (bytes).
pub fn parse_size(text: &str) -> Result<u64, String> {
    text.parse::<bytesize::ByteSize>()
        .map(|size| size.as_u64())
        .map_err(|_| format!("`{text}` is not a size; write for example \"64KiB\" or \"1MiB\""))
}

/// The shortest form that `parse_duration` reads back: `15s`, `500ms`, `24h`, `7d`.
pub fn write_duration(span: std::time::Duration) -> String {
    let millis = span.as_millis();
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if millis >= unit && millis % unit == 0 {
            return format!("{}{name}", millis / unit);
        }
    }
    format!("{millis}ms")
}
