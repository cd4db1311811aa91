//! Paths into a TOML tree: as steps (`["route", "a", "on", "[0]"]`), as people write them, and back from a place.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

/// The innermost value written at exactly this place.
pub(super) fn find(table: &DeTable<'_>, span: &Range<usize>, path: &mut Vec<String>) -> bool {
    table.iter().any(|(key, value)| {
        path.push(key.get_ref().to_string());
        let found = find_in(value, span, path) || key.span() == *span;
        if !found {
            path.pop();
        }
        found
    })
}

fn find_in(value: &Spanned<DeValue<'_>>, span: &Range<usize>, path: &mut Vec<String>) -> bool {
    let inside = match value.get_ref() {
        DeValue::Table(table) => find(table, span, path),
        DeValue::Array(items) => items.iter().enumerate().any(|(at, item)| {
            path.push(index(at));
            let found = find_in(item, span, path);
            if !found {
                path.pop();
            }
            found
        }),
        _ => false,
    };
    inside || value.span() == *span
}

/// A step into an array: `[0]`.
pub(super) fn index(at: usize) -> String {
    format!("[{at}]")
}

/// A path as people write it: `route.checkout.stand_in.on[0]`.
pub(super) fn key_of(path: &[&str]) -> String {
    let mut key = String::new();
    for step in path {
        if !key.is_empty() && !is_index(step) {
            key.push('.');
        }
        key.push_str(step);
    }
    key
}

pub(super) fn is_index(step: &str) -> bool {
    step.starts_with('[')
}

pub(super) fn remove_item(items: &mut DeArray<'_>, step: &str) {
    let kept = std::mem::replace(items, DeArray::new()).into_iter().enumerate();
    *items = kept.filter(|(at, _)| index(*at) != step).map(|(_, item)| item).collect();
}

pub(super) fn strs(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}
