//! `adamant boot --test` of a web server behind a firewall: each check with its result, the console on record.

use serde_json::Value;

use crate::support;

#[test]
fn boot_test_ends_with_the_checks_result() {
    let Some(built) = support::built("web") else { return };
    let path = built.directory.to_str().unwrap();
    let output = support::adamant(&["boot", path, "--test", "--json"]);
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{talk}");
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["failed"], 0);
    let names = |rows: &Value| -> Vec<String> {
        let rows = rows.as_array().unwrap().iter();
        rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    let expected: Vec<String> = built.manifest.checks.iter().map(|check| check.name.clone()).collect();
    assert_eq!(names(&result["checks"]), expected);
    assert!(result["checks"].as_array().unwrap().iter().all(|row| row["holds"] == true), "{result}");
    let record = std::fs::read(result["console"].as_str().unwrap()).unwrap();
    assert!(!record.is_empty());
}
