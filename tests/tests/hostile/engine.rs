//! What no compiler would make of a guest: lies in the canonical ABI, and attacks on the engine's own resources.

use anyhow::Result;
use cofferdam::sandbox::Guest;

use crate::attack::{Attack, Ends, Scene};
use crate::component::{Parts, decoder, extractor};

/// An extractor that puts an empty entry but for the words that these replace, by the place of the parameter in `PUT`.
fn put(name: &str, replaced: &[(usize, &str)], ends: Ends) -> Attack {
    // A pipe called "" is refused as root, so an attack that comes through as nothing is seen.
    let mut words = ["0", "0", "7", "0", "0", "0", "0", "0", "0", "0", "0", "0", "0"];
    for &(at, word) in replaced {
        words[at] = word;
    }
    let words: Vec<_> = (words.iter().enumerate())
        .map(
            |(at, word)| if at == 3 || at == 9 { format!("(i64.const {word})") } else { format!("(i32.const {word})") },
        )
        .collect();
    // One byte is read, or the layer would be refused since nobody looked at it.
    let body = format!(
        "(call $read (i64.const 0) (i32.const 1) (i32.const 16)) (call $put {}) (i32.const 64)",
        words.join(" ")
    );
    Attack::written(name, Guest::Untar, extractor("", &body), ends)
}

fn raw(name: &str, body: &str, ends: Ends) -> Attack {
    Attack::written(name, Guest::Gunzip, decoder("", body), ends)
}

pub fn lies() -> Vec<Attack> {
    let misuse = Ends::Misuse("");
    vec![
        put("as it should be, but for the path", &[], Ends::Refused("root")),
        put("a path that leaves memory", &[(0, "65530"), (1, "100")], misuse),
        put("a path of 4 GiB", &[(1, "-1")], misuse),
        put("a path at the end of all addresses", &[(0, "-1"), (1, "1")], misuse),
        put("a node that is none", &[(2, "10")], misuse),
        put("a node of 32 bits", &[(2, "-1")], misuse),
        put("a target that leaves memory", &[(1, "1"), (2, "3"), (3, "4294967295"), (4, "9")], misuse),
        put("a target at 64 bits", &[(1, "1"), (2, "3"), (3, "-1"), (4, "9")], misuse),
        put("extents that leave memory", &[(1, "1"), (2, "2"), (4, "65528"), (5, "2")], misuse),
        put("extents that are not aligned", &[(1, "1"), (2, "2"), (4, "1"), (5, "2")], misuse),
        put("2²⁸ extents, whose size overflows", &[(1, "1"), (2, "2"), (5, "268435457")], misuse),
        put("attributes that leave memory", &[(1, "1"), (11, "65532"), (12, "1")], misuse),
        put("attributes that are not aligned", &[(1, "1"), (11, "2"), (12, "1")], misuse),
        put("2²⁸ attributes, whose size overflows", &[(1, "1"), (12, "268435457")], misuse),
        raw("a list that leaves memory", "(call $write (i32.const 65530) (i32.const 100)) (i32.const 64)", misuse),
        raw("a list at the end of all addresses", "(call $write (i32.const -1) (i32.const 2)) (i32.const 64)", misuse),
        raw("a level that is none", "(call $message (i32.const 3) (i32.const 0) (i32.const 0)) (i32.const 64)", misuse),
        raw("a level of 32 bits", "(call $message (i32.const -1) (i32.const 0) (i32.const 0)) (i32.const 64)", misuse),
        raw(
            "a message that leaves memory",
            "(call $message (i32.const 0) (i32.const -9) (i32.const 9)) (i32.const 64)",
            misuse,
        ),
        raw(
            "a message that is no text",
            "(i32.store (i32.const 0) (i32.const -1)) (call $message (i32.const 0) (i32.const 0) (i32.const 4)) (i32.const 64)",
            misuse,
        ),
        raw(
            "an answer's place outside of memory",
            "(call $read (i64.const 0) (i32.const 9) (i32.const -8)) (i32.const 64)",
            misuse,
        ),
        raw(
            "an answer's place that is not aligned",
            "(call $read (i64.const 0) (i32.const 9) (i32.const 17)) (i32.const 64)",
            misuse,
        ),
        raw(
            "an answer larger than memory",
            // The first answer is what the host had looked at, some bytes.
            "(call $read (i64.const 0) (i32.const 64) (i32.const 16)) (call $read (i64.const 0) (i32.const 65000) (i32.const 16)) (i32.const 64)",
            misuse,
        ),
        raw("a result outside of memory", "(i32.const -4)", misuse),
        raw("a result that is not aligned", "(i32.const 65)", misuse),
        raw("a result that is neither", "(i32.store8 (i32.const 64) (i32.const 2)) (i32.const 64)", misuse),
        raw(
            "a failure that is none",
            "(i32.store8 (i32.const 64) (i32.const 1)) (i32.store8 (i32.const 68) (i32.const 3)) (i32.const 64)",
            misuse,
        ),
        raw(
            "a failure whose text leaves memory",
            "(i32.store8 (i32.const 64) (i32.const 1)) (i32.store (i32.const 72) (i32.const -1)) (i32.store (i32.const 76) (i32.const 9)) (i32.const 64)",
            misuse,
        ),
    ]
}

