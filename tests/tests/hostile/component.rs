//! Components in the text format: the worlds' imports, lowered as a compiler would, around code that no compiler makes.
//!
//! Memory is 64 KiB, all zero, so a return area at any free address says success. `realloc` gives `REALLOC`, which the code
//! may replace.

const TYPES: &str = r#"
  (import "cofferdam:layer/types@0.1.0" (instance $types
    (type $r (record (field "path" (list u8)) (field "reason" string)))
    (export "refusal" (type $refusal (eq $r)))
    (type $f (variant (case "corrupt" string) (case "refused" $refusal) (case "limit" string)))
    (export "failure" (type $failure (eq $f)))))
  (alias export $types "failure" (type $failure))
  (import "cofferdam:layer/input@0.1.0" (instance $input
    (export "read" (func (param "skip" u64) (param "max" u32) (result (list u8))))))
  (import "cofferdam:layer/log@0.1.0" (instance $log
    (type $l (enum "debug" "info" "warn"))
    (export "level" (type $level (eq $l)))
    (export "message" (func (param "level" $level) (param "text" string)))))"#;

const OUTPUT: &str = r#"
  (import "cofferdam:layer/output@0.1.0" (instance $output
    (export "write" (func (param "bytes" (list u8))))))"#;

const TREE: &str = r#"
  (import "cofferdam:layer/tree@0.1.0" (instance $tree
    (type $ti (record (field "seconds" s64) (field "nanoseconds" u32)))
    (export "timestamp" (type $timestamp (eq $ti)))
    (type $at (record (field "name" (list u8)) (field "value" (list u8))))
    (export "attribute" (type $attribute (eq $at)))
    (type $ex (record (field "offset" u64) (field "length" u64)))
    (export "extent" (type $extent (eq $ex)))
    (type $sp (record (field "size" u64) (field "extents" (list $extent))))
    (export "sparse" (type $sparse (eq $sp)))
    (type $de (record (field "major" u32) (field "minor" u32)))
    (export "device" (type $device (eq $de)))
    (type $no (variant (case "directory") (case "file" u64) (case "sparse-file" $sparse) (case "symlink" (list u8))
      (case "hard-link" (list u8)) (case "character-device" $device) (case "block-device" $device) (case "fifo")
      (case "whiteout") (case "opaque")))
    (export "node" (type $node (eq $no)))
    (type $en (record (field "path" (list u8)) (field "node" $node) (field "mode" u32) (field "uid" u32)
      (field "gid" u32) (field "modified" $timestamp) (field "attributes" (list $attribute))))
    (export "entry" (type $entry (eq $en)))
    (export "put" (func (param "entry" $entry)))))"#;

/// The functions of the module that holds memory.
const REALLOC: &str = r#"(func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))"#;

/// The code's parameters of `put`: path, node (discriminant and payload), mode, owners, time, attributes.
const PUT: &str = "(param i32 i32 i32 i64 i32 i32 i32 i32 i32 i64 i32 i32 i32)";

/// What a component is made of.
pub struct Parts<'a> {
    /// Definitions at the component's top level.
    pub top: &'a str,
    /// Fields of the module that holds the memory.
    pub memory: &'a str,
    /// Fields of the module that holds the code; it may call `$read`, `$message` and `$put` or `$write`.
    pub fields: &'a str,
    /// The body of the export, which gives the address of its result.
    pub body: &'a str,
    /// Options of the export's lifting.
    pub lift: &'a str,
    /// Further imports of the code, as fields of the instance that it is given.
    pub with: &'a str,
}

impl Default for Parts<'_> {
    fn default() -> Self {
        Self {
            top: "",
            memory: r#"(memory (export "memory") 1)"#,
            fields: "",
            body: "(i32.const 64)",
            lift: "",
            with: "",
        }
    }
}

impl Parts<'_> {
    pub fn extractor(&self) -> String {
        self.component(TREE, ("tree", "put", PUT), "extract")
    }

    pub fn decoder(&self) -> String {
        self.component(OUTPUT, ("output", "write", "(param i32 i32)"), "decode")
    }

    fn component(&self, import: &str, (instance, name, parameters): (&str, &str, &str), export: &str) -> String {
        let Self { top, memory, fields, body, lift, with } = self;
        let realloc = if memory.contains("realloc") { "" } else { REALLOC };
        format!(
            r#"(component {TYPES} {import} {top}
  (core module $memory {memory} {realloc})
  (core instance $m (instantiate $memory))
  (alias core export $m "memory" (core memory $mem))
  (alias core export $m "realloc" (core func $realloc))
  (core func $read (canon lower (func $input "read") (memory $mem) (realloc $realloc)))
  (core func $message (canon lower (func $log "message") (memory $mem)))
  (core func $verb (canon lower (func ${instance} "{name}") (memory $mem)))
  (core module $code
    (import "m" "memory" (memory 1))
    (import "m" "read" (func $read (param i64 i32 i32)))
    (import "m" "message" (func $message (param i32 i32 i32)))
    (import "m" "{name}" (func ${name} {parameters}))
    {fields}
    (func (export "run") (result i32) {body}))
  (core instance $i (instantiate $code (with "m" (instance
    (export "memory" (memory $mem)) (export "read" (func $read)) (export "message" (func $message))
    (export "{name}" (func $verb)) {with}))))
  (alias core export $i "run" (core func $run))
  (func $export (result (result (error $failure)))
    (canon lift (core func $run) (memory $mem) (realloc $realloc) {lift}))
  (export "{export}" (func $export)))"#
        )
    }
}

/// An extractor with this code.
pub fn extractor(fields: &str, body: &str) -> String {
    Parts { fields, body, ..Parts::default() }.extractor()
}

/// A decoder with this code.
pub fn decoder(fields: &str, body: &str) -> String {
    Parts { fields, body, ..Parts::default() }.decoder()
}
