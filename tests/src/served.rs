//! An OCI layout as a registry: a few lines of HTTP, whose every answer a test can hold back.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Sends a blob's bytes. It may take its time.
type Send = dyn Fn(&mut TcpStream, &[u8]) -> std::io::Result<()> + std::marker::Send + Sync;

/// A registry with one layout's content under any repository. It ends with the process.
#[derive(Debug)]
pub struct Served {
    host: String,
}

impl Served {
    /// Serves a layout; tags are those of its index.
    pub fn start(layout: &Path) -> Result<Self> {
        Self::start_with(layout, std::io::Write::write_all)
    }

    /// The same, where `send` sends the bytes of each blob.
    pub fn start_with(
        layout: &Path,
        send: impl Fn(&mut TcpStream, &[u8]) -> std::io::Result<()> + std::marker::Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let host = listener.local_addr()?.to_string();
        let (layout, send): (PathBuf, Arc<Send>) = (layout.to_owned(), Arc::new(send));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (layout, send) = (layout.clone(), Arc::clone(&send));
                // A client that goes away has its reasons.
                thread::spawn(move || drop(answer_all(connection, &layout, &*send)));
            }
        });
        Ok(Self { host })
    }

    /// Its host and port.
    pub fn host(&self) -> &str {
        &self.host
    }
}

fn answer_all(mut connection: TcpStream, layout: &Path, send: &Send) -> Result<()> {
    let mut reader = BufReader::new(connection.try_clone()?);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = request.clone();
        while !header.trim_end().is_empty() {
            header.clear();
            reader.read_line(&mut header)?;
        }
        let path = request.split(' ').nth(1).context("no path")?;
        let last = path.rsplit('/').next().unwrap_or_default();
        let found = if path.contains("/manifests/") {
            manifest(layout, last).map(|(bytes, media_type)| (bytes, media_type, false))
        } else {
            blob(layout, last).map(|bytes| (bytes, "application/octet-stream".to_owned(), true))
        };
        let Some((bytes, media_type, is_blob)) = found else {
            connection.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        };
        let length = bytes.len();
        write!(connection, "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n\r\n")?;
        if request.starts_with("HEAD") {
            continue;
        }
        if is_blob { send(&mut connection, &bytes)? } else { connection.write_all(&bytes)? }
    }
}

fn blob(layout: &Path, digest: &str) -> Option<Vec<u8>> {
    fs::read(layout.join("blobs/sha256").join(digest.strip_prefix("sha256:")?)).ok()
}

fn manifest(layout: &Path, key: &str) -> Option<(Vec<u8>, String)> {
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).ok()?).ok()?;
    let tagged = index["manifests"]
        .as_array()?
        .iter()
        .find(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == key);
    let digest = tagged.map_or(Some(key), |entry| entry["digest"].as_str())?;
    let bytes = blob(layout, digest)?;
    let document: Value = serde_json::from_slice(&bytes).ok()?;
    Some((bytes, document["mediaType"].as_str()?.to_owned()))
}
