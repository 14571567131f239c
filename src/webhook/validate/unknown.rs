//! Fields that a schema does not know. The API server drops them silently for clients that do not
//! ask it to be strict.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

/// Paths of all fields under `value` that `schema` does not have.
pub(super) fn fields(schema: &JSONSchemaProps, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(schema, value, path, &mut found);
    found
}

fn collect(schema: &JSONSchemaProps, value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (field, value) in object {
                let path = format!("{path}.{field}");
                let known = schema.properties.as_ref().and_then(|known| known.get(field));
                match (known, &schema.additional_properties) {
                    (Some(schema), _) => collect(schema, value, &path, found),
                    (None, Some(JSONSchemaPropsOrBool::Schema(schema))) => {
                        collect(schema, value, &path, found);
                    }
                    (None, Some(JSONSchemaPropsOrBool::Bool(true))) => {}
                    // Any part of another kind, which is checked as such.
                    (None, _) if schema.x_kubernetes_preserve_unknown_fields == Some(true) => {}
                    (None, _) => found.push(path),
                }
            }
        }
        Value::Array(items) => {
            let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items else { return };
            for (index, item) in items.iter().enumerate() {
                collect(schema, item, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}
