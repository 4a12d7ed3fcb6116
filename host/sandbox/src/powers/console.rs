//! Standard output and standard error of a plugin: lines on their way to `tracing`, from the budget of the log.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use super::account::Account;
use crate::failure::one_line;

/// Bytes of a line that are kept; more than that are dropped.
const LINE: usize = 4 << 10;

/// What a plugin may write in one call.
const CHUNK: usize = 64 << 10;

/// One of the two streams. Clones write into the same line.
#[derive(Clone)]
pub(super) struct Console {
    account: Arc<Account>,
    /// Standard error.
    warns: bool,
    line: Arc<Mutex<Vec<u8>>>,
}

impl Console {
    pub(super) fn new(account: &Arc<Account>, warns: bool) -> Self {
        Self { account: Arc::clone(account), warns, line: Arc::default() }
    }

    fn take(&self, bytes: &[u8]) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            let room = LINE.saturating_sub(line.len()).min(text.len());
            line.extend_from_slice(&text[..room]);
            if text.len() < part.len() {
                self.say(&line);
                line.clear();
            }
        }
    }

    fn say(&self, line: &[u8]) {
        if !self.account.message() {
            return;
        }
        let (guest, text) = (self.account.plugin(), one_line(&String::from_utf8_lossy(line)));
        if self.warns { tracing::warn!(guest, "{text}") } else { tracing::info!(guest, "{text}") }
    }

    /// Ends the line that was begun.
    pub(super) fn close(&self) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        if !line.is_empty() {
            self.say(&line);
            line.clear();
        }
    }
}

impl IsTerminal for Console {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Console {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl OutputStream for Console {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(CHUNK)
    }
}

#[async_trait::async_trait]
impl Pollable for Console {
    async fn ready(&mut self) {}
}

impl AsyncWrite for Console {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.take(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
