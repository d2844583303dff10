//! Random archives, beside the host's apt.

use super::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const PACKAGES: usize = 24;

/// A name that is mostly a package and sometimes only provided or missing.
fn name(random: &mut StdRng) -> String {
    match random.gen_range(0..10) {
        0 => format!("v{}", random.gen_range(0..4)),
        _ => format!("p{}", random.gen_range(0..PACKAGES + 1)),
    }
}

fn relation(random: &mut StdRng) -> String {
    let mut text = name(random);
    if random.gen_range(0..4) == 0 {
        let operator = ["<<", "<=", "=", ">=", ">>"][random.gen_range(0..5)];
        text += &format!(" ({operator} {})", random.gen_range(1..4));
    }
    text
}

fn group(random: &mut StdRng) -> String {
    let alternatives = 1 + [0, 0, 1, 2][random.gen_range(0..4)];
    (0..alternatives).map(|_| relation(random)).collect::<Vec<_>>().join(" | ")
}

fn list(random: &mut StdRng, most: usize, one: fn(&mut StdRng) -> String) -> String {
    (0..random.gen_range(0..=most)).map(|_| one(random)).collect::<Vec<_>>().join(", ")
}

fn archive(random: &mut StdRng) -> Archive {
    let mut archive = Archive::new();
    for at in 0..PACKAGES {
        for version in 1..=random.gen_range(1..3) {
            let mut deb = Deb::new(&format!("p{at}"), &version.to_string());
            deb = deb
                .field("Priority", ["required", "important", "standard", "optional", "extra"][random.gen_range(0..5)]);
            for (field, value) in [
                ("Depends", list(random, 2, group)),
                ("Pre-Depends", if random.gen_range(0..6) == 0 { group(random) } else { String::new() }),
                ("Recommends", list(random, 2, group)),
                ("Suggests", list(random, 1, group)),
                ("Conflicts", if random.gen_range(0..8) == 0 { relation(random) } else { String::new() }),
                ("Breaks", if random.gen_range(0..8) == 0 { relation(random) } else { String::new() }),
            ] {
                if !value.is_empty() {
                    deb = deb.field(field, &value);
                }
            }
            if random.gen_range(0..4) == 0 {
                let claimed = ["", " (= 1)", " (= 2)"][random.gen_range(0..3)];
                deb = deb.field("Provides", &format!("v{}{claimed}", random.gen_range(0..4)));
            }
            archive.add("trixie", "main", deb);
        }
    }
    archive.publish();
    archive
}

/// Control files of an earlier archive.
impl ControlSource for Archive {
    fn controls(&self, packages: &[LockedPackage]) -> Result<Vec<String>, LockError> {
        Ok(packages.iter().map(|one| self.find((&one.name, &one.version)).control()).collect())
    }
}

/// The next archive: further versions of all packages, those so far dropped.
fn successor(random: &mut StdRng) -> Archive {
    let mut next = Archive::new();
    for (_, _, mut deb) in archive(random).into_packages() {
        deb.version = (deb.version.parse::<u32>().unwrap() + 2).to_string();
        next.add("trixie", "main", deb);
    }
    next.publish();
    next
}

#[test]
fn what_is_not_renewed_stays_although_the_archive_has_only_other_versions() {
    let archives = std::env::var("ADAMANT_RANDOM_ARCHIVES").map_or(24, |count| count.parse().unwrap());
    let (mut sets, mut renewed, mut moved, mut all) = (0, 0, 0, 0);
    for seed in 0..archives {
        let random = &mut StdRng::seed_from_u64(seed);
        let (now, next) = (archive(random), successor(random));
        for _ in 0..8 {
            let wishes: Vec<String> =
                (0..random.gen_range(1..5)).map(|_| format!("p{}", random.gen_range(0..PACKAGES))).collect();
            let wishes: Vec<&str> = wishes.iter().map(String::as_str).collect();
            let request = request(&now, Ask { recommends: random.gen_range(0..2) == 0, ..ask(&wishes) });
            let Ok(before) = lock(&request, &now, NOW) else { continue };
            let names = |lock: &Lock| -> BTreeSet<String> {
                lock.sets["system"].iter().map(|one| format!("{}={}", one.name, one.version)).collect()
            };
            let kept = update(&request, &before, &Renewal::nothing(), &now, &next, NOW).unwrap().lock;
            assert_eq!(names(&kept), names(&before), "seed {seed}: {wishes:?}");
            sets += 1;
            let some = &before.sets["system"][random.gen_range(0..before.sets["system"].len())].name;
            let one = Renewal::Only { security: false, packages: [some.clone()].into() };
            let Ok(after) = update(&request, &before, &one, &now, &next, NOW) else { continue };
            let after = names(&after.lock);
            let sound = is_sound(&[&now, &next], &after);
            assert_eq!(sound, Ok(()), "seed {seed}: {wishes:?}, {some}");
            renewed += 1;
            moved += names(&before).difference(&after).count();
            all += before.sets["system"].len();
        }
    }
    println!("{sets} sets kept; {renewed} with one package renewed: {moved} of {all} packages changed");
    assert!(sets > archives && moved * 2 < all, "{sets} sets, {moved} of {all} packages changed");
}

