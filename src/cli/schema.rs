//! `standin schema`: the JSON Schema of the configuration, for editors and other tools.

/// The schema, made from the types that the loader reads into.
pub fn json_schema() -> serde_json::Value {
    crate::config::json_schema()
}
