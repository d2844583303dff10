//! The JSON Schema of recipes, and every way in which a file departs from it.
//!
//! The schema is derived from the types in `schema` and from nothing else. [`json_schema`] is what editors get;
//! [`check`] walks a parsed file along it and reports all mistakes of shape at once, each at its place: unknown
//! keys, wrong types, values that are none of the choices, numbers out of range, keys that are missing. A file that
//! passes has the shape that deserialisation expects.

use std::ops::Range;

use serde_json::{Map, Value, json};
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::diagnostic::{Diagnostic, listed, nearest};
use super::schema::Document;

/// JSON Schema (2020-12) of a recipe file.
pub fn json_schema() -> Value {
    let mut schema = schemars::generate::SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<Document>()
        .to_value();
    tidy(&mut schema);
    schema
}

/// TOML has no null: a key that is optional is left out. So `null` is taken out of what schemars makes of `Option`.
/// Descriptions lose the line ends that they have from the source.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".into(), only);
                }
            }
            if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
                choices.retain(|choice| choice.get("type") != Some(&json!("null")));
                if let [Value::Object(only)] = choices.as_slice() {
                    let only = only.clone();
                    object.remove("anyOf");
                    only.into_iter().for_each(|(key, value)| {
                        object.entry(key).or_insert(value);
                    });
                }
            }
            if let Some(Value::String(text)) = object.get_mut("description") {
                *text = text.replace('\n', " ");
            }
            if object.get("default") == Some(&Value::Null) {
                object.remove("default");
            }
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Every mistake of shape in `table`, a whole file; spans are those of the parser.
pub fn check(table: &Spanned<DeTable<'_>>) -> Vec<Diagnostic> {
    let schema = json_schema();
    let mut walk = Walk { root: &schema, found: Vec::new() };
    walk.table(&schema, &Place::Top, table.get_ref(), table.span());
    walk.found
}

/// A name for the part of the file that the walk is in.
enum Place {
    Top,
    Table(String),
    Item(String),
}

impl Place {
    /// As one would write the header.
    fn header(&self) -> String {
        match self {
            Self::Top => "the recipe".into(),
            Self::Table(name) => format!("`[{name}]`"),
            Self::Item(name) => format!("`[[{name}]]`"),
        }
    }

    fn path(&self, key: &str) -> String {
        match self {
            Self::Top => key.into(),
            Self::Table(name) | Self::Item(name) => format!("{name}.{key}"),
        }
    }
}

struct Walk<'s> {
    root: &'s Value,
    found: Vec<Diagnostic>,
}

