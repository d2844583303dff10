//! Mirrors over TLS: whom the host trusts is trusted.

use super::processes::{child_command, child_requests, served_for_children};
use super::*;

/// A server with TLS: OpenSSL's, which knows no more of us than a mirror does.
struct TlsServer {
    process: Child,
    port: String,
    certificate: PathBuf,
}

impl TlsServer {
    fn serve(directory: &Path) -> Option<Self> {
        use std::io::{BufRead, BufReader};
        let mut make = crate::support::oracle::oracle("openssl")?;
        make.args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=mirror", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(directory);
        crate::support::oracle::run(&mut make);
        let mut process = crate::support::oracle::oracle("openssl")?
            .args(["s_server", "-accept", "127.0.0.1:0", "-cert", "cert.pem", "-key", "key.pem", "-WWW"])
            .current_dir(directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.as_mut().unwrap()).lines();
        let mut ports = lines
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("ACCEPT ")?.rsplit(':').next().map(str::to_owned));
        let port = ports.next().unwrap();
        Some(Self { process, port, certificate: directory.join("cert.pem") })
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn over_tls_the_hosts_certificates_decide() {
    let bench = Bench::new();
    served_for_children(&bench, 2);
    let Some(server) = TlsServer::serve(&bench.served()) else { return };
    let url = format!("https://127.0.0.1:{}/", server.port);
    let mirrors = Mirrors::from_values(std::slice::from_ref(&url), Origin::Argument).unwrap();
    let error = Fetcher::new(bench.store(), mirrors, hasty()).fetch(&child_requests(1), &Silent).unwrap_err();
    assert!(matches!(&error, FetchError::Untrusted { .. }), "{error:?}");
    assert!(error.to_string().contains("SSL_CERT_FILE"), "{error}");
    let mut trusting = child_command(&bench, "fetch", 2);
    trusting.env("ADAMANT_TEST_MIRROR", url).env("SSL_CERT_FILE", &server.certificate).env_remove("SSL_CERT_DIR");
    assert!(trusting.status().unwrap().success());
    assert_eq!(bench.store().objects().unwrap().len(), 2);
}
