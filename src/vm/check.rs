//! Checks of a running machine, as recipes write them.
//!
//! Units and commands are asked of the guest itself; an HTTP request comes from outside, through a forwarded port, as a
//! user's would: a firewall in the way makes it fail, and so it should.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::{Forward, Guest, VmError};

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// The systemd unit is active by the time limit.
    Unit(String),
    /// The command exits 0. Tried once: it may not be harmless.
    Command(Vec<String>),
    /// A request answers by the time limit, with this status and this text in its body.
    Http {
        /// TCP port of the guest.
        port: u16,
        /// With its leading `/`.
        path: String,
        /// The status that must come.
        status: u16,
        /// What the body must contain, if anything.
        contains: Option<String>,
    },
}

/// A check: a name, what is asked, and by when it must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// As the recipe names it.
    pub name: String,
    /// What is asked.
    pub probe: Probe,
    /// From the moment the check starts.
    pub timeout: Duration,
}

/// How a check went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckResult {
    /// The check's name.
    pub name: String,
    /// `Ok`, or what was found instead.
    pub verdict: Result<(), String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// The largest answer that is read.
const ANSWER_SIZE_MAX: u64 = 1 << 20;

/// Forwards for the ports that `checks` ask: each to a free port of this host.
pub fn forwards(checks: &[Check]) -> std::io::Result<Vec<Forward>> {
    let mut forwards: Vec<Forward> = Vec::new();
    for check in checks {
        if let Probe::Http { port, .. } = check.probe
            && !forwards.iter().any(|forward| forward.guest == port)
        {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            forwards.push(Forward { host: listener.local_addr()?.port(), guest: port });
        }
    }
    Ok(forwards)
}

impl Check {
    /// Carries the check out. The guest must be ready, and have [`forwards`] for HTTP.
    pub fn run(&self, guest: &mut Guest, forwards: &[Forward]) -> Result<CheckResult, VmError> {
        let start = Instant::now();
        let verdict = match &self.probe {
            Probe::Unit(unit) => verdict(guest.run(&unit_script(unit, self.timeout), self.timeout + SLACK)?),
            Probe::Command(command) => {
                let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
                verdict(guest.run(&format!("exec {}\n", words.join(" ")), self.timeout)?)
            }
            Probe::Http { port, path, status, contains } => {
                let host = forwards.iter().find(|forward| forward.guest == *port).map(|forward| forward.host);
                let host = host.ok_or(VmError::NoForward { port: *port })?;
                self.http(host, path, *status, contains.as_deref())
            }
        };
        Ok(CheckResult { name: self.name.clone(), verdict, elapsed: start.elapsed() })
    }

    fn http(&self, port: u16, path: &str, status: u16, contains: Option<&str>) -> Result<(), String> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let verdict = request(port, path, deadline).and_then(|answer| judge(&answer, status, contains));
            if verdict.is_ok() || Instant::now() >= deadline {
                return verdict;
            }
            std::thread::sleep(Duration::from_millis(200).min(deadline.saturating_duration_since(Instant::now())));
        }
    }
}

/// For the guest to end a script by itself before it is ended from outside.
const SLACK: Duration = Duration::from_secs(5);

fn unit_script(unit: &str, timeout: Duration) -> String {
    let unit = quote(unit);
    format!(
        "end=$(($(cut -d . -f 1 /proc/uptime) + {}))\n\
         while ! systemctl is-active -q -- {unit}; do\n\
         if systemctl is-failed -q -- {unit} || [ \"$(cut -d . -f 1 /proc/uptime)\" -ge $end ]; then\n\
         systemctl status --no-pager --lines 20 -- {unit}; exit 1; fi\nsleep 0.3\ndone\n",
        timeout.as_secs()
    )
}

/// A word for the shell, whatever it holds.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn verdict(run: super::Run) -> Result<(), String> {
    let output = String::from_utf8_lossy(&run.output);
    match run.status {
        0 => Ok(()),
        124 => Err(format!("took longer than allowed\n{output}")),
        status => Err(format!("exit status {status}\n{output}")),
    }
}

fn request(port: u16, path: &str, deadline: Instant) -> Result<Vec<u8>, String> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(100));
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, left).map_err(|error| format!("cannot connect: {error}"))?;
    // QEMU accepts at once and asks the guest after; an answer that does not come must not use up all tries.
    let patience = Some(left.min(Duration::from_secs(10)));
    stream.set_read_timeout(patience).and_then(|()| stream.set_write_timeout(patience)).map_err(|e| e.to_string())?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: adamant\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).map_err(|error| format!("cannot ask: {error}"))?;
    let mut answer = Vec::new();
    stream.take(ANSWER_SIZE_MAX).read_to_end(&mut answer).map_err(|error| format!("no answer: {error}"))?;
    Ok(answer)
}

/// Whether an HTTP answer is the expected one. A body sent in chunks is searched as it came: text that a chunk's
/// border cuts is not found.
fn judge(answer: &[u8], status: u16, contains: Option<&str>) -> Result<(), String> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let first = head.lines().next().unwrap_or_default();
    let found = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)?.parse::<u16>().ok());
    match found {
        None => Err(format!("expected status {status}, found no HTTP answer: {first:?}")),
        Some(found) if found != status => Err(format!("expected status {status}, found {found}")),
        Some(_) => match contains {
            Some(wanted) if !body.contains(wanted) => Err(format!("the answer does not contain {wanted:?}")),
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n<h1>Hello</h1>";

    #[test]
    fn judges_status_and_body() {
        assert_eq!(judge(ANSWER, 200, Some("Hello")), Ok(()));
        assert_eq!(judge(ANSWER, 404, None), Err("expected status 404, found 200".into()));
        assert_eq!(judge(ANSWER, 200, Some("Server")), Err("the answer does not contain \"Server\"".into()));
        assert_eq!(judge(b"", 200, None), Err("expected status 200, found no HTTP answer: \"\"".into()));
        assert!(judge(b"\xff\xff", 200, None).is_err());
    }

    #[test]
    fn asks_until_the_answer_is_right() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            for answer in [&b"HTTP/1.1 502 Bad Gateway\r\n\r\n"[..], ANSWER] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut buffer = [0; 1024];
                let count = stream.read(&mut buffer).unwrap();
                assert!(buffer[..count].starts_with(b"GET /x HTTP/1.1\r\nHost: localhost\r\n"));
                stream.write_all(answer).unwrap();
            }
        });
        let probe = Probe::Http { port: 80, path: "/x".into(), status: 200, contains: Some("Hello".into()) };
        let check = Check { name: "web".into(), probe, timeout: Duration::from_secs(20) };
        assert_eq!(check.http(port, "/x", 200, Some("Hello")), Ok(()));
        server.join().unwrap();
    }

    #[test]
    fn words_reach_the_guests_shell_unchanged() {
        let script = format!("printf %s {}", quote("a'b \"$(c)\\\n"));
        let output = std::process::Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert_eq!(output.stdout, b"a'b \"$(c)\\\n");
    }

    #[test]
    fn each_port_is_forwarded_once() {
        let check = |port| Check {
            name: "c".into(),
            probe: Probe::Http { port, path: "/".into(), status: 200, contains: None },
            timeout: Duration::from_secs(1),
        };
        let guests: Vec<u16> = forwards(&[check(80), check(443), check(80)]).unwrap().iter().map(|f| f.guest).collect();
        assert_eq!(guests, [80, 443]);
    }
}
