//! What single operators and functions do with values.

use std::borrow::Cow;

use super::{
    eval::{Evaluated, MAX_ELEMENTS},
    native::{Arithmetic, Conversion},
    scope::Scope,
    value::{Fault, Val},
};

pub(super) fn index<'a>(of: &Val<'a>, key: &Val<'_>) -> Evaluated<'a> {
    if of.is_list() {
        let place = match key {
            Val::Int(place) => usize::try_from(*place).ok(),
            Val::UInt(place) => usize::try_from(*place).ok(),
            // A whole number, as in CEL.
            Val::Double(place) if place.fract() == 0.0 && (0.0..1e9).contains(place) => {
                Some(*place as usize)
            }
            _ => return Err(Fault::Types("[]")),
        };
        return place.and_then(|place| of.element(place)).ok_or(Fault::NoKey);
    }
    match key {
        Val::Text(name) => of.field(name)?.ok_or(Fault::NoKey),
        Val::Int(_) | Val::UInt(_) | Val::Double(_) | Val::Bool(_) => Err(Fault::NoKey),
        _ => Err(Fault::Types("[]")),
    }
}

pub(super) fn is_in<'a>(one: &Val<'_>, within: &Val<'_>, scope: &Scope<'_>) -> Evaluated<'a> {
    if within.is_list() {
        scope.spend(within.weight())?;
        for place in 0..within.len().unwrap_or(0) {
            if let Some(element) = within.element(place)
                && element.equals(one)?
            {
                return Ok(Val::Bool(true));
            }
        }
        return Ok(Val::Bool(false));
    }
    if within.len().is_none() {
        return Err(Fault::Types("in"));
    }
    match one {
        Val::Text(name) => Ok(Val::Bool(within.field(name)?.is_some())),
        Val::Int(_) | Val::UInt(_) | Val::Double(_) | Val::Bool(_) => Ok(Val::Bool(false)),
        _ => Err(Fault::Types("in")),
    }
}

pub(super) fn arithmetic<'a>(
    kind: Arithmetic,
    one: Val<'a>,
    two: Val<'a>,
    scope: &Scope<'_>,
) -> Evaluated<'a> {
    match (one, two) {
        (Val::Int(one), Val::Int(two)) => match kind {
            Arithmetic::Add => one.checked_add(two),
            Arithmetic::Subtract => one.checked_sub(two),
            Arithmetic::Multiply => one.checked_mul(two),
            Arithmetic::Divide | Arithmetic::Remainder if two == 0 => {
                return Err(Fault::DivisionByZero);
            }
            Arithmetic::Divide => one.checked_div(two),
            Arithmetic::Remainder => one.checked_rem(two),
        }
        .map(Val::Int)
        .ok_or(Fault::Overflow),
        (Val::UInt(one), Val::UInt(two)) => match kind {
            Arithmetic::Add => one.checked_add(two),
            Arithmetic::Subtract => one.checked_sub(two),
            Arithmetic::Multiply => one.checked_mul(two),
            Arithmetic::Divide | Arithmetic::Remainder if two == 0 => {
                return Err(Fault::DivisionByZero);
            }
            Arithmetic::Divide => one.checked_div(two),
            Arithmetic::Remainder => one.checked_rem(two),
        }
        .map(Val::UInt)
        .ok_or(Fault::Overflow),
        (Val::Double(one), Val::Double(two)) => Ok(Val::Double(match kind {
            Arithmetic::Add => one + two,
            Arithmetic::Subtract => one - two,
            Arithmetic::Multiply => one * two,
            Arithmetic::Divide => one / two,
            Arithmetic::Remainder => return Err(Fault::Types("%")),
        })),
        (Val::Text(one), Val::Text(two)) if matches!(kind, Arithmetic::Add) => {
            scope.spend_bytes(one.len() + two.len())?;
            Ok(Val::Text(one + two))
        }
        (one, two) if matches!(kind, Arithmetic::Add) && one.is_list() && two.is_list() => {
            let (mut all, more) = (one.elements()?, two.elements()?);
            let all = all.get_or_insert_default();
            all.extend(more.unwrap_or_default());
            scope.spend(all.len())?;
            if all.len() > MAX_ELEMENTS {
                return Err(Fault::TooLarge);
            }
            Ok(Val::List(std::mem::take(all).into()))
        }
        _ => Err(Fault::Types(match kind {
            Arithmetic::Add => "+",
            Arithmetic::Subtract => "-",
            Arithmetic::Multiply => "*",
            Arithmetic::Divide => "/",
            Arithmetic::Remainder => "%",
        })),
    }
}

