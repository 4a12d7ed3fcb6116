//! Guests that misbehave, each written in the text format, and how they end.

use std::collections::BTreeMap;
use std::time::Duration;

use cofferdam_core::cancel::Cancel;
use cofferdam_core::error::{Error, ErrorKind, GuestFailure, Result};
use cofferdam_core::limits::Limits;
use cofferdam_documents::plugin::{Capabilities, PluginManifest};
use cofferdam_tree::claim;

use super::{DecoderHost, ExtractorHost, Guest, InputHost, Sandbox, SandboxOptions};

/// A decoder whose `decode` has this body. It may call `$read`, `$write` and `$message`; memory begins with 64 KiB.
fn decoder(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
          (import "cofferdam:layer/types@0.1.0" (instance $types
            (type $r (record (field "path" (list u8)) (field "reason" string)))
            (export "refusal" (type $refusal (eq $r)))
            (type $f (variant (case "corrupt" string) (case "refused" $refusal) (case "limit" string)))
            (export "failure" (type $failure (eq $f)))))
          (alias export $types "failure" (type $failure))
          (import "cofferdam:layer/input@0.1.0" (instance $input
            (export "read" (func (param "skip" u64) (param "max" u32) (result (list u8))))))
          (import "cofferdam:layer/output@0.1.0" (instance $output
            (export "write" (func (param "bytes" (list u8))))))
          (core module $memory
            (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096)))
          (core instance $m (instantiate $memory))
          (alias core export $m "memory" (core memory $mem))
          (alias core export $m "realloc" (core func $realloc))
          (core func $read (canon lower (func $input "read")
            (memory $mem) (realloc $realloc)))
          (core func $write (canon lower (func $output "write") (memory $mem)))
          (core module $code
            (import "m" "memory" (memory 1))
            (import "m" "read" (func $read (param i64 i32 i32)))
            (import "m" "write" (func $write (param i32 i32)))
            (func $recurse (param i32) (result i32) (i32.add (i32.const 1) (call $recurse (local.get 0))))
            (func (export "decode") (result i32) {body}))
          (core instance $i (instantiate $code (with "m" (instance
            (export "memory" (memory $mem))
            (export "read" (func $read)) (export "write" (func $write))))))
          (alias core export $i "decode" (core func $run))
          (func $decode (result (result (error $failure)))
            (canon lift (core func $run) (memory $mem) (realloc $realloc)))
          (export "decode" (func $decode)))"#
    );
    wat::parse_str(text).unwrap()
}

/// Endless input; counts the output.
#[derive(Default)]
struct Host {
    read: u64,
    written: u64,
}

impl InputHost for Host {
    fn read(&mut self, skip: u64, max: usize) -> Result<Vec<u8>> {
        self.read += skip + max as u64;
        Ok(vec![b'x'; max])
    }
}