/// Every dependency of the set holds and nothing in it conflicts, judged by the text of the packages alone.
fn is_sound(archives: &[&Archive], set: &BTreeSet<String>) -> Result<(), String> {
    let find = |one: &String| archives.iter().find_map(|archive| archive.get(one.split_once('=').unwrap())).unwrap();
    let chosen: Vec<_> = set.iter().map(find).collect();
    let satisfies = |deb: &Deb, alternative: &adamant::apt::relation::Alternative<'_>| {
        let holds = |version: Option<&str>| match (alternative.constraint, version) {
            (None, _) => true,
            (Some((operator, bound)), Some(version)) => operator.holds(version, bound),
            (Some(_), None) => false,
        };
        let provided = deb.value("Provides").unwrap_or("");
        deb.name == alternative.name && holds(Some(&deb.version))
            || adamant::apt::relation::parse(provided).map(Result::unwrap).any(|provided| {
                provided.name == alternative.name && holds(provided.constraint.map(|(_, version)| version))
            })
    };
    for deb in &chosen {
        for field in ["Pre-Depends", "Depends"] {
            let all: Vec<_> =
                adamant::apt::relation::parse(deb.value(field).unwrap_or("")).map(Result::unwrap).collect();
            for group in all.split_inclusive(|alternative| alternative.last) {
                if !group.iter().any(|one| chosen.iter().any(|other| satisfies(other, one))) {
                    return Err(format!("{} lacks {:?}", deb.name, group));
                }
            }
        }
        for field in ["Conflicts", "Breaks"] {
            for conflict in adamant::apt::relation::parse(deb.value(field).unwrap_or("")).map(Result::unwrap) {
                if chosen.iter().any(|other| other.name != deb.name && satisfies(other, &conflict)) {
                    return Err(format!("{} {field} {conflict}", deb.name));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn sets_are_sound_and_those_of_apt() {
    let archives = std::env::var("ADAMANT_RANDOM_ARCHIVES").map_or(8, |count| count.parse().unwrap());
    let (mut counts, mut differing) = ((0, 0), Vec::new());
    for seed in 0..archives {
        let random = &mut StdRng::seed_from_u64(seed);
        let archive = archive(random);
        let host = host_apt(&archive, Ask::default()).filter(is_version_2);
        for _ in 0..8 {
            let wishes: Vec<String> =
                (0..random.gen_range(1..5)).map(|_| format!("p{}", random.gen_range(0..PACKAGES))).collect();
            let wishes: Vec<&str> = wishes.iter().map(String::as_str).collect();
            let ask = Ask { recommends: random.gen_range(0..2) == 0, ..ask(&wishes) };
            let ours = resolve(&archive, ask).map(|set| set.into_iter().collect::<BTreeSet<_>>());
            match &ours {
                Ok(set) => assert_eq!(is_sound(&[&archive], set), Ok(()), "seed {seed}: {wishes:?}"),
                Err(error) => assert!(error.contains("\n  - "), "seed {seed}: {wishes:?}: {error}"),
            }
            let theirs = host.as_ref().map(|host| installed_by(host, &archive, ask));
            let theirs = theirs.map(|set| set.map(|set| set.into_iter().collect::<BTreeSet<_>>()));
            let same = match (&ours, &theirs) {
                (_, None) => true,
                (Ok(ours), Some(Ok(theirs))) => ours == theirs,
                (ours, Some(theirs)) => ours.is_err() && theirs.is_err(),
            };
            if !same {
                differing.push(format!("seed {seed}, {wishes:?}, {}:\n{ours:?}\n{theirs:?}", ask.recommends));
            }
            if ours.is_ok() { counts.0 += 1 } else { counts.1 += 1 }
        }
    }
    println!("{} sets, {} refusals, {} unlike apt's", counts.0, counts.1, differing.len());
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}
