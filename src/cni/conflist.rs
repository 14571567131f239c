//! The node's network configuration with our plugin in it, and without. Pure: texts in, texts out.
//!
//! The file belongs to another project, so every field that is not ours stays as it is, and what is
//! not understood is refused rather than guessed.

use serde_json::{Map, Value, json};

/// Name of the plugin, and of its program.
pub const PLUGIN: &str = "meshwright-cni";

/// What a file of network configuration holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `.conflist`: a list of plugins.
    List,
    /// `.conf` and `.json`: one plugin, which no other can be chained to.
    Single,
}

impl Form {
    /// The form of a file, by its name; nothing for one that runtimes do not read.
    pub fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "conflist" => Some(Self::List),
            "conf" | "json" => Some(Self::Single),
            _ => None,
        }
    }
}

/// Why our plugin cannot be added to a configuration.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Unsuitable {
    #[error("it is no JSON: {0}")]
    NoJson(String),
    #[error("it has no plugins")]
    NoPlugins,
    #[error("its cniVersion {0:?} has no chained plugins; 0.3.0 or newer is needed")]
    TooOld(String),
}

/// The configuration as a list.
pub fn list(text: &str, form: Form) -> Result<Value, Unsuitable> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| Unsuitable::NoJson(error.to_string()))?;
    match form {
        Form::List => Ok(value),
        Form::Single if value.get("type").is_some_and(Value::is_string) => Ok(as_list(&value)),
        Form::Single => Err(Unsuitable::NoPlugins),
    }
}

/// As runtimes read a single plugin: the list has its name and version.
fn as_list(single: &Value) -> Value {
    let mut list = Map::new();
    for field in ["cniVersion", "name"] {
        if let Some(value) = single.get(field) {
            list.insert(field.to_owned(), value.clone());
        }
    }
    list.insert("plugins".to_owned(), json!([single]));
    Value::Object(list)
}

/// The list with our plugin, which goes last: it needs the addresses that the others gave. One that
/// is there already is brought up to date where it stands.
pub fn add(mut list: Value, plugin: &Value) -> Result<Value, Unsuitable> {
    check_version(&list)?;
    let plugins = plugins(&mut list).ok_or(Unsuitable::NoPlugins)?;
    if plugins.iter().all(is_ours) {
        return Err(Unsuitable::NoPlugins);
    }
    let place = plugins.iter().position(is_ours).unwrap_or(plugins.len());
    plugins.retain(|plugin| !is_ours(plugin));
    plugins.insert(place, plugin.clone());
    Ok(list)
}

/// The list without our plugin.
pub fn remove(mut list: Value) -> Value {
    if let Some(plugins) = plugins(&mut list) {
        plugins.retain(|plugin| !is_ours(plugin));
    }
    list
}

/// Whether our plugin is in the list.
pub fn contains(list: &Value) -> bool {
    list.get("plugins").and_then(Value::as_array).is_some_and(|plugins| plugins.iter().any(is_ours))
}

/// As a file.
pub fn text(list: &Value) -> String {
    format!("{list:#}\n")
}

fn plugins(list: &mut Value) -> Option<&mut Vec<Value>> {
    list.get_mut("plugins")?.as_array_mut()
}

fn is_ours(plugin: &Value) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(PLUGIN)
}

