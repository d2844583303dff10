//! The recipe's users and groups, written into the account files of the tree, and no password in any of them.
//!
//! ```text
//! /etc/passwd   name:x:uid:gid:comment:home:shell            passwd(5)
//! /etc/shadow   name:*:::::::                                shadow(5)   `*`: no password ever matches
//! /etc/group    name:x:gid:member,member                     group(5)
//! /etc/gshadow  name:!*::member,member                       gshadow(5)
//! /etc/subuid   name:first:65536    and /etc/subgid          subuid(5)   people only, if the files are there
//! ```
//!
//! Numbers do not depend on anything but the tree and the recipe: those that the recipe gives are taken first; then,
//! in the order of the recipe, a person gets the lowest number from 1000 that no user and no group has, a system
//! account the highest from 999 down, as systemd-sysusers(8) does. A user's own group has the user's number where
//! it is free.
//!
//! Accounts of services get the password `!*` (locked, as systemd-sysusers writes), those of people and root `*`:
//! no password matches either, but a key that is given at boot may open the latter.

use std::collections::BTreeSet;

use super::files::{put, read, resolve_account, rewrite};
use crate::recipe::{At, Diagnostic, Diagnostics, Recipe, Span, User};
use crate::tree::{Kind, Metadata, Node, Timestamp, Tree};

/// Numbers of people (`UID_MIN`, `UID_MAX` of login.defs(5) in Debian).
const PEOPLE: std::ops::RangeInclusive<u32> = 1000..=59999;
/// Numbers of system accounts made at run time (Debian Policy 9.2.2).
const SYSTEM: std::ops::RangeInclusive<u32> = 100..=999;
/// First subordinate id and how many each user gets (`SUB_UID_MIN`, `SUB_UID_COUNT` of login.defs(5)).
const SUBORDINATE: (u64, u64) = (100_000, 65_536);
/// Home directories are nobody else's business (`DIR_MODE` of adduser.conf(5) in Debian).
const HOME_MODE: u16 = 0o700;

/// Adds the accounts that `recipe` asks for, and takes every password away.
pub fn apply(tree: &mut Tree, recipe: &Recipe, epoch: Timestamp) -> Result<(), Diagnostics> {
    let complain = |complaint: Box<Diagnostic>| recipe.complain(vec![*complaint]);
    let mut files = AccountFiles::read(tree).map_err(complain)?;
    if !files.is_missing() || !recipe.users.is_empty() || !recipe.groups.is_empty() {
        let found = add(tree, &mut files, recipe, epoch);
        if !found.is_empty() {
            return Err(recipe.complain(found));
        }
        files.lock_passwords();
        files.write(tree, epoch).map_err(complain)?;
    }
    Ok(())
}

/// Names and numbers of a tree's accounts.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    users: Vec<(String, u32)>,
    groups: Vec<(String, u32)>,
}

impl Accounts {
    /// Those of /etc/passwd and /etc/group; lines that are not well-formed count for nothing.
    pub fn read(tree: &Tree) -> Result<Self, Diagnostic> {
        let table = |path: &[u8]| -> Result<Vec<(String, u32)>, Diagnostic> {
            let text = read(tree, path).map_err(|complaint| *complaint)?.unwrap_or_default();
            Ok(Table::parse(&text).ids())
        };
        Ok(Self { users: table(b"/etc/passwd")?, groups: table(b"/etc/group")? })
    }

    /// The number of a user. Root is 0 even where no file says so.
    pub fn uid(&self, name: &str) -> Option<u32> {
        find(&self.users, name)
    }

    /// The number of a group.
    pub fn gid(&self, name: &str) -> Option<u32> {
        find(&self.groups, name)
    }

    /// All users, in the order of the file.
    pub fn user_names(&self) -> impl Iterator<Item = &str> {
        self.users.iter().map(|(name, _)| name.as_str())
    }

    /// All groups, in the order of the file.
    pub fn group_names(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(|(name, _)| name.as_str())
    }
}

fn find(table: &[(String, u32)], name: &str) -> Option<u32> {
    let entry = table.iter().find(|(known, _)| known == name);
    entry.map(|(_, id)| *id).or((name == "root").then_some(0))
}

/// Lines of fields separated by `:`. Bytes that are not UTF-8 are kept: lines are latin-1 inside.
#[derive(Debug, Clone, Default)]
struct Table {
    lines: Vec<Vec<String>>,
}

