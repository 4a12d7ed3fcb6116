//! A small HTTP server on a port of its own. It answers as it is told, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::RegistryHost;

/// A request, as far as tests look at it.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte of the range that is asked for.
    pub(super) fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    ending: Ending,
}

#[derive(Clone, Debug)]
enum Ending {
    /// As HTTP wants it.
    Proper,
    /// The connection closes after this many bytes of the body.
    CutAt(usize),
    /// So does it here, and nothing said how long the body would be.
    ClosedAt(usize),
    /// These bytes are all that is sent, and then the connection closes.
    Raw,
    /// These bytes are sent for ever.
    RawEndless,
    /// Nothing more comes after this many bytes of the body.
    SilentAt(usize),
    /// One byte at a time, with this pause between.
    Dripping(Duration),
    /// The body is repeated for ever.
    Endless,
}

impl Reply {
    pub(super) fn new(status: u16, body: impl AsRef<[u8]>) -> Self {
        Self { status, headers: Vec::new(), body: body.as_ref().to_vec(), ending: Ending::Proper }
    }

    pub(super) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::new(200, body)
    }

    pub(super) fn status(status: u16) -> Self {
        Self::new(status, "")
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(super) fn cut_at(self, at: usize) -> Self {
        Self { ending: Ending::CutAt(at), ..self }
    }

    pub(super) fn closed_at(self, at: usize) -> Self {
        Self { ending: Ending::ClosedAt(at), ..self }
    }

    /// An answer that need not be HTTP.
    pub(super) fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self { ending: Ending::Raw, ..Self::ok(bytes) }
    }

    pub(super) fn raw_endless(self) -> Self {
        Self { ending: Ending::RawEndless, ..self }
    }

    pub(super) fn silent_at(self, at: usize) -> Self {
        Self { ending: Ending::SilentAt(at), ..self }
    }

    pub(super) fn dripping(self, pause: Duration) -> Self {
        Self { ending: Ending::Dripping(pause), ..self }
    }

    pub(super) fn endless(self) -> Self {
        Self { ending: Ending::Endless, ..self }
    }
}

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

/// The server. Dropping it closes all connections.
pub(super) struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    handler: Box<Handler>,
    requests: Mutex<Vec<Request>>,
    connections: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
    sent: AtomicUsize,
}

impl Server {
    pub(super) fn new(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            requests: Mutex::default(),
            connections: Mutex::default(),
            stopped: AtomicBool::new(false),
            sent: AtomicUsize::new(0),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if serving.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (connection, shared) = (connection.unwrap(), Arc::clone(&serving));
                shared.connections.lock().unwrap().push(connection.try_clone().unwrap());
                std::thread::spawn(move || while shared.answer(&connection).is_some() {});
            }
        });
        Self { address, shared }
    }

    pub(super) fn host(&self) -> RegistryHost {
        self.address.to_string().parse().unwrap()
    }

    /// The requests so far.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// How many requests were for paths that hold this.
    pub(super) fn count(&self, part: &str) -> usize {
        self.requests().iter().filter(|request| request.path.contains(part)).count()
    }

    /// Bytes of bodies that were sent.
    pub(super) fn sent(&self) -> usize {
        self.shared.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the listener, which then ends.
        drop(TcpStream::connect(self.address));
        for connection in self.shared.connections.lock().unwrap().iter() {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    /// Answers one request; nothing when the connection has ended.
    fn answer(&self, connection: &TcpStream) -> Option<()> {
        let request = read_request(connection)?;
        self.requests.lock().unwrap().push(request.clone());
        let reply = (self.handler)(&request);
        let mut head = vec![format!("HTTP/1.1 {} Said", reply.status)];
        head.extend(reply.headers.iter().map(|(name, value)| format!("{name}: {value}")));
        let lengths = ["content-length", "transfer-encoding"];
        let has_length = reply.headers.iter().any(|(name, _)| lengths.contains(&name.to_lowercase().as_str()));
        let chunked = reply.headers.iter().any(|(_, value)| value == "chunked");
        if !has_length && !matches!(reply.ending, Ending::Endless | Ending::ClosedAt(_)) {
            head.push(format!("Content-Length: {}", reply.body.len()));
        }
        let mut out = connection;
        if !matches!(reply.ending, Ending::Raw | Ending::RawEndless) {
            out.write_all(format!("{}\r\n\r\n", head.join("\r\n")).as_bytes()).ok()?;
        }
        let mut send = |bytes: &[u8]| {
            self.sent.fetch_add(bytes.len(), Ordering::SeqCst);
            if chunked {
                let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
                chunk.extend_from_slice(bytes);
                chunk.extend_from_slice(b"\r\n");
                out.write_all(&chunk).ok()
            } else {
                out.write_all(bytes).ok()
            }
        };
        match reply.ending {
            Ending::Proper => {
                send(&reply.body)?;
                if chunked && !reply.body.is_empty() {
                    send(b"")?;
                }
                Some(())
            }
            Ending::Raw => {
                send(&reply.body)?;
                connection.shutdown(Shutdown::Both).ok()?;
                None
            }
            Ending::CutAt(at) | Ending::ClosedAt(at) => {
                // An empty chunk would be an end.
                if at > 0 {
                    send(&reply.body[..at])?;
                }
                connection.shutdown(Shutdown::Both).ok()?;
                None
            }
            Ending::SilentAt(at) => {
                send(&reply.body[..at])?;
                // Until the client or the end of the test closes the connection.
                let _ = BufReader::new(connection).read_line(&mut String::new());
                None
            }
            Ending::Dripping(pause) => {
                for byte in reply.body.chunks(1) {
                    send(byte)?;
                    std::thread::sleep(pause);
                }
                Some(())
            }
            Ending::Endless | Ending::RawEndless => {
                while !self.stopped.load(Ordering::SeqCst) {
                    send(&reply.body)?;
                }
                None
            }
        }
    }
}

fn read_request(connection: &TcpStream) -> Option<Request> {
    let mut first = [0];
    connection.peek(&mut first).ok()?;
    if first != *b"G" {
        // Somebody speaks TLS; servers of plain HTTP answer in theirs.
        let mut out = connection;
        let _ = out.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        let _ = connection.shutdown(Shutdown::Write);
        return None;
    }
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => return Some(Request { path, headers }),
        };
    }
}
