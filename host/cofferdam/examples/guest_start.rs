//! Measures what a guest costs before it does anything: loading it, and one whole run on a layer of no bytes.
//!
//! `cargo run --release --example guest_start [CACHE_DIR]`

#![allow(clippy::print_stdout, reason = "an example that reports")]

use std::sync::Arc;
use std::time::Instant;

use cofferdam::Limits;
use cofferdam::sandbox::{Sandbox, SandboxOptions};
use cofferdam::unpack::{Layer, Unpacker};

/// The smallest gzip file: one empty member.
const EMPTY: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x03\0\0\0\0\0\0\0\0\0";

fn main() -> cofferdam::Result<()> {
    let options = std::env::args_os().nth(1).map(|dir| SandboxOptions::default().with_cache(dir)).unwrap_or_default();
    let begin = Instant::now();
    let sandbox = Arc::new(Sandbox::new(&options)?);
    println!("engine       {:>9.3} ms", begin.elapsed().as_secs_f64() * 1e3);
    for info in sandbox.inspect()? {
        println!("load {:<8}{:>9.3} ms", info.guest.name(), info.load_time.as_secs_f64() * 1e3);
    }
    let unpacker = Unpacker::new(sandbox, Limits::default());
    let mut times: Vec<_> = (0..501)
        .map(|_| {
            let begin = Instant::now();
            unpacker.verify(Layer::new(EMPTY)).map(|_| begin.elapsed())
        })
        .collect::<Result<_, _>>()?;
    times.sort();
    println!(
        "run          {:>9.3} ms (median of {}, with its threads)",
        times[times.len() / 2].as_secs_f64() * 1e3,
        times.len()
    );
    Ok(())
}