impl Table {
    fn parse(text: &[u8]) -> Self {
        let field = |field: &[u8]| field.iter().map(|byte| char::from(*byte)).collect::<String>();
        let line = |line: &[u8]| line.split(|byte| *byte == b':').map(field).collect();
        Self { lines: text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(line).collect() }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in &self.lines {
            // Each character is one byte: those read were made so, those added are encoded in `add`.
            bytes.extend(line.join(":").chars().map(|c| c as u8));
            bytes.push(b'\n');
        }
        bytes
    }

    fn add(&mut self, fields: &[&str]) {
        let field = |field: &&str| field.bytes().map(char::from).collect();
        self.lines.push(fields.iter().map(field).collect());
    }

    fn has(&self, name: &str) -> bool {
        self.lines.iter().any(|line| line[0] == name)
    }

    /// First and third field, as in passwd and group.
    fn ids(&self) -> Vec<(String, u32)> {
        let id = |line: &Vec<String>| Some((line[0].clone(), line.get(2)?.parse().ok()?));
        self.lines.iter().filter_map(id).collect()
    }

    /// Adds `member` to the list in field `field` of the line of `name`.
    fn add_member(&mut self, name: &str, member: &str, field: usize) {
        let Some(line) = self.lines.iter_mut().find(|line| line[0] == name) else { return };
        let Some(members) = line.get_mut(field) else { return };
        if members.split(',').any(|known| known == member) {
            return;
        }
        if !members.is_empty() {
            members.push(',');
        }
        members.push_str(member);
    }
}

/// The files, with the mode and group that new ones get.
struct AccountFiles {
    passwd: Table,
    shadow: Table,
    group: Table,
    gshadow: Table,
    subuid: Option<Table>,
    subgid: Option<Table>,
}

impl AccountFiles {
    fn read(tree: &Tree) -> Result<Self, Box<Diagnostic>> {
        let table = |path: &[u8]| Ok::<_, Box<Diagnostic>>(read(tree, path)?.map(|text| Table::parse(&text)));
        Ok(Self {
            passwd: table(b"/etc/passwd")?.unwrap_or_default(),
            shadow: table(b"/etc/shadow")?.unwrap_or_default(),
            group: table(b"/etc/group")?.unwrap_or_default(),
            gshadow: table(b"/etc/gshadow")?.unwrap_or_default(),
            subuid: table(b"/etc/subuid")?,
            subgid: table(b"/etc/subgid")?,
        })
    }

    fn is_missing(&self) -> bool {
        self.passwd.lines.is_empty()
    }

    /// Every password becomes one that never matches. Passwords of packages' scripts are known to the world.
    fn lock_passwords(&mut self) {
        let locked = |password: &str| password.starts_with(['!', '*']);
        for line in &mut self.shadow.lines {
            if let Some(password) = line.get_mut(1).filter(|password| !locked(password)) {
                *password = "*".into();
            }
        }
        for line in &mut self.gshadow.lines {
            if let Some(password) = line.get_mut(1).filter(|password| !locked(password)) {
                *password = "!*".into();
            }
        }
        for (table, shadow) in [(&mut self.passwd, &self.shadow), (&mut self.group, &self.gshadow)] {
            for line in &mut table.lines {
                let word = if shadow.has(&line[0]) { "x" } else { "*" };
                if let Some(password) = line.get_mut(1).filter(|password| *password != "x" && !locked(password)) {
                    *password = word.into();
                }
            }
        }
    }

    fn write(self, tree: &mut Tree, epoch: Timestamp) -> Result<(), Box<Diagnostic>> {
        let shadow_group = find(&self.group.ids(), "shadow").unwrap_or(0);
        let secret = Metadata { gid: shadow_group, ..Metadata::with_mode(0o640) };
        let public = Metadata::with_mode(0o644);
        let tables: [(&[u8], Option<Table>, &Metadata); 6] = [
            (b"/etc/passwd", Some(self.passwd), &public),
            (b"/etc/shadow", Some(self.shadow), &secret),
            (b"/etc/group", Some(self.group), &public),
            (b"/etc/gshadow", Some(self.gshadow), &secret),
            (b"/etc/subuid", self.subuid, &public),
            (b"/etc/subgid", self.subgid, &public),
        ];
        for (path, table, metadata) in tables {
            let Some(table) = table else { continue };
            let bytes = table.to_bytes();
            if read(tree, path)?.unwrap_or_default() == bytes {
                continue;
            }
            rewrite(tree, path, bytes, metadata.clone(), epoch).map_err(|error| {
                let help = vec![error.to_string()];
                let title = "cannot write the accounts of the image".to_owned();
                Box::new(Diagnostic { title, span: None, label: String::new(), context: Vec::new(), help })
            })?;
        }
        Ok(())
    }
}

