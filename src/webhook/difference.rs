//! What leads from one object to another, as a JSON patch (RFC 6902), written as it is found.
//!
//! Items of a list are told apart by their name: a container that comes before others is one that is
//! added, and does not make each of them a change of the one before.

use serde::Serialize;
use serde_json::{Map, Value};

/// The patch's text; `None` where nothing differs.
pub fn patch(before: &Value, after: &Value) -> Option<Vec<u8>> {
    let mut patch = Patch { text: Vec::with_capacity(8192), path: String::with_capacity(128) };
    patch.value(before, after);
    if patch.text.is_empty() {
        return None;
    }
    patch.text.push(b']');
    Some(patch.text)
}

struct Patch {
    text: Vec<u8>,
    /// JSON pointer of what is looked at.
    path: String,
}

impl Patch {
    fn value(&mut self, before: &Value, after: &Value) {
        match (before, after) {
            (Value::Object(before), Value::Object(after)) => self.object(before, after),
            (Value::Array(before), Value::Array(after)) => self.list(before, after),
            _ if before == after => {}
            _ => self.operation("replace", Some(after)),
        }
    }

    /// Both are sorted by their keys.
    fn object(&mut self, before: &Map<String, Value>, after: &Map<String, Value>) {
        for (key, value) in after {
            self.within(key, |patch| match before.get(key) {
                Some(before) => patch.value(before, value),
                None => patch.operation("add", Some(value)),
            });
        }
        for key in before.keys().filter(|key| !after.contains_key(*key)) {
            self.within(key, |patch| patch.operation("remove", None));
        }
    }

    /// Up to `place` the list is as it shall be; behind are the items of `before` that are left.
    fn list(&mut self, mut before: &[Value], after: &[Value]) {
        for (place, item) in after.iter().enumerate() {
            while let Some((first, rest)) = before.split_first()
                && !is_same(first, item)
                && !after[place..].iter().any(|later| is_same(first, later))
            {
                self.at(place, |patch| patch.operation("remove", None));
                before = rest;
            }
            match before.split_first() {
                Some((first, rest)) if is_same(first, item) => {
                    self.at(place, |patch| patch.value(first, item));
                    before = rest;
                }
                _ => self.at(place, |patch| patch.operation("add", Some(item))),
            }
        }
        for _ in before {
            self.at(after.len(), |patch| patch.operation("remove", None));
        }
    }

    fn within(&mut self, key: &str, act: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push('/');
        for c in key.chars() {
            match c {
                '~' => self.path.push_str("~0"),
                '/' => self.path.push_str("~1"),
                c => self.path.push(c),
            }
        }
        act(self);
        self.path.truncate(length);
    }

    fn at(&mut self, place: usize, act: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        self.path.push('/');
        self.path.push_str(&place.to_string());
        act(self);
        self.path.truncate(length);
    }

    fn operation(&mut self, name: &str, value: Option<&Value>) {
        self.text.push(if self.text.is_empty() { b'[' } else { b',' });
        self.text.extend_from_slice(b"{\"op\":\"");
        self.text.extend_from_slice(name.as_bytes());
        self.text.extend_from_slice(b"\",\"path\":");
        write(&mut self.text, &self.path);
        if let Some(value) = value {
            self.text.extend_from_slice(b",\"value\":");
            write(&mut self.text, value);
        }
        self.text.push(b'}');
    }
}

/// Texts and values always have a JSON form, and a vector takes all of it.
fn write(text: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    drop(serde_json::to_writer(text, value));
}

/// Whether one may become the other by changes within.
fn is_same(item: &Value, other: &Value) -> bool {
    match (item, other) {
        (Value::Object(item), Value::Object(other)) => {
            match (item.get("name"), other.get("name")) {
                (Some(name), Some(other)) => name == other,
                (None, None) => item == other,
                _ => false,
            }
        }
        _ => item == other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn operations(before: &Value, after: &Value) -> Value {
        patch(before, after).map_or(Value::Null, |text| serde_json::from_slice(&text).unwrap())
    }

    #[test]
    fn a_container_in_front_is_added_and_the_others_stay() {
        let app = json!({"name": "app", "env": [{"name": "A", "value": "1"}], "image": "app:1"});
        let mut changed = app.clone();
        changed["image"] = json!("app:2");
        let proxy = json!({"name": "proxy"});
        assert_eq!(
            operations(&json!({"containers": [app]}), &json!({"containers": [proxy, changed]})),
            json!([
                {"op": "add", "path": "/containers/0", "value": {"name": "proxy"}},
                {"op": "replace", "path": "/containers/1/image", "value": "app:2"},
            ])
        );
    }

    #[test]
    fn keys_are_escaped_and_nothing_is_no_patch() {
        assert_eq!(
            operations(&json!({"a/b~\"": 1, "c": null}), &json!({"a/b~\"": 2, "d": {}})),
            json!([
                {"op": "replace", "path": "/a~1b~0\"", "value": 2},
                {"op": "add", "path": "/d", "value": {}},
                {"op": "remove", "path": "/c"},
            ])
        );
        assert_eq!(patch(&json!({"a": [1]}), &json!({"a": [1]})), None);
    }

    /// Few names and values, so that documents have much in common.
    fn document() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            (0..3).prop_map(Value::from),
            "[a/~\"]{0,2}".prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let key = prop::sample::select(vec!["name", "a", "b/c", ""]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map(key, inner, 0..4).prop_map(|map| {
                    map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_patch_leads_from_the_one_to_the_other(before in document(), after in document()) {
            let mut patched = before.clone();
            if let Some(text) = patch(&before, &after) {
                let patch: json_patch::Patch = serde_json::from_slice(&text).unwrap();
                json_patch::patch(&mut patched, &patch).unwrap();
            }
            prop_assert_eq!(patched, after);
        }
    }
}
