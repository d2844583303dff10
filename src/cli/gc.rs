//! `adamant gc`: makes room in the store.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::store::StoreArguments;
use super::{Failure, Output};
use crate::build::roots::{self, Kept};
use crate::build::system;
use crate::store::{Amount, Collected, Limits};
use crate::telemetry::human_bytes;

/// Make room in the store: what was used least recently goes first.
///
/// Never removed is what a running build uses, and the packages of every lock that `lock` or `build` used here and
/// that still exists. Without a limit only litter goes: downloads that were broken off and damaged objects, after a
/// week, and what killed builds left.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  adamant gc --max-size 20GB
  adamant gc --max-age 30 --dry-run        # what a month without use would cost
  adamant gc --max-size 0                  # everything that can be fetched or built again")]
pub struct Arguments {
    /// Room for objects and results together, as in 500MB, 20GB or 16GiB.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub max_size: Option<u64>,
    /// How many days something is kept after its last use.
    #[arg(long, value_name = "DAYS")]
    pub max_age: Option<u32>,
    /// Say what would be removed, and remove nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Which store.
    #[command(flatten)]
    pub store: StoreArguments,
}

/// Makes room.
pub fn run(arguments: &Arguments, output: &Output) -> Result<(), Failure> {
    let store = arguments.store.open()?;
    let limits = Limits {
        bytes: arguments.max_size,
        age: arguments.max_age.map(|days| Duration::from_secs(u64::from(days) * 86_400)),
    };
    let kept = roots::kept(&store)?;
    let digests = kept.digests();
    let collected = if arguments.dry_run {
        store.collectable(&limits, &digests)?
    } else {
        kept.gone.iter().try_for_each(|path| store.remove_root(path))?;
        let collected = store.collect(&limits, &digests)?;
        // What cannot be removed now is tried again by the next command.
        let _ = store.empty_trash(&system::remove_abandoned);
        collected
    };
    output.result(&text(arguments, &collected, &kept), || to_json(arguments, &collected, &kept))?;
    if let Some(limit) = arguments.max_size.filter(|limit| collected.left > *limit) {
        output.talk(&format!(
            "{} are left, more than {}: running builds and {} need them (`adamant store` lists these)",
            human_bytes(collected.left),
            human_bytes(limit),
            locks(kept.locks.len())
        ));
    }
    Ok(())
}

fn locks(count: usize) -> String {
    if count == 1 { "1 lock".to_owned() } else { format!("{count} locks") }
}

fn text(arguments: &Arguments, collected: &Collected, kept: &Kept) -> String {
    let amount = |amount: &Amount| format!("{} ({})", amount.count, human_bytes(amount.bytes));
    let mut lines = Vec::new();
    if collected.objects.count > 0 {
        lines.push(format!("  objects {}", amount(&collected.objects)));
    }
    lines.extend(collected.stages.iter().map(|(stage, removed)| format!("  {stage} {}", amount(removed))));
    lines.extend(kept.gone.iter().map(|path| format!("  {} is gone and keeps nothing any more", path.display())));
    let total = collected.total();
    let verb = if arguments.dry_run { "would remove" } else { "removed" };
    lines.push(format!("{verb} {}, {} left", human_bytes(total.bytes), human_bytes(collected.left)));
    lines.join("\n") + "\n"
}

fn to_json(arguments: &Arguments, collected: &Collected, kept: &Kept) -> Value {
    json!({
        "schema": "adamant.gc/1",
        "dry_run": arguments.dry_run,
        "removed": {
            "objects": amount(&collected.objects),
            "stages": collected.stages.iter().map(|(stage, removed)| (stage.clone(), amount(removed)))
                .collect::<serde_json::Map<_, _>>(),
            "bytes": collected.total().bytes,
        },
        "left": collected.left,
        "locks": kept.locks.len(),
        "gone": kept.gone,
    })
}

/// How many, and their bytes on disk.
pub(super) fn amount(amount: &Amount) -> Value {
    json!({ "count": amount.count, "bytes": amount.bytes })
}

/// `20GB`, `16GiB`, `1.5G`, `4096`.
fn parse_size(text: &str) -> Result<u64, String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000_u64.pow(2),
        "g" | "gb" => 1000_u64.pow(3),
        "t" | "tb" => 1000_u64.pow(4),
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(SIZE_FORM.to_owned()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().map_err(|_| SIZE_FORM.to_owned())?;
    let fraction: f64 = format!("0.{fraction}0").parse().map_err(|_| SIZE_FORM.to_owned())?;
    whole
        .checked_mul(factor)
        .and_then(|bytes| bytes.checked_add((fraction * factor as f64) as u64))
        .ok_or_else(|| "no store is that large".to_owned())
}

const SIZE_FORM: &str = "expected a number and a unit, as in 500MB, 20GB or 16GiB";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_powers_of_1000_unless_they_say_otherwise() {
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("20GB", 20_000_000_000),
            ("20 gb", 20_000_000_000),
            ("1.5G", 1_500_000_000),
            ("1GiB", 1 << 30),
            ("500M", 500_000_000),
        ] {
            assert_eq!(parse_size(text), Ok(expected), "{text}");
        }
        for bad in ["", "GB", "-1", "1.2.3", "10 XB", "1e9", "99999999999T", "."] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
