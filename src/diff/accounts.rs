//! Users and groups, from the account files in the image: a manifest has only these files' digests.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Field, NotCompared, Subject, changed};
use crate::tree::{Kind, Tree};

/// Longest account file that is read.
const FILE_MAX: u64 = 16 << 20;

/// A user or a group, field by field.
pub type Account = BTreeMap<&'static str, String>;

/// A user or group that was added, removed or changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccountChange {
    /// Its name.
    pub name: String,
    /// All fields if it was added or removed; those that differ if it was changed.
    pub changes: Vec<Field>,
    /// `added`, `removed` or `changed`.
    pub what: &'static str,
}

/// Users and groups that differ, by name.
pub(super) fn compare(
    before: &Subject,
    after: &Subject,
    not_compared: &mut Vec<NotCompared>,
) -> (Vec<AccountChange>, Vec<AccountChange>) {
    let (Some(old), Some(new)) = (&before.tree, &after.tree) else {
        let digest = |subject: &Subject, path: &str| {
            subject.files.iter().find(|file| file.path == path).map(|file| (file.sha256, file.target.clone()))
        };
        for (path, what) in [("/etc/passwd", "users"), ("/etc/group", "groups"), ("/etc/shadow", "passwords")] {
            if digest(before, path) != digest(after, path) {
                let why = format!("{path} differs, and a manifest has only its digest");
                not_compared.push(NotCompared { what: what.to_owned(), why });
            }
        }
        return (Vec::new(), Vec::new());
    };
    let users = compare_accounts(&users(old), &users(new));
    (users, compare_accounts(&groups(old), &groups(new)))
}

fn compare_accounts(old: &BTreeMap<String, Account>, new: &BTreeMap<String, Account>) -> Vec<AccountChange> {
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let change = |name: &String| {
        let (before, after) = (old.get(name), new.get(name));
        let what = match (before, after) {
            (None, _) => "added",
            (_, None) => "removed",
            _ => "changed",
        };
        let fields = before.or(after)?.keys();
        let value = |account: Option<&Account>, field: &str| account.and_then(|account| account.get(field)).cloned();
        let changes = changed(fields.map(|field| (*field, value(before, field), value(after, field))));
        (!changes.is_empty()).then(|| AccountChange { name: name.clone(), changes, what })
    };
    names.into_iter().filter_map(change).collect()
}

/// Lines of fields with colons between, by their first field.
fn table(tree: &Tree, path: &str) -> BTreeMap<String, Vec<String>> {
    let bytes = match tree.resolve(path.as_bytes()).map(|(_, id)| &tree.node(id).kind) {
        Ok(Kind::File(content)) if content.size() <= FILE_MAX => content.to_vec().unwrap_or_default(),
        _ => Vec::new(),
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let row = |line: &str| {
        let fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        (!fields[0].is_empty()).then(|| (fields[0].clone(), fields))
    };
    text.lines().filter_map(row).collect()
}

/// passwd(5) and, of shadow(5), only whether a password opens the account.
fn users(tree: &Tree) -> BTreeMap<String, Account> {
    let shadow = table(tree, "etc/shadow");
    let account = |(name, fields): (String, Vec<String>)| {
        let field = |index: usize| fields.get(index).cloned().unwrap_or_default();
        let password = match shadow.get(&name).and_then(|fields| fields.get(1)).map(String::as_str) {
            None => "not in /etc/shadow",
            Some("") => "none is asked for",
            Some(text) if text.starts_with(['!', '*']) => "no password opens it",
            Some(_) => "a password opens it",
        };
        let account = [
            ("uid", field(2)),
            ("gid", field(3)),
            ("comment", field(4)),
            ("home", field(5)),
            ("shell", field(6)),
            ("password", password.to_owned()),
        ];
        (name, account.into_iter().collect())
    };
    table(tree, "etc/passwd").into_iter().map(account).collect()
}

/// group(5).
fn groups(tree: &Tree) -> BTreeMap<String, Account> {
    let account = |(name, fields): (String, Vec<String>)| {
        let field = |index: usize| fields.get(index).cloned().unwrap_or_default();
        (name, [("gid", field(2)), ("members", field(3))].into_iter().collect())
    };
    table(tree, "etc/group").into_iter().map(account).collect()
}
