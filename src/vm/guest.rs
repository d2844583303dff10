//! A running machine: what it says, what it is asked, how it ends.
//!
//! ```text
//!            QEMU (child, in the workspace) ── console.log   everything the console said
//!  console ──socket── thread ──┐
//!  QMP     ──socket── thread ──┼──> messages ──> Guest::next(deadline)
//!  agent   ──socket── thread ──┘
//! ```
//!
//! The sockets are listened on before QEMU starts, so nothing is lost. Every wait has a deadline. A guest that is
//! dropped is killed; so is QEMU if this process, or the thread that started it, ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::agent::{self, Report};
use super::machine::{self, Acceleration, Disk, Machine};
use super::qmp::{self, Event};
use super::{Tools, VmError};

/// How long KVM may take to show the firmware's first words. In software they take 3 seconds on an idle machine.
const KVM_PATIENCE: Duration = Duration::from_secs(10);

/// How long QEMU may take to connect to its sockets.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// The console's last bytes, kept for error messages.
const TAIL_SIZE: usize = 16 * 1024;

/// What a guest was seen to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The system has started; the agent answers.
    Ready,
    /// The initrd refused to go on and named what failed.
    Refused(String),
    /// The guest's kernel panicked.
    Panicked,
    /// The guest has turned itself off.
    PoweredOff,
    /// The guest has reset itself.
    Reset,
    /// QEMU has ended, with its own words if it had any.
    Ended(String),
    /// Nothing of this by the deadline.
    TimedOut,
}

/// How a script in the guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Exit status; 124: it took longer than allowed.
    pub status: i32,
    /// What it wrote, both streams; at most the last 64 KiB.
    pub output: Vec<u8>,
}

enum Message {
    Console(Vec<u8>),
    Qmp(Event),
    Report(Report),
}

/// A running machine.
pub struct Guest {
    child: Child,
    tpm: Option<Child>,
    messages: Receiver<Message>,
    console: UnixStream,
    qmp: UnixStream,
    agent: UnixStream,
    tail: Vec<u8>,
    /// Where the console's bytes also go.
    echo: Option<Box<dyn Write + Send>>,
    log: PathBuf,
    kvm: bool,
    requests: u64,
    ready: bool,
}

impl Machine {
    /// Starts the machine. `workspace` is a directory for its sockets, firmware variables and console record, of its
    /// own. What the console says also goes to `echo`.
    ///
    /// With [`Acceleration::Tried`], KVM counts as working once the firmware has said something; if it dies, stands
    /// still or keeps silent, the machine is started again in software.
    pub fn start(
        &self,
        tools: &Tools,
        workspace: &Path,
        echo: Option<Box<dyn Write + Send>>,
    ) -> Result<Guest, VmError> {
        let kvm_opens = || File::options().read(true).write(true).open("/dev/kvm").is_ok();
        if self.acceleration != Acceleration::Software && (self.acceleration == Acceleration::Kvm || kvm_opens()) {
            let mut guest = self.launch(tools, workspace, true)?;
            if guest.lives(KVM_PATIENCE)? {
                guest.echo(echo);
                return Ok(guest);
            }
            if self.acceleration == Acceleration::Kvm {
                return Err(VmError::Kvm { said: guest.last_words() });
            }
        }
        let mut guest = self.launch(tools, workspace, false)?;
        guest.echo(echo);
        Ok(guest)
    }

