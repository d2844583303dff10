//! A web server for tests: loopback only, HTTP/1.1, serves a directory, and misbehaves on demand.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status, and an empty body.
    Status(u16),
    /// 503 with `Retry-After` of so many seconds.
    RetryAfter(u64),
    /// The connection is closed after so many bytes of the body.
    Truncate(usize),
    /// The connection is reset after so many bytes of the body.
    Reset(usize),
    /// Nothing more comes after so many bytes of the body; the connection stays open.
    Stall(usize),
    /// So many bytes of the body, and an end as if that were all (no Content-Length).
    EndEarly(usize),
    /// The byte of the body at this index has one bit changed.
    Flip(usize),
    /// More bytes than the file has, without Content-Length.
    Append(usize),
    /// Range is ignored: 200 and the whole file.
    NoRange,
    /// A part other than the one asked for.
    WrongRange,
    /// A redirect to the same path on this port of loopback.
    Redirect(u16),
    /// So many bytes each millisecond.
    Slow(usize),
}

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    pub path: String,
    /// First byte of the `Range`, if there was one.
    pub range: Option<u64>,
    pub no_cache: bool,
    pub status: u16,
}

struct Planned {
    fault: Fault,
    /// `None`: always.
    times: Option<usize>,
}

struct State {
    root: PathBuf,
    faults: Mutex<HashMap<String, Vec<Planned>>>,
    answered: Mutex<Vec<Answered>>,
    connections: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
}

/// A running server; it ends when dropped.
pub struct Server {
    address: SocketAddr,
    state: Arc<State>,
}

impl Server {
    /// Serves the files below `root` on a free port of loopback.
    pub fn serve(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            root: root.to_owned(),
            faults: Mutex::default(),
            answered: Mutex::default(),
            connections: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                shared.connections.lock().unwrap().extend(connection.try_clone());
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || converse(connection, &shared));
            }
        });
        Self { address, state }
    }

    /// The address of the root, ending in `/`.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The next `times` answers for `path` (as in the URL, without the first `/`) go wrong this way. Faults planned
    /// earlier for the path come first.
    pub fn fault(&self, path: &str, fault: Fault, times: usize) {
        self.plan(path, Planned { fault, times: Some(times) });
    }

    /// All further answers for `path` go wrong this way.
    pub fn always(&self, path: &str, fault: Fault) {
        self.plan(path, Planned { fault, times: None });
    }

    /// All answers are right again.
    pub fn heal(&self) {
        self.state.faults.lock().unwrap().clear();
    }

    fn plan(&self, path: &str, planned: Planned) {
        self.state.faults.lock().unwrap().entry(path.to_owned()).or_default().push(planned);
    }

    /// What was answered so far, in order.
    pub fn answered(&self) -> Vec<Answered> {
        self.state.answered.lock().unwrap().clone()
    }

    /// How many requests for `path` were answered so far.
    pub fn count(&self, path: &str) -> usize {
        self.answered().iter().filter(|answered| answered.path == path).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the listener
        for connection in self.state.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
        }
    }
}

struct Head {
    path: String,
    range: Option<u64>,
    no_cache: bool,
}

fn converse(connection: TcpStream, state: &State) {
    let _ = connection.set_nodelay(true);
    let Ok(clone) = connection.try_clone() else { return };
    let mut reader = BufReader::new(clone);
    while let Some(head) = read_head(&mut reader) {
        if !answer(&connection, state, &head).unwrap_or(false) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

fn read_head(reader: &mut impl BufRead) -> Option<Head> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    assert_eq!(words.next()?, "GET");
    let path = words.next()?.trim_start_matches('/').to_owned();
    let mut head = Head { path, range: None, no_cache: false };
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let Some((name, value)) = line.trim().split_once(':') else { return Some(head) };
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                let first = value.trim().strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
                head.range = Some(first.expect("ranges are open at their end").parse().unwrap());
            }
            "cache-control" => head.no_cache = value.trim() == "no-cache",
            _ => {}
        }
    }
}