/// Characters of text, elements of a list, keys of a map.
pub(super) fn size<'a>(of: &Val<'_>, scope: &Scope<'_>) -> Evaluated<'a> {
    let size = match of {
        Val::Text(text) => {
            scope.spend(text.len() / 64)?;
            text.chars().count()
        }
        other => other.len().ok_or(Fault::Types("size"))?,
    };
    Ok(Val::Int(i64::try_from(size).map_err(|_| Fault::Overflow)?))
}

pub(super) fn convert<'a>(to: Conversion, value: Val<'a>, scope: &Scope<'_>) -> Evaluated<'a> {
    scope.spend(value.weight())?;
    Ok(match (to, value) {
        (Conversion::Int, Val::Int(value)) => Val::Int(value),
        (Conversion::Int, Val::UInt(value)) => {
            Val::Int(i64::try_from(value).map_err(|_| Fault::Overflow)?)
        }
        (Conversion::Int, Val::Double(value)) => {
            if !(value > i64::MIN as f64 && value < i64::MAX as f64) {
                return Err(Fault::Overflow);
            }
            Val::Int(value as i64)
        }
        (Conversion::Int, Val::Text(text)) => {
            Val::Int(text.parse().map_err(|_| Fault::NotANumber)?)
        }
        (Conversion::UInt, Val::UInt(value)) => Val::UInt(value),
        (Conversion::UInt, Val::Int(value)) => {
            Val::UInt(u64::try_from(value).map_err(|_| Fault::Overflow)?)
        }
        (Conversion::UInt, Val::Double(value)) => {
            if !(value >= 0.0 && value < u64::MAX as f64) {
                return Err(Fault::Overflow);
            }
            Val::UInt(value as u64)
        }
        (Conversion::UInt, Val::Text(text)) => {
            Val::UInt(text.parse().map_err(|_| Fault::NotANumber)?)
        }
        (Conversion::Double, Val::Double(value)) => Val::Double(value),
        (Conversion::Double, Val::Int(value)) => Val::Double(value as f64),
        (Conversion::Double, Val::UInt(value)) => Val::Double(value as f64),
        (Conversion::Double, Val::Text(text)) => {
            Val::Double(text.parse().map_err(|_| Fault::NotANumber)?)
        }
        (Conversion::Text, Val::Text(text)) => Val::Text(text),
        (Conversion::Text, Val::Int(value)) => Val::Text(Cow::Owned(value.to_string())),
        (Conversion::Text, Val::UInt(value)) => Val::Text(Cow::Owned(value.to_string())),
        (Conversion::Text, Val::Double(value)) => Val::Text(Cow::Owned(value.to_string())),
        (Conversion::Text, Val::Bool(value)) => Val::Text(Cow::Owned(value.to_string())),
        (Conversion::Bool, Val::Bool(value)) => Val::Bool(value),
        (Conversion::Bool, Val::Text(text)) => match &*text {
            "1" | "t" | "true" | "TRUE" | "True" => Val::Bool(true),
            "0" | "f" | "false" | "FALSE" | "False" => Val::Bool(false),
            _ => return Err(Fault::Types("bool")),
        },
        (to, _) => {
            return Err(Fault::Types(match to {
                Conversion::Int => "int",
                Conversion::UInt => "uint",
                Conversion::Double => "double",
                Conversion::Text => "string",
                Conversion::Bool => "bool",
            }));
        }
    })
}
