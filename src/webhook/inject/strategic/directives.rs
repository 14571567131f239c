//! What a strategic merge patch says about itself, in fields that begin with `$`.

use serde_json::{Map, Value};

use super::{Error, Lists, same_key};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_VALUES: &str = "$deleteFromPrimitiveList/";

/// What becomes of an object that a patch is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Directive {
    Merge,
    Replace,
    Delete,
}

/// What the patch says is to become of the object.
pub(super) fn directive(patch: &Map<String, Value>) -> Result<Directive, Error> {
    match patch.get(PATCH) {
        None => Ok(Directive::Merge),
        Some(said) => match said.as_str() {
            Some("merge") => Ok(Directive::Merge),
            Some("replace") => Ok(Directive::Replace),
            Some("delete") => Ok(Directive::Delete),
            _ => Err(Error::new(format!("{PATCH} is {said}; it can be merge, replace or delete"))),
        },
    }
}

/// The patch as an object of its own.
pub(super) fn without(patch: &Map<String, Value>) -> Map<String, Value> {
    let fields = patch.iter().filter(|(field, _)| !field.starts_with('$'));
    fields.map(|(field, value)| (field.clone(), value.clone())).collect()
}

/// Obeys what the patch says beside [`directive`], after its fields have been merged.
pub(super) fn apply(
    lists: Lists,
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), Error> {
    for (field, said) in patch.iter().filter(|(field, _)| field.starts_with('$') && *field != PATCH)
    {
        let Some(said) = said.as_array() else {
            return Err(Error::new("must be a list").within(field));
        };
        if let Some(list) = field.strip_prefix(DELETE_VALUES) {
            if let Some(Value::Array(items)) = target.get_mut(list) {
                items.retain(|item| !said.contains(item));
            }
        } else if let Some(list) = field.strip_prefix(SET_ORDER) {
            if let Some(Value::Array(items)) = target.get_mut(list) {
                set_order(items, said, lists.keys(list));
            }
        } else if field == RETAIN_KEYS {
            // Of the sources of a volume, say, there can only be one.
            target.retain(|field, _| said.iter().any(|name| name.as_str() == Some(field)));
        } else {
            return Err(Error::new("there is no such directive").within(field));
        }
    }
    Ok(())
}

/// Puts the items that are named into the given order, in the places that they have between them.
/// Items that are not named stay where they are.
fn set_order(items: &mut [Value], order: &[Value], keys: Option<&[&str]>) {
    let rank = |item: &Value| {
        order.iter().position(|named| match (keys, named.as_object()) {
            (Some(keys), Some(named)) => same_key(item, named, &keys[..1]),
            _ => named == item,
        })
    };
    let places: Vec<_> = (0..items.len()).filter(|place| rank(&items[*place]).is_some()).collect();
    let mut named: Vec<_> = places.iter().map(|place| items[*place].clone()).collect();
    named.sort_by_key(rank);
    for (place, item) in places.into_iter().zip(named) {
        items[place] = item;
    }
}