/// Answers; says whether the connection may be used again.
fn answer(mut connection: &TcpStream, state: &State, head: &Head) -> std::io::Result<bool> {
    let fault = next_fault(state, &head.path);
    let log = |status| {
        let answered = Answered { path: head.path.clone(), range: head.range, no_cache: head.no_cache, status };
        state.answered.lock().unwrap().push(answered);
    };
    let mut bare = |status: u16, fields: &str| {
        log(status);
        write!(connection, "HTTP/1.1 {status} x\r\n{fields}Content-Length: 0\r\n\r\n").map(|()| true)
    };
    match fault {
        Some(Fault::Status(status)) => return bare(status, ""),
        Some(Fault::RetryAfter(seconds)) => return bare(503, &format!("Retry-After: {seconds}\r\n")),
        Some(Fault::Redirect(port)) => {
            return bare(302, &format!("Location: http://127.0.0.1:{port}/{}\r\n", head.path));
        }
        _ => {}
    }
    let mut whole = Vec::new();
    let path = state.root.join(unescape(&head.path));
    match std::fs::File::open(&path).and_then(|mut file| file.read_to_end(&mut whole)) {
        Ok(_) => {}
        Err(_) => return bare(404, ""),
    }
    let size = whole.len();
    let range = head.range.filter(|_| fault != Some(Fault::NoRange)).map(|first| first as usize);
    if range.is_some_and(|first| first >= size) {
        return bare(416, &format!("Content-Range: bytes */{size}\r\n"));
    }
    if fault == Some(Fault::WrongRange) && range.is_some() {
        let last = size - 1;
        log(206);
        write!(connection, "HTTP/1.1 206 x\r\nContent-Range: bytes 0-{last}/{size}\r\nContent-Length: {size}\r\n\r\n")?;
        connection.write_all(&whole)?;
        return Ok(true);
    }
    let mut body = whole[range.unwrap_or(0)..].to_vec();
    let status = if range.is_some() { 206 } else { 200 };
    let mut fields = match range {
        Some(first) => format!("Content-Range: bytes {first}-{}/{size}\r\n", size - 1),
        None => String::new(),
    };
    match fault {
        Some(Fault::EndEarly(_) | Fault::Append(_)) => fields.push_str("Connection: close\r\n"),
        _ => fields.push_str(&format!("Content-Length: {}\r\n", body.len())),
    }
    match fault {
        Some(Fault::Flip(index)) if index < body.len() => body[index] ^= 1,
        Some(Fault::Append(count)) => body.extend(std::iter::repeat_n(b'x', count)),
        _ => {}
    }
    log(status);
    write!(connection, "HTTP/1.1 {status} x\r\n{fields}\r\n")?;
    send(connection, state, &body, fault)
}

fn send(mut connection: &TcpStream, state: &State, body: &[u8], fault: Option<Fault>) -> std::io::Result<bool> {
    match fault {
        Some(Fault::Truncate(count) | Fault::EndEarly(count)) => {
            connection.write_all(&body[..count.min(body.len())])?;
            Ok(false)
        }
        Some(Fault::Append(_)) => connection.write_all(body).map(|()| false),
        Some(Fault::Reset(count)) => {
            connection.write_all(&body[..count.min(body.len())])?;
            std::thread::sleep(Duration::from_millis(20)); // a reset overtakes bytes that are not yet read
            let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            nix::sys::socket::setsockopt(&connection, nix::sys::socket::sockopt::Linger, &linger)?;
            state.connections.lock().unwrap().retain(|other| other.peer_addr().ok() != connection.peer_addr().ok());
            Ok(false)
        }
        Some(Fault::Stall(count)) => {
            connection.write_all(&body[..count.min(body.len())])?;
            while !state.stopped.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(false)
        }
        Some(Fault::Slow(count)) => {
            for part in body.chunks(count) {
                connection.write_all(part)?;
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(true)
        }
        _ => connection.write_all(body).map(|()| true),
    }
}

fn next_fault(state: &State, path: &str) -> Option<Fault> {
    let mut faults = state.faults.lock().unwrap();
    let planned = faults.get_mut(path)?;
    let first = planned.first_mut()?;
    let fault = first.fault;
    if let Some(times) = &mut first.times {
        *times -= 1;
        if *times == 0 {
            planned.remove(0);
        }
    }
    Some(fault)
}

/// `%2B` and the like.
fn unescape(path: &str) -> String {
    let bytes = path.as_bytes();
    let mut plain = Vec::new();
    let mut index = 0;
    while index < bytes.len() {
        let hexadecimal = path.get(index + 1..index + 3).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (bytes[index], hexadecimal) {
            (b'%', Some(byte)) => {
                plain.push(byte);
                index += 3;
            }
            (byte, _) => {
                plain.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8(plain).unwrap()
}
