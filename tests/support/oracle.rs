//! Programs by other people that judge what adamant wrote. They may be missing on a user's machine: the case then
//! says that it was skipped. In CI (`CI` is set) a missing oracle is a failure.

use std::process::Command;

/// The program, ready for arguments; `None` (said on standard error) if this machine does not have it.
pub fn oracle(program: &str) -> Option<Command> {
    let found = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
        .unwrap_or(false)
        || ["/usr/sbin", "/sbin"].iter().any(|d| std::path::Path::new(d).join(program).is_file());
    if found {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/sbin")).env("LC_ALL", "C.UTF-8");
        return Some(command);
    }
    skip(&format!("{program} is not installed"));
    None
}

/// Whether this process is root; a case that needs root says so where it is not, and fails in CI.
pub fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}

/// Says that a case was skipped and why; fails where CI runs.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "{why}: in CI no case may be skipped");
    eprintln!("skipped: {why}");
}

/// Runs the command and gives its standard output; panics with both outputs unless it ends with 0.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}
