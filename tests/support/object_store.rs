//! A real S3 server on loopback: moto's, a process of each test's own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use super::oracle::oracle;

/// The bucket that the server has.
pub const BUCKET: &str = "team";

/// A running server; it ends when dropped.
pub struct ObjectStore {
    child: Child,
    /// Of loopback.
    pub port: u16,
}

impl ObjectStore {
    /// With an empty bucket; `None`, said aloud, where it is not installed (`pip install 'moto[server]'`).
    pub fn start() -> Option<Self> {
        let mut command = oracle("moto_server")?;
        command.args(["-H", "127.0.0.1", "-p", "0"]).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let port = lines.by_ref().find_map(|line| {
            let line = line.unwrap();
            let (_, rest) = line.split_once("http://127.0.0.1:")?;
            rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
        });
        // Nobody reads its log, but its pipe must not fill.
        std::thread::spawn(move || lines.for_each(drop));
        let store = Self { child, port: port.expect("the server says where it listens") };
        assert!(store.request("PUT", &format!("/{BUCKET}"), b"").starts_with("HTTP/1.1 200"));
        Some(store)
    }

    /// The address of a cache in it.
    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/some/prefix")
    }

    /// Lets the command use the server that listens on `port`: this one, or a proxy of it.
    pub fn environment(command: &mut Command, port: u16) {
        command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"));
        command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "secret").env("AWS_REGION", "us-east-1");
    }

    /// The names of all objects.
    pub fn names(&self) -> Vec<String> {
        let listing = self.request("GET", &format!("/{BUCKET}?list-type=2&max-keys=1000"), b"");
        let keys = listing.split("<Key>").skip(1).map(|rest| rest.split_once("</Key>").unwrap().0.to_owned());
        keys.collect()
    }

    fn request(&self, method: &str, path: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let length = body.len();
        // moto takes who asks for anybody; what it asks for is the form of a signature.
        let authorization =
            "AWS4-HMAC-SHA256 Credential=id/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {authorization}\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n"
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