    fn launch(&self, tools: &Tools, workspace: &Path, kvm: bool) -> Result<Guest, VmError> {
        let prepare = |source| VmError::Workspace { path: workspace.to_owned(), source };
        let variables = tools.file("usr/share/OVMF/OVMF_VARS_4M.fd")?;
        let own = workspace.join(machine::VARIABLES);
        if !own.exists() {
            // Not fs::copy: the mode of the tree's file (it may be read-only) must not come along.
            let bytes = std::fs::read(&variables).map_err(prepare)?;
            std::fs::write(&own, bytes).map_err(prepare)?;
        }
        if let Disk::Overlay { path, size } = &self.disk {
            self.make_overlay(tools, path, *size)?;
        }
        // Socket paths are limited to 107 bytes; by this detour the workspace may lie anywhere.
        let directory = File::open(workspace).map_err(prepare)?;
        let listen = |name: &str| {
            let _ = std::fs::remove_file(workspace.join(name));
            UnixListener::bind(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))
                .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                .map_err(prepare)
        };
        let sockets = [listen(machine::CONSOLE)?, listen(machine::QMP)?, listen(machine::AGENT)?];
        let tpm = if self.tpm { Some(start_tpm(tools, workspace)?) } else { None };
        let stderr = File::create(workspace.join(STDERR)).map_err(prepare)?;
        let mut command = tools.program("usr/bin/qemu-system-x86_64")?;
        command.args(self.arguments(tools, kvm)?).current_dir(workspace);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let mut child = start(command)?;
        let [console, qmp, agent] = match connect(&sockets, &mut child) {
            Ok(streams) => streams,
            // With KVM this is one way of not working; the caller tells by asking whether it lives.
            Err(()) => {
                return Err(VmError::Ended { said: said(workspace) }).or_else(|error| {
                    let _ = child.kill();
                    let _ = child.wait();
                    if kvm && self.acceleration == Acceleration::Tried {
                        self.launch(tools, workspace, false)
                    } else {
                        Err(error)
                    }
                });
            }
        };
        let (sender, messages) = channel();
        spawn_readers(&console, &qmp, &agent, sender).map_err(prepare)?;
        let log = workspace.join(machine::CONSOLE_LOG);
        let mut guest = Guest {
            child,
            tpm,
            messages,
            console,
            qmp,
            agent,
            tail: Vec::new(),
            echo: None,
            log,
            kvm,
            requests: 0,
            ready: false,
        };
        guest.command("qmp_capabilities")?;
        Ok(guest)
    }

    fn make_overlay(&self, tools: &Tools, path: &Path, size: u64) -> Result<(), VmError> {
        if path.exists() {
            return Ok(());
        }
        let image = std::fs::canonicalize(&self.image)
            .map_err(|source| VmError::Workspace { path: self.image.clone(), source })?;
        let mut command = tools.program("usr/bin/qemu-img")?;
        command.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(image).arg(path).arg(size.to_string());
        let output = command.output().map_err(|source| VmError::Start { program: "qemu-img".into(), source })?;
        if output.status.success() {
            return Ok(());
        }
        Err(VmError::Ended { said: String::from_utf8_lossy(&output.stderr).into_owned() })
    }
}

/// What QEMU says for itself, in the workspace.
const STDERR: &str = "qemu.log";

fn said(workspace: &Path) -> String {
    let text = std::fs::read(workspace.join(STDERR)).unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}

fn start(mut command: Command) -> Result<Child, VmError> {
    crate::sys::end_with_this_thread(&mut command);
    command.spawn().map_err(|source| VmError::Start { program: "qemu-system-x86_64".into(), source })
}

fn start_tpm(tools: &Tools, workspace: &Path) -> Result<Child, VmError> {
    let state = workspace.join("tpm-state");
    std::fs::create_dir_all(&state).map_err(|source| VmError::Workspace { path: state, source })?;
    let socket = workspace.join(machine::TPM);
    let _ = std::fs::remove_file(&socket);
    let mut command = tools.program("usr/bin/swtpm")?;
    command.args(["socket", "--tpm2", "--tpmstate", "dir=tpm-state", "--ctrl"]);
    command.arg(format!("type=unixio,path={}", machine::TPM)).args(["--terminate", "--flags", "startup-clear"]);
    command.current_dir(workspace).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    crate::sys::end_with_this_thread(&mut command);
    let child = command.spawn().map_err(|source| VmError::Start { program: "swtpm".into(), source })?;
    let deadline = Instant::now() + START_PATIENCE;
    while !socket.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(child)
}

