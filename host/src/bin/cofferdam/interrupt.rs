//! Ctrl-C: work is told to stop, cleans up, and the command ends with 130.

use std::future::Future;

use cofferdam::{Cancel, Error, Result};

/// Runs asynchronous work to its end, or until Ctrl-C: then it is dropped, and what it began on other threads cleans up
/// before this returns, since the runtime waits for it.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = started(&mut tokio::runtime::Builder::new_multi_thread())?;
    runtime.block_on(async {
        tokio::select! {
            outcome = work => outcome,
            () = interrupted() => Err(Error::Interrupted),
        }
    })
}

/// A flag that Ctrl-C sets, for work that looks at it.
pub(crate) fn cancel_on_interrupt() -> Result<Cancel> {
    let cancel = Cancel::new();
    let flag = cancel.clone();
    let runtime = started(&mut tokio::runtime::Builder::new_current_thread())?;
    std::thread::spawn(move || {
        runtime.block_on(interrupted());
        flag.cancel();
    });
    Ok(cancel)
}

fn started(builder: &mut tokio::runtime::Builder) -> Result<tokio::runtime::Runtime> {
    builder.enable_all().build().map_err(|source| Error::Io { action: "start the runtime".into(), source })
}

/// Waits for Ctrl-C, or for the signal that asks a program to end.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
