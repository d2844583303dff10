//! A proxy on loopback before a server, which does harm on demand: it is silent, fails, breaks off, crawls, lies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// There is none; the connection stays open.
    Silent,
    /// This status, and a body that says nothing.
    Status(u16),
    /// The connection is reset after so many bytes of the body.
    Reset(usize),
    /// The connection is closed after so many bytes of the body.
    Truncate(usize),
    /// A tenth of a second passes between single bytes of the body.
    Crawl,
    /// So many milliseconds pass before the answer.
    Late(u64),
    /// One bit of this byte of the body is another.
    Flip(usize),
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: String,
    pub path: String,
}

#[derive(Default)]
struct State {
    /// What happens to requests of this method (all, if empty) for paths with this part.
    harms: Mutex<Vec<(String, String, Harm)>>,
    requests: Mutex<Vec<Request>>,
    stopped: AtomicBool,
}

/// A running proxy; it ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    /// Before the server on this port of loopback.
    pub fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = proxy.state.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if state.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(connection), state) = (connection, state.clone()) else { continue };
                std::thread::spawn(move || converse(&connection, server, &state));
            }
        });
        proxy
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on this happens to requests of `method` (any, if empty) for paths that contain `part`.
    pub fn harm(&self, method: &str, part: &str, harm: Harm) {
        self.state.harms.lock().unwrap().push((method.to_owned(), part.to_owned(), harm));
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the listener
    }
}

fn converse(mut connection: &TcpStream, server: u16, state: &State) {
    let _ = connection.set_nodelay(true);
    let mut reader = BufReader::new(connection);
    while let Some((request, bytes)) = read_request(&mut reader) {
        state.requests.lock().unwrap().push(request.clone());
        let meant = |(method, part, _): &&(String, String, Harm)| {
            method.is_empty() || *method == request.method && !part.is_empty()
        };
        let harms = state.harms.lock().unwrap().clone();
        let harm = harms.iter().filter(meant).find(|(_, part, _)| request.path.contains(part.as_str()));
        let harm = harm.map(|(.., harm)| *harm);
        match harm {
            Some(Harm::Silent) => {
                while !state.stopped.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return;
            }
            Some(Harm::Status(status)) => {
                let _ = write!(connection, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
                continue;
            }
            _ => {}
        }
        let Some((head, body)) = forward(&bytes, server) else { return };
        if !answer(connection, state, &head, body, harm).unwrap_or(false) {
            let _ = connection.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

/// A request and its bytes, told to close the connection afterwards.
fn read_request(reader: &mut impl BufRead) -> Option<(Request, Vec<u8>)> {
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split_whitespace();
    let request = Request { method: words.next()?.to_owned(), path: words.next()?.to_owned() };
    let mut bytes = first.into_bytes();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        if !lower.starts_with("connection:") {
            bytes.extend_from_slice(line.as_bytes());
        }
    }
    bytes.extend_from_slice(b"Connection: close\r\n\r\n");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    bytes.extend_from_slice(&body);
    Some((request, bytes))
}

/// The server's answer: its head without the last line, and its body.
fn forward(request: &[u8], server: u16) -> Option<(String, Vec<u8>)> {
    let mut upstream = TcpStream::connect(("127.0.0.1", server)).ok()?;
    upstream.write_all(request).ok()?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head: String = String::from_utf8_lossy(&answer[..end])
        .lines()
        .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
        .map(|line| format!("{line}\r\n"))
        .collect();
    Some((head, answer[end + 4..].to_vec()))
}

/// Answers; says whether the connection may be used again.
fn answer(
    mut connection: &TcpStream,
    state: &State,
    head: &str,
    mut body: Vec<u8>,
    harm: Option<Harm>,
) -> std::io::Result<bool> {
    if let Some(Harm::Flip(index)) = harm
        && let Some(byte) = body.get_mut(index)
    {
        *byte ^= 1;
    }
    if let Some(Harm::Late(milliseconds)) = harm {
        std::thread::sleep(Duration::from_millis(milliseconds));
    }
    write!(connection, "{head}\r\n")?;
    match harm {
        Some(Harm::Truncate(count)) => {
            connection.write_all(&body[..count.min(body.len())])?;
            Ok(false)
        }
        Some(Harm::Reset(count)) => {
            connection.write_all(&body[..count.min(body.len())])?;
            std::thread::sleep(Duration::from_millis(20)); // a reset overtakes bytes that are not yet read
            let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            nix::sys::socket::setsockopt(&connection, nix::sys::socket::sockopt::Linger, &linger)?;
            Ok(false)
        }
        Some(Harm::Crawl) => {
            for byte in body {
                if state.stopped.load(Ordering::SeqCst) {
                    break;
                }
                connection.write_all(&[byte])?;
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(true)
        }
        _ => connection.write_all(&body).map(|()| true),
    }
}
