//! Talks to the agent in a guest: the host's half of what `agent.sh` says.
//!
//! The agent is a script that reaches the guest as a credential, with a unit to start it: the image holds nothing of
//! it. Reports are the guest's own words on a port of its own, never what a console log looks like.

use base64::Engine as _;

use super::Credential;

/// The virtio-serial port's name, by which the agent finds it (and the initrd, when it refuses to boot).
pub const PORT: &str = "adamant.agent";

/// What the guest said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// The agent runs: the guest has started its system.
    Ready,
    /// The initrd does not go on: the names of what failed there.
    Refused(String),
    /// A script has ended.
    Done {
        /// As given with the request.
        id: u64,
        /// The exit status; 124 if it took longer than allowed.
        status: i32,
        /// What it wrote, both streams; at most the last 64 KiB.
        output: Vec<u8>,
    },
}

/// The credentials that put the agent into a guest.
pub fn credentials() -> Vec<Credential> {
    vec![
        Credential::new("adamant.agent", include_bytes!("agent.sh")),
        Credential::new("systemd.extra-unit.adamant-agent.service", UNIT),
        Credential::new("systemd.unit-dropin.multi-user.target~adamant-agent", "[Unit]\nWants=adamant-agent.service\n"),
    ]
}

const UNIT: &str = "\
[Unit]
Description=Runs What the Host Asks For
DefaultDependencies=no
After=sysinit.target
Conflicts=shutdown.target
Before=shutdown.target

[Service]
ImportCredential=adamant.agent
ExecStart=/bin/sh %d/adamant.agent
";

/// The line that asks for `script`, to be ended after `seconds`.
pub fn request(id: u64, seconds: u64, script: &str) -> String {
    format!("run {id} {seconds} {}\n", base64::engine::general_purpose::STANDARD.encode(script))
}

/// Understands a line of the guest; `None` for anything else.
pub fn parse(line: &str) -> Option<Report> {
    let mut words = line.trim_end().splitn(4, ' ');
    match words.next()? {
        "ready" => Some(Report::Ready),
        "refused" => Some(Report::Refused(words.collect::<Vec<_>>().join(" "))),
        "done" => Some(Report::Done {
            id: words.next()?.parse().ok()?,
            status: words.next()?.parse().ok()?,
            output: base64::engine::general_purpose::STANDARD.decode(words.next().unwrap_or_default()).ok()?,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_what_the_agent_says() {
        assert_eq!(parse("ready\n"), Some(Report::Ready));
        assert_eq!(parse("refused a.service b.mount \n"), Some(Report::Refused("a.service b.mount".into())));
        let done = Report::Done { id: 7, status: 1, output: b"hi\n".to_vec() };
        assert_eq!(parse("done 7 1 aGkK"), Some(done));
        assert_eq!(parse("done 7 0 "), Some(Report::Done { id: 7, status: 0, output: Vec::new() }));
    }

    #[test]
    fn takes_nothing_else_for_a_report() {
        for line in ["", "done", "done x 1 aGkK", "done 1 2 %%%", "Ready", "run 1 2 aGkK"] {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }
}