/// QEMU's end of each socket; `Err` if it ended or did not come.
fn connect(sockets: &[UnixListener; 3], child: &mut Child) -> Result<[UnixStream; 3], ()> {
    let deadline = Instant::now() + START_PATIENCE;
    let mut streams = Vec::new();
    for socket in sockets {
        let stream = loop {
            if let Ok((stream, _)) = socket.accept() {
                break stream;
            }
            if child.try_wait().map_err(|_| ())?.is_some() || Instant::now() > deadline {
                return Err(());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        stream.set_nonblocking(false).map_err(|_| ())?;
        streams.push(stream);
    }
    streams.try_into().map_err(|_| ())
}

fn spawn_readers(
    console: &UnixStream,
    qmp: &UnixStream,
    agent: &UnixStream,
    sender: Sender<Message>,
) -> std::io::Result<()> {
    let mut stream = console.try_clone()?;
    let to = sender.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            if to.send(Message::Console(buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    let to = sender.clone();
    spawn_line_reader(qmp.try_clone()?, to, |line| qmp::parse(line).map(Message::Qmp));
    spawn_line_reader(agent.try_clone()?, sender, |line| agent::parse(line).map(Message::Report));
    Ok(())
}

/// No line of QMP or of the agent is longer (64 KiB of output in base64, and words).
const LINE_SIZE_MAX: u64 = 256 * 1024;

fn spawn_line_reader(
    stream: UnixStream,
    to: Sender<Message>,
    parse: impl Fn(&str) -> Option<Message> + Send + 'static,
) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while let Ok(1..) = reader.by_ref().take(LINE_SIZE_MAX).read_until(b'\n', &mut line) {
            if let Some(message) = parse(&String::from_utf8_lossy(&line))
                && to.send(message).is_err()
            {
                return;
            }
            line.clear();
        }
    });
}

impl Guest {
    /// Whether KVM runs it, as opposed to software.
    pub fn kvm(&self) -> bool {
        self.kvm
    }

    /// The record of everything the console said so far.
    pub fn console_log(&self) -> &Path {
        &self.log
    }

    /// The guest's serial console, to write what a person types.
    pub fn console(&self) -> &UnixStream {
        &self.console
    }

    fn echo(&mut self, mut echo: Option<Box<dyn Write + Send>>) {
        if let Some(echo) = &mut echo {
            let _ = echo.write_all(&self.tail).and_then(|()| echo.flush());
        }
        self.echo = echo;
    }

    fn command(&mut self, name: &str) -> Result<(), VmError> {
        self.qmp.write_all(qmp::command(name).as_bytes()).map_err(VmError::Talk)
    }

    /// Whether the firmware says something within `patience`.
    fn lives(&mut self, patience: Duration) -> Result<bool, VmError> {
        if !self.kvm {
            return Ok(true);
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline && self.tail.is_empty() {
            let soon = Instant::now() + Duration::from_millis(200);
            match self.next(soon) {
                Some(Message::Qmp(Event::InternalError | Event::Ended(_))) => return Ok(false),
                None if self.child.try_wait().map_err(VmError::Talk)?.is_some() => return Ok(false),
                None => self.command("query-status")?,
                Some(_) => {}
            }
        }
        Ok(!self.tail.is_empty())
    }

    /// The next message by `deadline`; console bytes are kept and echoed on the way.
    fn next(&mut self, deadline: Instant) -> Option<Message> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.messages.recv_timeout(left) {
            Ok(Message::Console(bytes)) => {
                if let Some(echo) = &mut self.echo {
                    let _ = echo.write_all(&bytes).and_then(|()| echo.flush());
                }
                self.tail.extend(&bytes);
                let surplus = self.tail.len().saturating_sub(TAIL_SIZE);
                self.tail.drain(..surplus);
                Some(Message::Console(bytes))
            }
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                // All sockets are closed: QEMU is gone or going. Not a busy loop.
                std::thread::sleep(left.min(Duration::from_millis(20)));
                None
            }
        }
    }

    /// Waits until the guest is ready or at an end.
    pub fn wait(&mut self, patience: Duration) -> Result<Outcome, VmError> {
        if self.ready {
            return Ok(Outcome::Ready);
        }
        let outcome = self.wait_for(patience, |report| match report {
            Report::Ready => Some(Outcome::Ready),
            Report::Refused(what) => Some(Outcome::Refused(what)),
            Report::Done { .. } => None,
        })?;
        self.ready = outcome == Outcome::Ready;
        Ok(outcome)
    }

    /// Waits until the guest has ended, whatever it reports until then.
    pub fn wait_for_end(&mut self, patience: Duration) -> Result<Outcome, VmError> {
        self.wait_for(patience, |_| None)
    }

    fn wait_for(
        &mut self,
        patience: Duration,
        mut wanted: impl FnMut(Report) -> Option<Outcome>,
    ) -> Result<Outcome, VmError> {
        let deadline = Instant::now() + patience;
        let mut ended = None;
        loop {
            let soon = deadline.min(Instant::now() + Duration::from_millis(500));
            match self.next(soon) {
                Some(Message::Report(report)) => {
                    if let Some(outcome) = wanted(report) {
                        return Ok(outcome);
                    }
                }
                Some(Message::Qmp(Event::Panicked)) => return Ok(Outcome::Panicked),
                Some(Message::Qmp(Event::PoweredOff)) => return Ok(Outcome::PoweredOff),
                Some(Message::Qmp(Event::Reset)) => return Ok(Outcome::Reset),
                Some(Message::Qmp(Event::InternalError)) => return Err(VmError::Kvm { said: self.last_words() }),
                Some(Message::Qmp(Event::Ended(reason))) => ended = Some(reason),
                Some(Message::Qmp(Event::Refused(_)) | Message::Console(_)) => {}
                None => {
                    // All messages are read by now: what an ended QEMU had to say has been heard.
                    if let Some(status) = self.child.try_wait().map_err(VmError::Talk)? {
                        return Ok(Outcome::Ended(ended.unwrap_or_else(|| self.ending(status))));
                    }
                    if Instant::now() >= deadline {
                        return Ok(Outcome::TimedOut);
                    }
                }
            }
        }
    }

    fn ending(&self, status: std::process::ExitStatus) -> String {
        let words = self.log.parent().map(said).unwrap_or_default();
        if words.is_empty() { status.to_string() } else { words }
    }

    /// Runs a shell script in the guest, as root. The guest must be ready.
    pub fn run(&mut self, script: &str, patience: Duration) -> Result<Run, VmError> {
        if !self.ready {
            return Err(VmError::NotReady);
        }
        self.requests += 1;
        let id = self.requests;
        let request = agent::request(id, patience.as_secs().max(1), script);
        self.agent.write_all(request.as_bytes()).map_err(VmError::Talk)?;
        let mut run = None;
        // The guest ends the script itself; these seconds are for the way there and back.
        let outcome = self.wait_for(patience + Duration::from_secs(20), |report| match report {
            Report::Done { id: answered, status, output } if answered == id => {
                run = Some(Run { status, output });
                Some(Outcome::Ready)
            }
            _ => None,
        })?;
        run.ok_or(VmError::Lost { outcome })
    }

    /// Asks the guest to turn itself off and waits for it; a guest that has not by then is killed.
    ///
    /// A ready guest is asked through its agent: the power button works only once logind has found it.
    pub fn power_off(mut self, patience: Duration) -> Result<Outcome, VmError> {
        if self.ready {
            let request = agent::request(0, 10, "systemctl --no-block poweroff\n");
            self.agent.write_all(request.as_bytes()).map_err(VmError::Talk)?;
        } else {
            self.command("system_powerdown")?;
        }
        self.wait_for_end(patience)
    }

    /// Hands the console's next bytes to `each` until the guest ends or `each` says no. For a person at a terminal.
    pub fn attend(&mut self, mut each: impl FnMut(&[u8]) -> bool) -> Result<Outcome, VmError> {
        loop {
            match self.next(Instant::now() + Duration::from_millis(100)) {
                Some(Message::Console(bytes)) => {
                    if !each(&bytes) {
                        return Ok(Outcome::TimedOut);
                    }
                }
                Some(Message::Qmp(Event::Panicked)) => return Ok(Outcome::Panicked),
                Some(Message::Qmp(Event::PoweredOff)) => return Ok(Outcome::PoweredOff),
                Some(Message::Qmp(Event::Reset)) => return Ok(Outcome::Reset),
                Some(_) => {}
                None => {
                    if let Some(status) = self.child.try_wait().map_err(VmError::Talk)? {
                        return Ok(Outcome::Ended(self.ending(status)));
                    }
                    if !each(&[]) {
                        return Ok(Outcome::TimedOut);
                    }
                }
            }
        }
    }

    /// The console's last lines, for an error message.
    pub fn last_words(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        for child in [Some(&mut self.child), self.tpm.as_mut()].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
