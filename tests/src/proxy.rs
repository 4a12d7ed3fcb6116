//! A TCP relay in front of a registry with a fault of choice: downloads that end too early, or never.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Result;

/// What goes wrong on each connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is closed after so many bytes from the registry.
    CutAfter(u64),
    /// Nothing more comes after so many bytes from the registry, but it stays open.
    StallAfter(u64),
}

/// A relay on a port of its own. Its threads end with their connections; its listener ends with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    upstream: String,
    fault: Mutex<Fault>,
    /// Told when `fault` or `stopped` changes.
    changed: Condvar,
    faults: AtomicU64,
    stopped: AtomicBool,
}

impl Proxy {
    /// Relays to `upstream` (`host:port`).
    pub fn start(upstream: &str, fault: Fault) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            fault: Mutex::new(fault),
            changed: Condvar::new(),
            faults: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                if let Ok(client) = client {
                    thread::spawn(move || shared.relay(&client));
                }
            }
        });
        Ok(Self { address, shared })
    }

    /// Its `host:port`.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// From now on nothing goes wrong, on open connections too.
    pub fn heal(&self) {
        *self.shared.fault() = Fault::None;
        self.shared.changed.notify_all();
    }

    /// How many connections have met the fault.
    pub fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes those who stall, and the listener, so that they see the flag.
        self.heal();
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn fault(&self) -> MutexGuard<'_, Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn relay(&self, client: &TcpStream) {
        let Ok(server) = TcpStream::connect(&self.upstream) else { return };
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = io::copy(&mut &*client, &mut &server);
                let _ = server.shutdown(Shutdown::Write);
            });
            let _ = self.bring_back(&server, client);
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        });
    }

    fn bring_back(&self, mut server: &TcpStream, mut client: &TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        let mut brought = 0;
        loop {
            let count = server.read(&mut buffer)?;
            if count == 0 {
                return Ok(());
            }
            let fault = *self.fault();
            let (Fault::CutAfter(limit) | Fault::StallAfter(limit)) = fault else {
                client.write_all(&buffer[..count])?;
                continue;
            };
            let granted = usize::try_from(limit.saturating_sub(brought)).unwrap_or(usize::MAX).min(count);
            client.write_all(&buffer[..granted])?;
            brought += granted as u64;
            if granted < count {
                self.faults.fetch_add(1, Ordering::SeqCst);
                if fault == Fault::CutAfter(limit) {
                    return Ok(());
                }
                // Until it is healed, or dropped.
                drop(self.changed.wait_while(self.fault(), |fault| *fault != Fault::None));
                client.write_all(&buffer[granted..count])?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends 100 000 bytes to each of so many clients.
    fn server(clients: usize) -> Result<(String, thread::JoinHandle<()>)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let serving = thread::spawn(move || {
            for client in listener.incoming().take(clients) {
                let _ = client.and_then(|mut client| client.write_all(&vec![7; 100_000]));
            }
        });
        Ok((address, serving))
    }

    fn fetch(proxy: &Proxy) -> Result<usize> {
        let mut bytes = Vec::new();
        let _ = TcpStream::connect(proxy.address)?.read_to_end(&mut bytes);
        Ok(bytes.len())
    }

    #[test]
    fn it_cuts_and_heals() -> Result<()> {
        let (upstream, serving) = server(2)?;
        let proxy = Proxy::start(&upstream, Fault::CutAfter(10))?;
        assert_eq!((fetch(&proxy)?, proxy.faults()), (10, 1));
        proxy.heal();
        assert_eq!((fetch(&proxy)?, proxy.faults()), (100_000, 1));
        serving.join().expect("the server panicked");
        Ok(())
    }

    #[test]
    fn it_stalls_and_heals() -> Result<()> {
        let (upstream, serving) = server(1)?;
        let proxy = Proxy::start(&upstream, Fault::StallAfter(10))?;
        let mut stream = TcpStream::connect(proxy.address)?;
        let mut start = [0; 10];
        stream.read_exact(&mut start)?;
        stream.set_read_timeout(Some(std::time::Duration::from_millis(50)))?;
        assert!(stream.read(&mut start).is_err(), "more came than may");
        stream.set_read_timeout(None)?;
        proxy.heal();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest)?;
        assert_eq!((rest.len(), proxy.faults()), (99_990, 1));
        serving.join().expect("the server panicked");
        Ok(())
    }
}