impl<'s> Walk<'s> {
    /// Follows `$ref`.
    fn target(&self, schema: &'s Value) -> &'s Value {
        target(self.root, schema)
    }

    fn properties(&self, schema: &'s Value) -> Option<&'s Map<String, Value>> {
        self.target(schema).get("properties")?.as_object()
    }

    fn table(&mut self, schema: &'s Value, place: &Place, table: &DeTable<'_>, span: Range<usize>) {
        let Some(properties) = self.properties(schema) else { return };
        for (key, value) in table.iter() {
            match properties.get(key.get_ref().as_ref()) {
                Some(property) => self.value(property, place, key.get_ref(), value),
                None => self.unknown_key(properties, place, key),
            }
        }
        let required = self.target(schema).get("required").and_then(Value::as_array);
        for key in required.into_iter().flatten().filter_map(Value::as_str) {
            if !table.contains_key(key) {
                let title = format!("{} lacks the key `{key}`", place.header());
                let missing = Diagnostic::at(span.clone().into(), title, format!("`{key}` is missing"));
                self.found.push(with_documentation(missing, key, &properties[key]));
            }
        }
    }

    fn unknown_key(&mut self, properties: &Map<String, Value>, place: &Place, key: &Spanned<impl AsRef<str>>) {
        let name = key.get_ref().as_ref();
        let title = format!("unknown key `{}` in {}", name.escape_debug(), place.header());
        let near = nearest(name, properties.keys().map(String::as_str));
        let label = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => "no such key here".into(),
        };
        let mut found = Diagnostic::at(key.span().into(), title, label);
        found = found.help(match self.home_of(name) {
            Some(home) if near.is_none() => home,
            _ => format!("keys here: {}", listed(properties.keys().map(String::as_str))),
        });
        self.found.push(found);
    }

    /// Where a key of that name does belong.
    fn home_of(&self, name: &str) -> Option<String> {
        let top = self.root.get("properties")?.as_object()?;
        if top.contains_key(name) {
            let why = "in TOML a key belongs to the nearest `[table]` above it";
            return Some(format!("`{name}` is a key of the recipe itself: write it above the first table ({why})"));
        }
        top.iter().find_map(|(table, schema)| {
            if table == "remove" {
                return None;
            }
            let target = self.target(schema);
            let (items, header) = match target.get("items") {
                Some(items) => (self.target(items), format!("[[{table}]]")),
                None => (target, format!("[{table}]")),
            };
            items.get("properties")?.get(name)?;
            Some(format!("`{name}` is a key of `{header}`"))
        })
    }

    fn value(&mut self, property: &'s Value, place: &Place, key: &str, value: &Spanned<DeValue<'_>>) {
        let schema = self.target(property);
        if let Some(choices) = choices(schema) {
            return self.choice(&choices, property, place, key, value);
        }
        let alternatives: Vec<&'s Value> = match schema.get("anyOf").and_then(Value::as_array) {
            Some(list) => list.iter().map(|alternative| self.target(alternative)).collect(),
            None => vec![schema],
        };
        let Some(schema) = alternatives.iter().find(|schema| has_type(schema, value.get_ref())) else {
            return self.wrong_type(&alternatives, property, place, key, value);
        };
        match value.get_ref() {
            DeValue::Table(table) => self.table(schema, &Place::Table(place.path(key)), table, value.span()),
            DeValue::Array(items) => {
                let Some(item_schema) = schema.get("items") else { return };
                for item in items.iter() {
                    match item.get_ref() {
                        DeValue::Table(table) if self.properties(item_schema).is_some() => {
                            self.table(item_schema, &Place::Item(place.path(key)), table, item.span());
                        }
                        _ => self.value(item_schema, place, key, item),
                    }
                }
            }
            DeValue::Integer(number) => self.range(schema, property, place, key, value, number),
            _ => {}
        }
    }

