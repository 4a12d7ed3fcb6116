//! A plugin that tries what it is told. The setting `do` holds one attempt a line; what came of each is said in the answer,
//! so that a test sees through the plugin's own eyes.

#![expect(clippy::disallowed_methods, reason = "that is what it is for")]

mod bindings {
    #![allow(missing_docs, unreachable_pub, unsafe_code, clippy::pedantic)]

    use super::Plugin;

    wit_bindgen::generate!({
        inline: "
            package hostile:plugin;
            world plugin {
                include cofferdam:layer/verifier@0.1.0;
                include cofferdam:layer/inspector@0.1.0;
            }
        ",
        path: "../../../../wit",
        world: "hostile:plugin/plugin",
        generate_all,
    });
    export!(Plugin with_types_in self);
}

mod files;
mod request;

use std::hint::black_box;
use std::io::Read as _;
use std::time::{Duration, Instant, SystemTime};

use bindings::cofferdam::layer::types::{Failure, Refusal};
use bindings::cofferdam::layer::{log, settings, tree};
use bindings::exports::cofferdam::layer::{inspection, verification};

struct Plugin;

/// What came of an attempt: both sides are for the test.
type Outcome = Result<String, String>;

impl verification::Guest for Plugin {
    fn verify(_: verification::Subject) -> Result<String, Failure> {
        attempts()
    }
}

impl inspection::Guest for Plugin {
    fn begin(_: inspection::Subject) -> Result<(), Failure> {
        Ok(())
    }

    fn see(_: tree::Entry) -> Result<inspection::Interest, Failure> {
        attempts().map(|_| inspection::Interest::Content)
    }

    fn content(_: Vec<u8>) -> Result<(), Failure> {
        Ok(())
    }

    fn finish() -> Result<Vec<u8>, Failure> {
        let size = settings::get("report").and_then(|size| size.parse().ok()).unwrap_or(0);
        Ok(vec![b'r'; size])
    }
}

/// With the setting `must`, what cannot be done is a refusal.
fn attempts() -> Result<String, Failure> {
    let script = settings::get("do").unwrap_or_default();
    let must = settings::get("must").is_some();
    let mut said = Vec::new();
    for line in script.lines() {
        match attempt(line) {
            Err(reason) if must => return Err(Failure::Refused(Refusal { path: Vec::new(), reason })),
            Ok(outcome) => said.push(outcome),
            Err(reason) => said.push(format!("not: {reason}")),
        }
    }
    Ok(said.join("; "))
}

fn attempt(line: &str) -> Outcome {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    let number = || rest.parse::<u64>().map_err(|error| error.to_string());
    match verb {
        "setting" => Ok(settings::get(rest).unwrap_or_else(|| "none".into())),
        "arguments" => Ok(format!("{} {}", std::env::args().count(), std::env::vars().count())),
        "input" => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|error| error.to_string())?;
            Ok(format!("{} bytes of input", text.len()))
        }
        "print" => {
            (0..number()?).for_each(|n| println!("line {n}"));
            Ok("printed".into())
        }
        "warn" => {
            (0..number()?).for_each(|n| eprintln!("line {n}"));
            Ok("warned".into())
        }
        "log" => {
            (0..number()?).for_each(|n| log::message(log::Level::Info, &format!("line {n}")));
            Ok("logged".into())
        }
        "clock" => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|error| error.to_string())?;
            Ok(format!("{} {}", now.as_secs() > 1_700_000_000, Instant::now() <= Instant::now()))
        }
        "sleep" => {
            std::thread::sleep(Duration::from_millis(number()?));
            Ok("slept".into())
        }
        // Never waits for long, and never ends.
        "doze" => loop {
            std::thread::sleep(Duration::from_millis(1));
        },
        "random" => Ok(wasip2::random::random::get_random_bytes(number()?).len().to_string()),
        "insecure" => Ok(format!(
            "{:?} {:?}",
            wasip2::random::insecure::get_insecure_random_bytes(number()?),
            wasip2::random::insecure_seed::insecure_seed()
        )),
        "spin" => loop {
            black_box(0);
        },
        "grow" => loop {
            std::mem::forget(black_box(vec![1_u8; 1 << 20]));
        },
        "recurse" => Ok(recurse(number()?).to_string()),
        "panic" => panic!("{rest}"),
        "exit" => std::process::exit(i32::try_from(number()?).unwrap_or(0)),
        "get" | "send" => request::attempt(verb, rest),
        "read" | "list" | "write" | "sparse" | "unlinked" | "many" | "deep" | "remove" | "rename" | "symlink"
        | "link" | "times" | "mkdir" => files::attempt(verb, rest),
        other => Err(format!("no attempt is called {other}")),
    }
}

#[expect(unconditional_recursion, reason = "that is the attempt")]
fn recurse(n: u64) -> u64 {
    black_box(recurse(black_box(n) + 1)) + 1
}
