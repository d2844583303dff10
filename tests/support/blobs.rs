//! A server on loopback that keeps objects in memory: enough of what Google Cloud Storage and Azure Blob Storage answer
//! to single requests. It asks nobody who he is.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct State {
    objects: Mutex<BTreeMap<String, Vec<u8>>>,
    stopped: AtomicBool,
}

/// A running server; it ends when dropped.
pub struct Blobs {
    address: SocketAddr,
    state: Arc<State>,
}

impl Blobs {
    pub fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let blobs = Self { address: listener.local_addr().unwrap(), state: Arc::default() };
        let state = blobs.state.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if state.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(connection), state) = (connection, state.clone()) else { continue };
                std::thread::spawn(move || while converse(&connection, &state).is_some() {});
            }
        });
        blobs
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The paths of all objects.
    pub fn names(&self) -> Vec<String> {
        self.state.objects.lock().unwrap().keys().map(|path| path.replace("%2F", "/")).collect()
    }
}

impl Drop for Blobs {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address); // wakes the listener
    }
}

/// Answers one request; `None`: the connection is over.
fn converse(mut connection: &TcpStream, state: &State) -> Option<()> {
    let mut reader = BufReader::with_capacity(1, connection); // takes nothing of the next request
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let path = path.split('?').next()?.to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).ok()?;
    let mut objects = state.objects.lock().unwrap();
    let (status, answer) = match method.as_str() {
        "PUT" => {
            objects.insert(path, body);
            (201, Vec::new())
        }
        _ => objects.get(&path).map_or((404, Vec::new()), |bytes| (200, bytes.clone())),
    };
    drop(objects);
    let length = answer.len();
    let fields = "ETag: \"1\"\r\nLast-Modified: Tue, 20 May 2025 00:00:00 GMT\r\nx-goog-generation: 1\r\n";
    write!(connection, "HTTP/1.1 {status} x\r\n{fields}Content-Length: {length}\r\n\r\n").ok()?;
    if method == "GET" {
        connection.write_all(&answer).ok()?;
    }
    Some(())
}
