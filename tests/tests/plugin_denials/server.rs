//! A server on loopback that does what a test says, and remembers what was asked.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// What a server does with a connection, once a request's head has arrived.
type Behaviour = dyn Fn(&str, &mut TcpStream) + Send + Sync;

pub(crate) struct Server {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    closed: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server with one request for each connection.
    pub(crate) fn new(behaviour: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (heads, closed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (seen, over) = (Arc::clone(&heads), Arc::clone(&closed));
        let behaviour: Arc<Behaviour> = Arc::new(behaviour);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let (Ok(mut stream), seen, behaviour) = (stream, Arc::clone(&seen), Arc::clone(&behaviour)) else {
                    return;
                };
                thread::spawn(move || {
                    if let Some(head) = head(&mut stream) {
                        seen.lock().expect("the heads").push(head.clone());
                        behaviour(&head, &mut stream);
                    }
                });
            }
        });
        Self { address, heads, closed, thread: Some(thread) }
    }

    /// One that answers everything with `hello`.
    pub(crate) fn hello() -> Self {
        Self::new(|_, stream| answer(stream, "200 OK", "", b"hello"))
    }

    /// One that never answers: it waits until the other side goes.
    pub(crate) fn silent() -> Self {
        Self::new(|_, stream| drain(stream))
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// `http://host:port`, for this host.
    pub(crate) fn at(&self, host: &str) -> String {
        format!("http://{host}:{}", self.port())
    }

    /// The heads of the requests so far.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("the heads").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers, and closes.
pub(crate) fn answer(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// Reads a body that comes in chunks, of which one letter fills each; gives its length.
pub(crate) fn read_chunks(stream: &mut TcpStream) -> usize {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    while !bytes.ends_with(b"\r\n0\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => bytes.extend_from_slice(&buffer[..count]),
            _ => break,
        }
    }
    bytes.iter().map(|byte| usize::from(*byte == b'y')).sum()
}

/// Reads until the other side goes.
pub(crate) fn drain(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while matches!(stream.read(&mut buffer), Ok(count) if count > 0) {}
}

/// The head of a request, in lower case but for the line; without what follows it.
fn head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        if bytes.len() > 1 << 20 || !matches!(stream.read(&mut byte), Ok(1)) {
            return None;
        }
        bytes.push(byte[0]);
        // What is no text, such as TLS, is not for this server.
        if !bytes.is_ascii() || bytes[0] < b' ' {
            return None;
        }
    }
    String::from_utf8(bytes).ok()
}
