//! The types of the interface `tree` in `wit/layer.wit`, as wasmtime's generator makes them; here they can be made of bytes, too.
//! The host's check takes them apart field by field, so that this file does not build when it lags behind the contract.

use arbitrary::Arbitrary;

#[derive(Arbitrary, Clone, Debug)]
pub struct Timestamp {
    pub seconds: i64,
    pub nanoseconds: u32,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct Extent {
    pub offset: u64,
    pub length: u64,
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Sparse {
    pub size: u64,
    pub extents: Vec<Extent>,
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Attribute {
    pub name: Vec<u8>,
    pub value: Vec<u8>,
}

#[derive(Arbitrary, Clone, Debug)]
pub enum Node {
    Directory,
    File(u64),
    SparseFile(Sparse),
    Symlink(Vec<u8>),
    HardLink(Vec<u8>),
    CharacterDevice(Device),
    BlockDevice(Device),
    Fifo,
    Whiteout,
    Opaque,
}

#[derive(Arbitrary, Clone, Debug)]
pub struct Entry {
    pub path: Vec<u8>,
    pub node: Node,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub modified: Timestamp,
    pub attributes: Vec<Attribute>,
}
