//! An object of JSON: its fields in the order of the body, no name twice. Found by their names without hashing them.

use std::borrow::Cow;

use serde_json::Value;

use super::Json;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<'a> {
    fields: Vec<Field<'a>>,
    /// Where they are many.
    by_name: Option<Box<ByName>>,
}

type Field<'a> = (Cow<'a, str>, Json<'a>);

/// Places of fields, in the order of their names.
#[derive(Clone, Debug, PartialEq)]
struct ByName(Vec<u32>);

/// Names that are looked through one by one.
const FEW: usize = 12;

impl<'a> Object<'a> {
    /// None if a name stands there twice.
    pub(in crate::body) fn new(fields: Vec<Field<'a>>) -> Option<Self> {
        if fields.len() <= FEW {
            let is_twice =
                |(place, (name, _)): (usize, &Field<'_>)| find(&fields[..place], name).is_some();
            return (!fields.iter().enumerate().any(is_twice))
                .then_some(Self { fields, by_name: None });
        }
        let mut places: Vec<u32> = (0..u32::try_from(fields.len()).ok()?).collect();
        let name = |place: u32| &*fields[place as usize].0;
        places.sort_unstable_by_key(|place| name(*place));
        let is_twice = places.windows(2).any(|two| name(two[0]) == name(two[1]));
        (!is_twice).then(|| Self { fields, by_name: Some(Box::new(ByName(places))) })
    }

    /// In the order of the body.
    pub fn fields(&self) -> &[Field<'a>] {
        &self.fields
    }

    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        let Some(ByName(places)) = self.by_name.as_deref() else {
            return find(&self.fields, name);
        };
        let found = places.binary_search_by_key(&name, |place| &*self.fields[*place as usize].0);
        found.ok().map(|found| &self.fields[places[found] as usize].1)
    }

    pub fn to_value(&self) -> Value {
        let value = |(name, json): &Field<'_>| (name.clone().into_owned(), json.to_value());
        Value::Object(self.fields.iter().map(value).collect())
    }
}

fn find<'f, 'a>(fields: &'f [Field<'a>], name: &str) -> Option<&'f Json<'a>> {
    fields.iter().find(|(known, _)| *known == name).map(|(_, json)| json)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(names: &[String]) -> Option<Object<'_>> {
        let fields = names.iter().enumerate();
        let fields = fields.map(|(at, name)| (name.as_str().into(), Json::Number(at.into())));
        Object::new(fields.collect())
    }

    #[test]
    fn each_name_is_found_however_many_there_are() {
        for count in 0..40 {
            let names: Vec<String> = (0..count).map(|at| format!("n{}", at * 7 % 40)).collect();
            let object = object(&names).unwrap();
            for (at, name) in names.iter().enumerate() {
                assert_eq!(object.get(name), Some(&Json::Number(at.into())), "{name} of {count}");
            }
            for none in ["", "n", "n40", "N0"] {
                assert_eq!(object.get(none), None, "{none} of {count}");
            }
            let order: Vec<&str> = object.fields().iter().map(|(name, _)| &**name).collect();
            assert_eq!(order, names);
        }
    }

    #[test]
    fn no_name_stands_there_twice() {
        for count in 1..40 {
            for twice in 0..count {
                let mut names: Vec<String> = (0..count).map(|at| format!("n{at}")).collect();
                names.push(format!("n{twice}"));
                assert_eq!(object(&names), None, "{twice} of {count}");
            }
        }
    }
}