fn add(tree: &mut Tree, files: &mut AccountFiles, recipe: &Recipe, epoch: Timestamp) -> Vec<Diagnostic> {
    let mut adding = Adding { files, taken: BTreeSet::new(), found: Vec::new() };
    if adding.files.is_missing() {
        let span = recipe.users.first().map(|user| user.name.span).or(recipe.groups.first().map(|g| g.name.span));
        let complaint = Diagnostic::at(span.unwrap_or_default(), "the image has no /etc/passwd", "needs it");
        return vec![complaint.help("the package `base-passwd` makes it")];
    }
    let given = recipe.users.iter().filter_map(|user| user.uid.as_ref());
    let given = given.chain(recipe.groups.iter().filter_map(|group| group.gid.as_ref())).map(|id| id.value);
    adding.taken = adding.ids().chain(given).collect();
    for group in &recipe.groups {
        if adding.refuse_known("group", &group.name, group.gid.as_ref()) {
            continue;
        }
        if let Some(gid) = adding.number(group.gid.as_ref(), group.system, group.name.span) {
            adding.add_group(&group.name, gid);
        }
    }
    for user in &recipe.users {
        if let Some(line) = adding.add_user(tree, user)
            && let Some(home) = line.home
        {
            make_home(tree, &home, line.uid, line.gid, epoch, user, &mut adding.found);
        }
    }
    adding.found
}

struct Adding<'f> {
    files: &'f mut AccountFiles,
    taken: BTreeSet<u32>,
    found: Vec<Diagnostic>,
}

/// What the home directory of an account needs.
struct Added {
    uid: u32,
    gid: u32,
    home: Option<String>,
}

