//! The order of Debian versions.
//!
//! Flows in: two version texts, as they stand in an index. Flows out: an [`Ordering`].
//!
//! ```text
//! [epoch:]upstream[-revision]
//! ```
//!
//! The parts are compared in this order; within a part, runs of non-digits and runs of digits alternate. Comparing
//! never fails and never allocates: a resolution compares some hundred thousand pairs, and what dpkg would refuse
//! in a version is still ordered somehow (bytes outside the alphabet sort after letters).
//!
//! Specification: Debian Policy 5.6.12; `deb-version(7)`.

use std::cmp::Ordering;

/// Compares two versions as dpkg does. `Equal` does not mean the same bytes: `1.0` and `1.00` are equal.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (split(a), split(b));
    // The epoch may have more digits than an integer holds: it is compared as digits, too.
    compare_digits(a.0.as_bytes(), b.0.as_bytes())
        .then_with(|| compare_part(a.1.as_bytes(), b.1.as_bytes()))
        .then_with(|| compare_part(a.2.as_bytes(), b.2.as_bytes()))
}

/// Whether `version` is one that dpkg accepts in a package: an upstream version that starts with a digit, from the
/// alphabet of the policy. What stands in a lock or a recipe is held to this.
pub fn is_valid(version: &str) -> bool {
    let (epoch, upstream, revision) = split(version);
    let alphabet = |c: u8| c.is_ascii_alphanumeric() || b".+~".contains(&c);
    version.bytes().next().is_some_and(|c| c.is_ascii_digit())
        && (!version.contains(':') || !epoch.is_empty() && epoch.bytes().all(|c| c.is_ascii_digit()))
        && upstream.bytes().next().is_some_and(|c| c.is_ascii_digit())
        && upstream.bytes().all(|c| alphabet(c) || c == b'-' || c == b':')
        && revision.bytes().all(alphabet)
        && !version.ends_with('-')
}

/// Epoch, upstream version and revision; what is missing is empty, which orders like `0`.
fn split(version: &str) -> (&str, &str, &str) {
    let (epoch, rest) = version.split_once(':').unwrap_or(("", version));
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

fn compare_part(mut a: &[u8], mut b: &[u8]) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let words = (take(&mut a, |c| !c.is_ascii_digit()), take(&mut b, |c| !c.is_ascii_digit()));
        let numbers = (take(&mut a, |c| c.is_ascii_digit()), take(&mut b, |c| c.is_ascii_digit()));
        let ordering = compare_words(words.0, words.1).then_with(|| compare_digits(numbers.0, numbers.1));
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    Ordering::Equal
}

/// Splits off the longest prefix whose bytes all satisfy `wanted`.
fn take<'a>(rest: &mut &'a [u8], wanted: impl Fn(u8) -> bool) -> &'a [u8] {
    let end = rest.iter().position(|&c| !wanted(c)).unwrap_or(rest.len());
    let (taken, left) = rest.split_at(end);
    *rest = left;
    taken
}

/// Non-digits: `~` before the end, the end before letters, letters before everything else.
fn compare_words(a: &[u8], b: &[u8]) -> Ordering {
    let weight = |c: Option<&u8>| match c {
        Some(b'~') => -1,
        None => 0,
        Some(&c) if c.is_ascii_alphabetic() => i32::from(c),
        Some(&c) => i32::from(c) + 256,
    };
    (0..a.len().max(b.len()))
        .map(|at| weight(a.get(at)).cmp(&weight(b.get(at))))
        .find(|ordering| ordering.is_ne())
        .unwrap_or(Ordering::Equal)
}

fn compare_digits(a: &[u8], b: &[u8]) -> Ordering {
    let significant = |digits: &[u8]| digits.iter().position(|&c| c != b'0').unwrap_or(digits.len());
    let (a, b) = (&a[significant(a)..], &b[significant(b)..]);
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn orders_as_the_policy_says() {
        let ascending = ["1.0~~", "1.0~~a", "1.0~", "1.0", "1.0-1", "1.0-1+b1", "1.0a", "1.0+", "1.2", "1.10", "1:0"];
        for (at, a) in ascending.iter().enumerate() {
            for (other, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), at.cmp(&other), "{a} {b}");
            }
        }
    }

    #[test]
    fn equal_versions_need_not_be_the_same_text() {
        for (a, b) in [("0:1.0", "1.0"), ("1.00", "1.0"), ("1.0", "1.0-0"), ("1.0", "1.0-"), ("00:1", "1")] {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    #[test]
    fn orders_numbers_longer_than_an_integer() {
        let long = "9".repeat(40);
        assert_eq!(compare(&long, &format!("1{long}")), Ordering::Less);
        assert_eq!(compare(&format!("{long}:1"), "1:1"), Ordering::Greater);
    }

    #[test]
    fn knows_which_texts_are_versions() {
        for good in ["1", "1:2.3-4", "2.41-12+deb13u1", "1.0~rc1", "20250520", "1-2-3"] {
            assert!(is_valid(good), "{good}");
        }
        for bad in ["", "a1", "1:", ":1", "x:1", "1 ", "1_2", "1-", "1/2", "1:a", "1-2_3"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn is_a_total_order_on_any_text(a in "\\PC{0,12}", b in "[0-9a-z.~:+-]{0,12}", c in "[0-9a-z.~:+-]{0,12}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }

        #[test]
        fn agrees_with_the_debversion_crate(a in "([0-9]:)?[0-9][0-9a-z.~+]{0,8}(-[0-9a-z.~+]{1,4})?",
                                            b in "([0-9]:)?[0-9][0-9a-z.~+]{0,8}(-[0-9a-z.~+]{1,4})?") {
            let other = a.parse::<debversion::Version>().unwrap().cmp(&b.parse().unwrap());
            prop_assert_eq!(compare(&a, &b), other);
        }
    }
}