    fn choice(
        &mut self,
        choices: &[(&str, &str)],
        property: &Value,
        place: &Place,
        key: &str,
        value: &Spanned<DeValue<'_>>,
    ) {
        let names = || choices.iter().map(|(name, _)| *name);
        let path = place.path(key);
        let found = match value.get_ref() {
            DeValue::String(text) if names().any(|name| name == text) => return,
            DeValue::String(text) => {
                let title = format!("`{path}` cannot be \"{}\"", text.escape_debug());
                let label = match nearest(text, names()) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("expected one of {}", quoted(names())),
                };
                Diagnostic::at(value.span().into(), title, label)
            }
            other => {
                let title = format!("`{path}` is {}, expected a string", kind_of(other));
                Diagnostic::at(value.span().into(), title, format!("expected one of {}", quoted(names())))
            }
        };
        let mut found = with_documentation(found, key, property);
        for (name, meaning) in choices {
            found =
                found.help(if meaning.is_empty() { format!("\"{name}\"") } else { format!("\"{name}\": {meaning}") });
        }
        self.found.push(found);
    }

    fn wrong_type(
        &mut self,
        alternatives: &[&Value],
        property: &Value,
        place: &Place,
        key: &str,
        value: &Spanned<DeValue<'_>>,
    ) {
        let path = place.path(key);
        let wanted: Vec<&str> = alternatives.iter().map(|schema| self.type_words(schema)).collect();
        let wanted = wanted.join(" or ");
        let title = format!("`{path}` is {}, expected {wanted}", kind_of(value.get_ref()));
        let found = Diagnostic::at(value.span().into(), title, format!("expected {wanted}"));
        let mut found = with_documentation(found, key, property);
        let wants = |name: &str| alternatives.iter().any(|schema| schema.get("type") == Some(&json!(name)));
        found = match value.get_ref() {
            DeValue::String(text) if wants("array") => found.help(format!("write a list: `{key} = [{text:?}]`")),
            DeValue::Table(_) if wants("array") => {
                found.help(format!("each one has a header of its own, in two brackets: `[[{path}]]`"))
            }
            DeValue::Array(_) if wants("object") => {
                found.help(format!("there is only one: its header has single brackets, `[{path}]`"))
            }
            DeValue::String(text) if wants("boolean") && (text == "true" || text == "false") => {
                found.help(format!("write it without quotes: `{key} = {text}`"))
            }
            DeValue::String(text) if wants("integer") && text.parse::<i64>().is_ok() => {
                found.help(format!("write it without quotes: `{key} = {text}`"))
            }
            DeValue::Integer(number) if key == "mode" => {
                found.help(format!("write it as a string: `mode = \"{:0>4}\"`", number.as_str()))
            }
            DeValue::Integer(_) | DeValue::Float(_) if wants("string") => found.help("write it in quotes"),
            _ => found,
        };
        self.found.push(found);
    }

    fn type_words(&self, schema: &Value) -> &'static str {
        match schema.get("type").and_then(Value::as_str) {
            Some("string") if schema.get("format") == Some(&json!("date-time")) => "a date and time",
            Some("string") => "a string",
            Some("integer") => "a number",
            Some("boolean") => "true or false",
            Some("object") => "a table",
            Some("array") => match schema.get("items").map(|items| target(self.root, items)) {
                Some(items) if items.get("type") == Some(&json!("object")) => "a list of tables",
                _ => "a list of strings",
            },
            _ => "another value",
        }
    }

    fn range(
        &mut self,
        schema: &Value,
        property: &Value,
        place: &Place,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        number: &DeInteger<'_>,
    ) {
        let bound = |name: &str| schema.get(name).or_else(|| property.get(name)).and_then(Value::as_i64);
        let (low, high) = match schema.get("format").and_then(Value::as_str) {
            Some("uint16") => (0, i64::from(u16::MAX)),
            Some("uint32") => (0, i64::from(u32::MAX)),
            _ => (i64::MIN, i64::MAX),
        };
        let (low, high) = (bound("minimum").unwrap_or(low).max(low), bound("maximum").unwrap_or(high).min(high));
        let digits = number.as_str().replace('_', "");
        if i64::from_str_radix(&digits, number.radix()).is_ok_and(|number| (low..=high).contains(&number)) {
            return;
        }
        let title = format!("`{}` is out of range", place.path(key));
        let found = Diagnostic::at(value.span().into(), title, format!("expected a number from {low} to {high}"));
        self.found.push(with_documentation(found, key, property));
    }
}

fn target<'v>(root: &'v Value, schema: &'v Value) -> &'v Value {
    let reference = schema.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
    reference.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

/// Names and meanings, if the schema is a choice of strings.
fn choices(schema: &Value) -> Option<Vec<(&str, &str)>> {
    if let Some(names) = schema.get("enum").and_then(Value::as_array) {
        return Some(names.iter().filter_map(|name| Some((name.as_str()?, ""))).collect());
    }
    let list = schema.get("oneOf")?.as_array()?;
    list.iter()
        .map(|choice| {
            let meaning = choice.get("description").and_then(Value::as_str).unwrap_or_default();
            Some((choice.get("const")?.as_str()?, meaning))
        })
        .collect()
}

fn has_type(schema: &Value, value: &DeValue<'_>) -> bool {
    let date = schema.get("format") == Some(&json!("date-time"));
    match (schema.get("type").and_then(Value::as_str), value) {
        (Some("string"), DeValue::String(_)) => !date,
        (Some("string"), DeValue::Datetime(_)) => date,
        (Some("integer"), DeValue::Integer(_)) => true,
        (Some("boolean"), DeValue::Boolean(_)) => true,
        (Some("array"), DeValue::Array(_)) => true,
        (Some("object"), DeValue::Table(_)) => true,
        _ => false,
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

/// Adds what the key is for, in the words of its documentation.
fn with_documentation(found: Diagnostic, key: &str, property: &Value) -> Diagnostic {
    match property.get("description").and_then(Value::as_str) {
        Some(text) => found.help(format!("`{key}`: {text}")),
        None => found,
    }
}
