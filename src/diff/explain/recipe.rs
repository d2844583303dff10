//! In what two recipes differ: the smallest fields and items that do.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::recipe::RecipeField;

/// A field of a recipe that says something else.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct RecipeChange {
    /// Its name, with a dot between those of tables: `system.timezone`.
    pub field: String,
    /// Of a list: which item, by its path, its name or its text. `None`: all of the field, or the order of its items.
    pub item: Option<String>,
    /// In the first recipe, as JSON; `None`: it is not there.
    pub before: Option<String>,
    /// In the second recipe, as JSON; `None`: it is not there.
    pub after: Option<String>,
}

/// What differs between two recipes, in the order of their fields.
pub(super) fn changes(before: &[RecipeField], after: &[RecipeField]) -> Vec<RecipeChange> {
    let mut changes = Vec::new();
    for field in after {
        let old = before.iter().find(|old| old.field == field.field).map(|old| &old.value);
        compare(&field.field, old, Some(&field.value), &mut changes);
    }
    for field in before.iter().filter(|old| after.iter().all(|new| new.field != old.field)) {
        compare(&field.field, Some(&field.value), None, &mut changes);
    }
    changes
}

fn compare(field: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<RecipeChange>) {
    if before == after {
        return;
    }
    let text = |value: Option<&Value>| value.map(Value::to_string);
    let whole = |item| RecipeChange { field: field.to_owned(), item, before: text(before), after: text(after) };
    match (before, after) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for (key, value) in new {
                compare(&format!("{field}.{key}"), old.get(key), Some(value), changes);
            }
            for (key, value) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
                compare(&format!("{field}.{key}"), Some(value), None, changes);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => match (by_key(old), by_key(new)) {
            (Some(mut old), Some(new)) => {
                let count = changes.len();
                for (key, value) in new {
                    let was = old.remove(&key);
                    if was != Some(value) {
                        let (before, after) = (text(was), text(Some(value)));
                        changes.push(RecipeChange { field: field.to_owned(), item: Some(key), before, after });
                    }
                }
                changes.extend(old.into_iter().map(|(key, value)| RecipeChange {
                    field: field.to_owned(),
                    item: Some(key),
                    before: text(Some(value)),
                    after: None,
                }));
                if changes.len() == count {
                    changes.push(whole(None));
                }
            }
            _ => changes.push(whole(None)),
        },
        _ => changes.push(whole(None)),
    }
}

/// Items by what names them; `None` if two have the same name.
fn by_key(items: &[Value]) -> Option<BTreeMap<String, &Value>> {
    let key = |item: &Value| match item {
        Value::String(text) => Some(text.clone()),
        Value::Object(fields) => fields.get("path").or(fields.get("name"))?.as_str().map(str::to_owned),
        _ => None,
    };
    let by_key: Option<BTreeMap<String, &Value>> = items.iter().map(|item| Some((key(item)?, item))).collect();
    by_key.filter(|by_key| by_key.len() == items.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn record(value: Value) -> Vec<RecipeField> {
        let Value::Object(fields) = value else { panic!() };
        fields.into_iter().map(|(field, value)| RecipeField { field, value }).collect()
    }

    #[test]
    fn the_smallest_thing_that_differs_is_named() {
        let before = record(json!({
            "epoch": null, "system": {"hostname": "a", "timezone": "UTC"}, "files": [{"path": "/x", "mode": 1}],
            "packages": [{"name": "a"}, {"name": "b"}], "command_line": ["quiet", "a=1"], "gone": 1
        }));
        let after = record(json!({
            "epoch": 5, "system": {"hostname": "a", "timezone": "Europe/Berlin"}, "files": [{"path": "/x", "mode": 2}],
            "packages": [{"name": "a"}, {"name": "c"}], "command_line": ["a=1", "quiet"]
        }));
        let change = |field: &str, item: Option<&str>, before: Option<&str>, after: Option<&str>| RecipeChange {
            field: field.into(),
            item: item.map(str::to_owned),
            before: before.map(str::to_owned),
            after: after.map(str::to_owned),
        };
        let expected = [
            change("epoch", None, Some("null"), Some("5")),
            change("system.timezone", None, Some("\"UTC\""), Some("\"Europe/Berlin\"")),
            change("files", Some("/x"), Some(r#"{"path":"/x","mode":1}"#), Some(r#"{"path":"/x","mode":2}"#)),
            change("packages", Some("c"), None, Some(r#"{"name":"c"}"#)),
            change("packages", Some("b"), Some(r#"{"name":"b"}"#), None),
            change("command_line", None, Some(r#"["quiet","a=1"]"#), Some(r#"["a=1","quiet"]"#)),
            change("gone", None, Some("1"), None),
        ];
        assert_eq!(changes(&before, &after), expected);
        assert_eq!(changes(&after, &after), []);
    }
}