impl Adding<'_> {
    fn ids(&self) -> impl Iterator<Item = u32> {
        self.files.passwd.ids().into_iter().chain(self.files.group.ids()).map(|(_, id)| id)
    }

    /// Complains if the image has an account of that name, or another one of that number.
    fn refuse_known(&mut self, what: &str, name: &At<String>, id: Option<&At<u32>>) -> bool {
        let table = if what == "user" { &self.files.passwd } else { &self.files.group };
        if table.has(name) {
            let title = format!("the image has the {what} `{}` already", name.value);
            let label = "made by one of its packages";
            self.found.push(Diagnostic::at(name.span, title, label).help("choose another name, or leave it out"));
            return true;
        }
        if let Some(id) = id
            && let Some((other, _)) = table.ids().into_iter().find(|(_, known)| *known == id.value)
        {
            let title = format!("the number {} is taken", id.value);
            self.found.push(Diagnostic::at(id.span, title, format!("it is that of the {what} `{other}`")));
            return true;
        }
        false
    }

    fn number(&mut self, given: Option<&At<u32>>, system: bool, span: Span) -> Option<u32> {
        if let Some(given) = given {
            return Some(given.value);
        }
        let free = |id: &u32| !self.taken.contains(id);
        let id = if system { SYSTEM.rev().find(free) } else { PEOPLE.clone().find(free) };
        match id {
            Some(id) => {
                self.taken.insert(id);
            }
            None => self.found.push(Diagnostic::at(span, "no number is free for this account", "")),
        }
        id
    }

    fn add_group(&mut self, name: &str, gid: u32) {
        self.files.group.add(&[name, "x", &gid.to_string(), ""]);
        self.files.gshadow.add(&[name, "!*", "", ""]);
    }

    fn add_user(&mut self, tree: &Tree, user: &User) -> Option<Added> {
        let name = user.name.as_str();
        if self.refuse_known("user", &user.name, user.uid.as_ref()) {
            return None;
        }
        let uid = self.number(user.uid.as_ref(), user.system, user.name.span)?;
        let gid = self.primary_group(user, uid)?;
        for group in &user.groups {
            let accounts = self.accounts();
            let wanted = group.with(crate::recipe::Account::Name(group.value.clone()));
            if let Err(complaint) = resolve_account(&accounts, &wanted, Accounts::gid, Accounts::group_names, "group") {
                self.found.push(*complaint);
            }
            self.files.group.add_member(group, name, 3);
            self.files.gshadow.add_member(group, name, 3);
        }
        let exists = |path: &str| tree.resolve(path.as_bytes()).is_ok();
        let shell = match &user.shell {
            Some(shell) if exists(shell) => shell.value.as_str(),
            Some(shell) => {
                let title = format!("the image has no shell `{}`", shell.value);
                self.found.push(Diagnostic::at(shell.span, title, "no package brings it"));
                return None;
            }
            None if user.system => "/usr/sbin/nologin",
            None if exists("/bin/bash") => "/bin/bash",
            None => "/bin/sh",
        };
        let home = match &user.home {
            Some(home) => home.clone(),
            None if user.system => "/nonexistent".to_owned(),
            None => format!("/home/{name}"),
        };
        self.files.passwd.add(&[name, "x", &uid.to_string(), &gid.to_string(), &user.comment, &home, shell]);
        let password = if user.system { "!*" } else { "*" };
        self.files.shadow.add(&[name, password, "", "", "", "", "", "", ""]);
        if !user.system {
            [&mut self.files.subuid, &mut self.files.subgid].into_iter().flatten().for_each(|t| subordinate(t, name));
        }
        Some(Added { uid, gid, home: (!user.system).then_some(home) })
    }

    /// The given one, the group of the user's name, or a new one of that name.
    fn primary_group(&mut self, user: &User, uid: u32) -> Option<u32> {
        let accounts = self.accounts();
        if let Some(group) = &user.group {
            let gid = resolve_account(&accounts, group, Accounts::gid, Accounts::group_names, "group");
            return gid.map_err(|complaint| self.found.push(*complaint)).ok();
        }
        if let Some(gid) = accounts.gid(&user.name) {
            return Some(gid);
        }
        let same = !accounts.groups.iter().any(|(_, gid)| *gid == uid);
        let gid = if same { uid } else { self.number(None, user.system, user.name.span)? };
        self.add_group(&user.name, gid);
        Some(gid)
    }

    fn accounts(&self) -> Accounts {
        Accounts { users: self.files.passwd.ids(), groups: self.files.group.ids() }
    }
}

/// A range after all those that are given away.
fn subordinate(table: &mut Table, name: &str) {
    let end = |line: &Vec<String>| -> Option<u64> {
        let (first, count): (u64, u64) = (line.get(1)?.parse().ok()?, line.get(2)?.parse().ok()?);
        first.checked_add(count)
    };
    let first = table.lines.iter().filter_map(end).max().unwrap_or(0).max(SUBORDINATE.0);
    table.add(&[name, &first.to_string(), &SUBORDINATE.1.to_string()]);
}

/// The home directory with what /etc/skel holds, if there is no such directory.
fn make_home(
    tree: &mut Tree,
    home: &str,
    uid: u32,
    gid: u32,
    epoch: Timestamp,
    user: &User,
    found: &mut Vec<Diagnostic>,
) {
    if tree.resolve(home.as_bytes()).is_ok() {
        return;
    }
    let owned = |metadata: &Metadata, mode: u16| Metadata { uid, gid, mode, mtime: epoch, ..metadata.clone() };
    let mut nodes =
        vec![(Vec::new(), Node { metadata: owned(&Metadata::default(), HOME_MODE), kind: Kind::directory() })];
    if let Ok((skel, _)) = tree.resolve(b"/etc/skel") {
        let prefix = [skel.as_slice(), b"/"].concat();
        for (path, id) in tree.walk() {
            let (Some(below), node) = (path.strip_prefix(prefix.as_slice()), tree.node(id)) else { continue };
            let kind = if tree.entries(id).is_some() { Kind::directory() } else { node.kind.clone() };
            nodes.push((below.to_vec(), Node { metadata: owned(&node.metadata, node.metadata.mode), kind }));
        }
    }
    for (below, node) in nodes {
        let path = if below.is_empty() { home.as_bytes().to_vec() } else { [home.as_bytes(), b"/", &below].concat() };
        if let Err(error) = put(tree, &path, node, epoch) {
            let title = format!("cannot make the home directory `{home}`");
            found.push(Diagnostic::at(user.name.span, title, error.to_string()));
            return;
        }
    }
}
