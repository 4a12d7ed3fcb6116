//! TLS: who is not who it says is not spoken to, unless somebody said that this does not matter.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cofferdam_tests::registry::run;
use cofferdam_tests::{Scratch, require};

use crate::trial::Trial;

/// `openssl s_server` with a certificate for 127.0.0.1, signed by an authority that nobody knows.
struct Tls {
    dir: Scratch,
    port: u16,
    child: Child,
}

impl Tls {
    fn new() -> Self {
        let dir = Scratch::new().expect("a scratch directory");
        fs::write(dir.join("leaf.cnf"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n")
            .expect("a file");
        for line in [
            "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem",
            "req -newkey rsa:2048 -nodes -subj /CN=server -keyout leaf.key -out leaf.csr",
            "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile leaf.cnf -out leaf.pem",
        ] {
            run(Command::new("openssl").args(line.split(' ')).current_dir(dir.path())).expect("openssl");
        }
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new("openssl")
            .args(["s_server", "-www", "-quiet", "-cert", "leaf.pem", "-key", "leaf.key", "-accept", &address])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl");
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < end, "openssl does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { dir, port, child }
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn trial(&self) -> Trial {
        Trial::new(format!("get {}/", self.url()))
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_certificate_that_is_not_trusted_ends_the_request() -> anyhow::Result<()> {
    require!("openssl");
    let server = Tls::new();
    let said = server.trial().http(server.url()).run().said();
    assert!(said.starts_with("not: Tls"), "{said}");
    // The control: with the authority's certificate.
    let mut trial = server.trial().http(server.url());
    trial.context.certificates = vec![fs::read(server.dir.join("ca.pem")).expect("a certificate")];
    let said = trial.run().said();
    assert!(said.starts_with("200, "), "{said}");
    Ok(())
}

#[test]
fn only_the_registry_may_have_any_certificate() -> anyhow::Result<()> {
    require!("openssl");
    let server = Tls::new();
    let run = |rule: &str| {
        let mut trial = server.trial().http(rule);
        trial.context.registry = Some(server.url().parse().expect("an authority"));
        trial.context.registry_any_certificate = true;
        trial.run().said()
    };
    let said = run("registry");
    assert!(said.starts_with("200, "), "{said}");
    let said = run(&server.url());
    assert!(said.starts_with("not: Tls"), "{said}");
    Ok(())
}