/// `realloc` and `post-return` run in the middle of what the host does.
pub fn callbacks() -> Vec<Attack> {
    let read = "(call $read (i64.const 0) (i32.const 9) (i32.const 16)) (i32.const 64)";
    let realloc = |name: &str, body: &str, ends| {
        let memory = format!(
            r#"(memory (export "memory") 1) (func $again (param i32) (result i32) (i32.add (i32.const 1) (call $again (local.get 0))))
               (func (export "realloc") (param i32 i32 i32 i32) (result i32) {body})"#
        );
        let parts = Parts { memory: &memory, body: read, ..Parts::default() };
        Attack::written(name, Guest::Gunzip, parts.decoder(), ends)
    };
    let post = |name: &str, body: &str, ends| {
        let fields = format!(
            r#"(func $again (param i32) (result i32) (i32.add (i32.const 1) (call $again (local.get 0))))
               (func (export "post") (param i32) {body})"#
        );
        let parts = Parts { fields: &fields, lift: r#"(post-return (core func $i "post"))"#, ..Parts::default() };
        Attack::written(name, Guest::Gunzip, parts.decoder(), ends)
    };
    vec![
        realloc("realloc that loops", "(loop (br 0)) (i32.const 0)", Ends::TimeOut),
        realloc("realloc that recurses", "(call $again (i32.const 0))", Ends::Trap("stack")),
        realloc("realloc that traps", "unreachable", Ends::Trap("unreachable")),
        realloc("realloc that gives what is not there", "(i32.const 65535)", Ends::Misuse("")),
        realloc("realloc that takes all memory", "(memory.grow (i32.const 65000))", Ends::Memory),
        post("post-return that loops", "(loop (br 0))", Ends::TimeOut),
        post("post-return that recurses", "(drop (call $again (i32.const 0)))", Ends::Trap("stack")),
        post("post-return that traps", "unreachable", Ends::Trap("unreachable")),
        post("post-return that reads", "(call $read (i64.const 0) (i32.const 9) (i32.const 16))", Ends::Trap("leave")),
        post("post-return that takes all memory", "(drop (memory.grow (i32.const 65000)))", Ends::Memory),
    ]
}

/// What an instance takes before its export is called, and what it may hold.
pub fn resources() -> Vec<Attack> {
    let with = |name: &str, parts: &Parts<'_>, ends| Attack::written(name, Guest::Gunzip, parts.decoder(), ends);
    let fields =
        |name: &str, fields: &str, body: &str, ends| Attack::written(name, Guest::Gunzip, decoder(fields, body), ends);
    let memory = |name: &str, memory: &str, ends| with(name, &Parts { memory, ..Parts::default() }, ends);
    let top = |name: &str, top: String, ends| with(name, &Parts { top: &top, ..Parts::default() }, ends);
    let instances = |module: &str, count: usize| {
        let instances: String = (0..count).map(|_| "(core instance (instantiate $many))").collect();
        format!("(core module $many {module}) {instances}")
    };
    let ok = "(i32.const 64)";
    let recursion = "(func $again (param i32) (result i32) (i32.add (i32.const 1) (call $again (local.get 0))))";
    let mutual = r"(type $t (func (param i32) (result i32))) (table 1 funcref) (elem (i32.const 0) $again)
        (func $again (type $t) (i32.add (i32.const 1) (call_indirect (type $t) (local.get 0) (i32.const 0))))";
    vec![
        fields("recursion", recursion, "(call $again (i32.const 0))", Ends::Trap("stack")),
        fields("recursion through a table", mutual, "(call $again (i32.const 0))", Ends::Trap("stack")),
        fields("a start function that loops", "(func $s (loop (br 0))) (start $s)", ok, Ends::TimeOut),
        fields("a start function that recurses", "(func $s (call $s) (call $s)) (start $s)", ok, Ends::Trap("stack")),
        fields(
            "a start function that takes memory",
            "(func $s (drop (memory.grow (i32.const 65000)))) (start $s)",
            ok,
            Ends::Memory,
        ),
        fields(
            "a loop around the log",
            "",
            "(loop (call $message (i32.const 0) (i32.const 0) (i32.const 9)) (br 0)) unreachable",
            Ends::Misuse("move nothing"),
        ),
        fields("a table of 2³² - 1", "(table 4294967295 funcref)", ok, Ends::Misuse("")),
        fields(
            "a table that grows to 100 000",
            "(table $t 1 funcref)",
            "(if (i32.ne (table.grow $t (ref.null func) (i32.const 100000)) (i32.const -1)) (then (loop (br 0)))) unreachable",
            Ends::Trap("unreachable"),
        ),
        fields(
            "a wild call",
            "(type $t (func)) (table 1 funcref)",
            "(call_indirect (type $t) (i32.const 99)) (i32.const 64)",
            Ends::Trap("table"),
        ),
        memory("4 GiB of memory at the start", r#"(memory (export "memory") 65536)"#, Ends::Memory),
        memory("257 MiB of memory at the start", r#"(memory (export "memory") 4112)"#, Ends::Memory),
        top("two memories", instances("(memory 1)", 1), Ends::Misuse("memory")),
        top("17 instances", instances("", 17), Ends::Misuse("instance")),
        top("9 tables", instances("(table 1 funcref)", 9), Ends::Misuse("table")),
        handles(),
    ]
}

/// Makes handles of a resource of its own, which the host keeps the table of.
fn handles() -> Attack {
    let parts = Parts {
        top: "(type $own (resource (rep i32))) (core func $make (canon resource.new $own))",
        fields: r#"(import "m" "make" (func $make (param i32) (result i32)))"#,
        body: "(loop (drop (call $make (i32.const 1))) (br 0)) unreachable",
        with: r#"(export "make" (func $make))"#,
        ..Parts::default()
    };
    Attack::written("handles without end", Guest::Gunzip, parts.decoder(), Ends::Misuse("handle"))
}

/// What our guests do not need is off, so that it cannot have a bug that matters.
pub fn features() -> Vec<Attack> {
    let load =
        |name: &str, fields: &str| Attack::written(name, Guest::Untar, extractor(fields, "(i32.const 64)"), Ends::Load);
    vec![
        load("shared memory", "(memory 1 1 shared)"),
        load("64-bit memory", "(memory i64 1)"),
        load("two memories in one module", "(memory 1) (memory 1)"),
        load("tail calls", "(func $f (return_call $f))"),
        load("relaxed simd", "(func (param v128) (result v128) (i32x4.relaxed_trunc_f32x4_s (local.get 0)))"),
        load("atomics", "(func (drop (i32.atomic.load (i32.const 0))))"),
        load("exceptions", "(tag $t)"),
        load("garbage collection", "(type $s (struct (field i32)))"),
        load("stack switching", "(type $f (func)) (type $c (cont $f))"),
        load(
            "wide arithmetic",
            "(func (result i64 i64) (i64.add128 (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0)))",
        ),
        Attack::written(
            "an environment",
            Guest::Untar,
            r#"(component (import "wasi:cli/environment@0.2.0" (instance (export "x" (func)))))"#.into(),
            Ends::Misuse(""),
        ),
        Attack::written("no export", Guest::Untar, "(component)".into(), Ends::Misuse("")),
        Attack::written("the other world", Guest::Untar, decoder("", "(i32.const 64)"), Ends::Misuse("")),
    ]
}

#[test]
fn lies_in_the_canonical_abi_end_the_guest() -> Result<()> {
    Scene::new()?.withstands(lies())
}

#[test]
fn callbacks_are_held_as_the_guest_is() -> Result<()> {
    Scene::new()?.withstands(callbacks())
}

#[test]
fn what_an_instance_may_hold_has_limits() -> Result<()> {
    Scene::new()?.withstands(resources())
}

/// A guest must not be able to run into the end of the thread's stack, which would end the process.
#[test]
fn recursion_is_stopped_on_a_small_stack() -> Result<()> {
    let recursion = "(func $again (param i32) (result i32) (i32.add (i32.const 1) (call $again (local.get 0))))";
    let text = extractor(recursion, "(call $again (i32.const 0))");
    let attack = Attack::written("recursion", Guest::Untar, text, Ends::Trap("stack"));
    let run = move || Scene::new()?.withstands(vec![attack]);
    let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(run)?;
    thread.join().map_err(|_| anyhow::anyhow!("the thread panicked"))?
}

#[test]
fn what_our_guests_do_not_need_is_not_loaded() -> Result<()> {
    Scene::new()?.withstands(features())
}