fn check_version(list: &Value) -> Result<(), Unsuitable> {
    // Since 1.1 a list may name several, of which the runtime takes the newest that it knows.
    if list.get("cniVersions").is_some_and(Value::is_array) {
        return Ok(());
    }
    let version = list.get("cniVersion").and_then(Value::as_str).unwrap_or_default();
    let chains =
        !version.is_empty() && !["0.1.", "0.2."].iter().any(|old| version.starts_with(old));
    if chains { Ok(()) } else { Err(Unsuitable::TooOld(version.to_owned())) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ours(run_dir: &str) -> Value {
        json!({"type": PLUGIN, "runDir": run_dir})
    }

    fn with(text: &str, form: Form) -> Result<Value, Unsuitable> {
        add(list(text, form)?, &ours("/run/a"))
    }

    const CALICO: &str = r#"{
      "name": "k8s-pod-network", "cniVersion": "0.3.1",
      "plugins": [
        {"type": "calico", "mtu": 1440, "ipam": {"type": "calico-ipam"}, "policy": {"type": "k8s"}},
        {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}
      ]
    }"#;

    #[test]
    fn ours_goes_last() {
        let list = with(CALICO, Form::List).unwrap();
        let types: Vec<_> =
            list["plugins"].as_array().unwrap().iter().map(|p| &p["type"]).collect();
        assert_eq!(types, ["calico", "portmap", PLUGIN]);
        assert_eq!(list["plugins"][0]["ipam"]["type"], "calico-ipam");
        assert!(contains(&list));
    }

    #[test]
    fn an_upgrade_changes_ours_where_it_stands() {
        let mut list = with(CALICO, Form::List).unwrap();
        list["plugins"].as_array_mut().unwrap().push(json!({"type": "bandwidth"}));
        let list = add(list, &ours("/run/b")).unwrap();
        assert_eq!(list["plugins"][2], ours("/run/b"));
        assert_eq!(list["plugins"][3]["type"], "bandwidth");
    }

    #[test]
    fn a_single_plugin_becomes_a_list_with_its_name_and_version() {
        let single = r#"{"cniVersion":"0.4.0","name":"pods","type":"bridge","bridge":"cni0"}"#;
        let list = with(single, Form::Single).unwrap();
        assert_eq!((&list["name"], &list["cniVersion"]), (&json!("pods"), &json!("0.4.0")));
        assert_eq!(list["plugins"][0]["bridge"], "cni0");
        assert_eq!(list["plugins"][1]["type"], PLUGIN);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let no_json = with("{\"name\": ", Form::List).unwrap_err();
        assert!(matches!(no_json, Unsuitable::NoJson(_)));
        for (text, form, want) in [
            ("[]", Form::List, Unsuitable::TooOld(String::new())),
            (r#"{"plugins":[{"type":"a"}]}"#, Form::List, Unsuitable::TooOld(String::new())),
            (
                r#"{"cniVersion":"0.2.0","type":"a"}"#,
                Form::Single,
                Unsuitable::TooOld("0.2.0".to_owned()),
            ),
            (r#"{"cniVersion":"1.0.0","name":"x"}"#, Form::Single, Unsuitable::NoPlugins),
            (r#"{"cniVersion":"1.0.0","plugins":{}}"#, Form::List, Unsuitable::NoPlugins),
            (r#"{"cniVersion":"1.0.0","plugins":[]}"#, Form::List, Unsuitable::NoPlugins),
            // Somebody took everything else away: alone, we would make pods without a network.
            (
                r#"{"cniVersion":"1.0.0","plugins":[{"type":"meshwright-cni"}]}"#,
                Form::List,
                Unsuitable::NoPlugins,
            ),
        ] {
            assert_eq!(with(text, form).unwrap_err(), want, "{text}");
        }
        assert!(with(r#"{"cniVersions":["1.0.0"],"plugins":[{"type":"a"}]}"#, Form::List).is_ok());
    }

    #[test]
    fn only_files_that_runtimes_read_have_a_form() {
        assert_eq!(Form::of("10-calico.conflist"), Some(Form::List));
        assert_eq!(Form::of("10-flannel.conf"), Some(Form::Single));
        assert_eq!(Form::of("87-podman.json"), Some(Form::Single));
        for name in ["README", "calico-kubeconfig", "10-x.conflist.bak", ".conflist-new"] {
            assert_eq!(Form::of(name), None, "{name}");
        }
    }

    /// Any JSON, so also fields that no version of CNI has yet.
    fn anything() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-zA-Z.]{1,6}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn any_list() -> impl Strategy<Value = Value> {
        let plugin = ("[a-z]{3,9}", anything())
            .prop_map(|(kind, settings)| json!({"type": kind, "settings": settings}));
        (prop::collection::vec(plugin, 1..4), anything(), ".{0,8}").prop_map(
            |(plugins, unknown, name)| {
                json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins, "new": unknown})
            },
        )
    }

    proptest! {
        #[test]
        fn removing_undoes_adding(before in any_list()) {
            let added = add(before.clone(), &ours("/run/a")).unwrap();
            prop_assert!(contains(&added));
            prop_assert_eq!(remove(added), before);
        }

        #[test]
        fn adding_twice_is_adding_once(before in any_list()) {
            let once = add(before, &ours("/run/a")).unwrap();
            prop_assert_eq!(add(once.clone(), &ours("/run/a")).unwrap(), once);
        }

        #[test]
        fn the_text_is_the_list(before in any_list()) {
            prop_assert_eq!(list(&text(&before), Form::List).unwrap(), before);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,64}") {
            for form in [Form::List, Form::Single] {
                drop(list(&text, form).and_then(|list| add(list, &ours("/run/a"))).map(remove));
            }
        }
    }
}