impl DecoderHost for Host {
    fn buffer(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn write(&mut self, bytes: Vec<u8>) -> Result<()> {
        self.written += bytes.len() as u64;
        if self.written > 10 << 20 {
            return Err(Error::Limit { subject: "the layer".into(), what: "decoded bytes", limit: 10 << 20 });
        }
        Ok(())
    }
}

fn run(body: &str) -> (Result<()>, Host) {
    let sandbox = Sandbox::new(&SandboxOptions::default().with_guest(Guest::Gunzip, decoder(body))).unwrap();
    let limits = Limits::default().with(|limits| {
        limits.guest_time = Duration::from_millis(50);
        limits.guest_time_per_mib = Duration::ZERO;
    });
    sandbox.decode(&sandbox.builtin(Guest::Gunzip).unwrap(), &limits, Host::default())
}

fn stopped(body: &str) -> GuestFailure {
    match run(body) {
        (Err(Error::Guest { guest, failure }), _) => {
            assert_eq!(guest, "gunzip");
            failure
        }
        (other, _) => panic!("the guest ended with {other:?}"),
    }
}

#[test]
fn a_guest_that_does_as_it_should_succeeds() {
    // Reads 100 bytes and writes them; the list's pointer and length lie at 16.
    let (outcome, host) = run("(call $read (i64.const 5) (i32.const 100) (i32.const 16))
         (call $write (i32.load (i32.const 16)) (i32.load (i32.const 20)))
         (i32.const 64)");
    outcome.unwrap();
    assert_eq!((host.read, host.written), (105, 100));
}

#[test]
fn a_trap_is_named() {
    assert!(matches!(stopped("unreachable"), GuestFailure::Trap(trap) if trap.contains("unreachable")));
    assert!(matches!(stopped("(i32.load (i32.const -1))"), GuestFailure::Trap(trap) if trap.contains("memory")));
    assert!(matches!(stopped("(call $recurse (i32.const 0))"), GuestFailure::Trap(trap) if trap.contains("stack")));
}

#[test]
fn an_endless_loop_runs_out_of_time() {
    assert_eq!(stopped("(loop (br 0)) (i32.const 64)"), GuestFailure::TimeOut);
}

/// Gives up when it is read from.
struct Impatient(Cancel);

impl InputHost for Impatient {
    fn read(&mut self, _skip: u64, max: usize) -> Result<Vec<u8>> {
        self.0.cancel();
        Ok(vec![b'x'; max])
    }
}

impl DecoderHost for Impatient {
    fn buffer(&mut self) -> Vec<u8> {
        Vec::new()
    }

    fn write(&mut self, _bytes: Vec<u8>) -> Result<()> {
        Ok(())
    }
}

/// A plugin that holds nothing waits for nobody: it is ended where it computes.
#[test]
fn a_plugin_that_is_given_up_is_ended_while_it_computes() {
    let text = "name = 'p'\nversion = '1'\nworld = 'decoder'\n[decoder]\nmedia-types = ['application/x']";
    let manifest = PluginManifest::parse(text).unwrap();
    let component = decoder("(call $read (i64.const 0) (i32.const 1) (i32.const 16)) (loop (br 0)) (i32.const 64)");
    let sandbox = Sandbox::new(&SandboxOptions::default()).unwrap();
    let program = sandbox.plugin("p", &manifest, &component, &Capabilities::default(), &BTreeMap::new()).unwrap();
    let cancel = Cancel::new();
    let limits = Limits::default().with(|limits| limits.guest_time = Duration::from_hours(1));
    let (outcome, _) = sandbox.decode(&program.given_up_by(&cancel), &limits, Impatient(cancel.clone()));
    assert!(matches!(outcome, Err(Error::Interrupted)), "{outcome:?}");
}

#[test]
fn growing_memory_meets_the_wall() {
    let limit = Limits::default().decoder_memory;
    let body = "(drop (memory.grow (i32.const 60000))) (i32.const 64)";
    assert_eq!(stopped(body), GuestFailure::Memory(limit));
    let within = "(if (i32.ne (memory.grow (i32.const 4000)) (i32.const 1)) (then unreachable)) (i32.const 64)";
    run(within).0.unwrap();
}

#[test]
fn calls_that_move_nothing_are_counted() {
    let body = "(loop (call $write (i32.const 0) (i32.const 0)) (br 0)) (i32.const 64)";
    assert!(matches!(stopped(body), GuestFailure::Misuse(rule) if rule.contains("move nothing")));
}

/// The limit `idle-calls`, crossed by one.
#[test]
fn as_many_idle_calls_as_the_limit_says_are_served() {
    let body = |calls: u64| {
        format!(
            "(loop (call $write (i32.const 0) (i32.const 0))
             (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
             (br_if 0 (i32.lt_u (i32.load (i32.const 0)) (i32.const {calls})))) (i32.const 64)"
        )
    };
    let limit = Limits::default().idle_calls;
    run(&body(limit)).0.unwrap();
    assert!(matches!(stopped(&body(limit + 1)), GuestFailure::Misuse(rule) if rule.contains("move nothing")));
}

/// The host's work is not charged to a guest, but each call has a price: 50 ms buy 50 000 of them.
#[test]
fn single_bytes_do_not_keep_the_host_busy() {
    let (outcome, host) = run("(loop (call $write (i32.const 0) (i32.const 1)) (br 0)) (i32.const 64)");
    assert!(matches!(outcome, Err(Error::Guest { failure: GuestFailure::TimeOut, .. })), "{outcome:?}");
    assert!(host.written <= 50_001, "{} calls were served", host.written);
}

#[test]
fn transfers_have_a_size() {
    for body in [
        "(call $read (i64.const 0) (i32.const 0) (i32.const 16)) (i32.const 64)",
        "(call $read (i64.const 0) (i32.const 1048577) (i32.const 16)) (i32.const 64)",
        "(drop (memory.grow (i32.const 100))) (call $write (i32.const 0) (i32.const 1048577)) (i32.const 64)",
    ] {
        assert!(matches!(stopped(body), GuestFailure::Misuse(_)), "{body}");
    }
}

#[test]
fn lists_outside_of_memory_end_the_guest() {
    for body in [
        "(call $write (i32.const 65530) (i32.const 100)) (i32.const 64)",
        "(call $write (i32.const -1) (i32.const -1)) (i32.const 64)",
        // The answer to a read is written by `realloc`'s word, which is a lie here: 1 MiB do not fit behind 4096.
        "(call $read (i64.const 0) (i32.const 1048576) (i32.const 16)) (i32.const 64)",
        "(i32.const -4)",
    ] {
        let (outcome, _) = run(body);
        assert!(matches!(outcome, Err(Error::Guest { .. })), "{body} ended with {outcome:?}");
    }
}

#[test]
fn a_hosts_error_is_what_is_reported() {
    let body = "(drop (memory.grow (i32.const 100)))
        (loop (call $write (i32.const 0) (i32.const 1048576)) (br 0)) (i32.const 64)";
    let (outcome, host) = run(body);
    assert!(matches!(outcome, Err(Error::Limit { limit: 10_485_760, .. })), "{outcome:?}");
    assert_eq!(host.written, 11 << 20);
}

#[test]
fn what_a_guest_says_is_typed() {
    // At 64: discriminant 1 (error) of the result; at 68: the case; at 72: text at 100 of length 3.
    let said = |case: u32| {
        let body = format!(
            "(i32.store8 (i32.const 64) (i32.const 1)) (i32.store8 (i32.const 68) (i32.const {case}))
             (i32.store (i32.const 72) (i32.const 100)) (i32.store (i32.const 76) (i32.const 3))
             (i32.store (i32.const 80) (i32.const 100)) (i32.store (i32.const 84) (i32.const 3))
             (i32.store (i32.const 100) (i32.const 0x0a6f6e)) (i32.const 64)"
        );
        run(&body).0.unwrap_err()
    };
    assert_eq!(said(0).kind(), ErrorKind::Integrity);
    assert_eq!(said(1).kind(), ErrorKind::Refused);
    assert_eq!(said(1).to_string(), "refused `no\\x0a`: no ");
    assert_eq!(said(2).kind(), ErrorKind::Refused);
    assert!(matches!(said(3), Error::Guest { .. }));
}

#[test]
fn a_component_that_wants_more_is_not_linked() {
    let text = r#"(component (import "wasi:cli/environment@0.2.0" (instance (export "x" (func)))))"#;
    let options = SandboxOptions::default().with_guest(Guest::Gunzip, wat::parse_str(text).unwrap());
    let sandbox = Sandbox::new(&options).unwrap();
    let (outcome, _) = sandbox.decode(&sandbox.builtin(Guest::Gunzip).unwrap(), &Limits::default(), Host::default());
    assert!(matches!(outcome, Err(Error::Guest { failure: GuestFailure::Misuse(_), .. })), "{outcome:?}");
}

#[test]
fn what_is_no_component_is_not_loaded() {
    for bytes in [&b""[..], b"\0asm\x01\0\0\0", b"garbage"] {
        let sandbox = Sandbox::new(&SandboxOptions::default().with_guest(Guest::Untar, bytes)).unwrap();
        assert!(matches!(sandbox.inspect(), Err(Error::Guest { failure: GuestFailure::Load(_), .. })));
    }
}

/// P5: the first-party guests have no authority but ours to give.
#[test]
fn first_party_guests_import_our_interfaces_only() {
    for info in Sandbox::new(&SandboxOptions::default()).unwrap().inspect().unwrap() {
        assert!(!info.imports.is_empty());
        for import in &info.imports {
            assert!(import.starts_with("cofferdam:layer/"), "{} imports {import}", info.guest);
        }
    }
}

struct NoTree;

impl InputHost for NoTree {
    fn read(&mut self, _skip: u64, _max: usize) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
}

impl ExtractorHost for NoTree {
    fn put(&mut self, entry: claim::Entry) -> Result<u64> {
        panic!("an empty stream holds {entry:?}")
    }
}

#[test]
fn an_empty_stream_is_an_empty_layer() {
    let sandbox = Sandbox::new(&SandboxOptions::default()).unwrap();
    sandbox.extract(&sandbox.builtin(Guest::Untar).unwrap(), &Limits::default(), NoTree).0.unwrap();
}

/// A cache holds machine code that will be run: one that others may write to is not looked into.
#[test]
fn a_cache_that_others_may_write_to_is_not_used() {
    let temp = tempfile::tempdir().unwrap();
    for (name, mode, used) in [("private", 0o700, true), ("open", 0o777, false), ("group", 0o770, false)] {
        let dir = temp.path().join(name);
        std::fs::DirBuilder::new().create(&dir).unwrap();
        let opened = cofferdam_core::ambient::open_dir(&dir).unwrap();
        rustix::fs::fchmod(&opened, rustix::fs::Mode::from_raw_mode(mode)).unwrap();
        let options = SandboxOptions::default().with_cache(&dir).with_guest(Guest::Gunzip, decoder("(i32.const 0)"));
        Sandbox::new(&options).unwrap().builtin(Guest::Gunzip).unwrap();
        assert_eq!(dir.read_dir().unwrap().next().is_some(), used, "{name}");
    }
    // A path through a link leads to the same directory, and one that is missing is made.
    std::os::unix::fs::symlink("open", temp.path().join("link")).unwrap();
    for (name, used) in [("link", false), ("new/below", true)] {
        let dir = temp.path().join(name);
        let options = SandboxOptions::default().with_cache(&dir).with_guest(Guest::Gunzip, decoder("(i32.const 0)"));
        Sandbox::new(&options).unwrap().builtin(Guest::Gunzip).unwrap();
        assert_eq!(dir.read_dir().unwrap().next().is_some(), used, "{name}");
    }
}
