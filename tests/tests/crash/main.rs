//! `kill -9` at any moment: what is committed is whole, the next run succeeds, and the dead leave nothing behind.

mod moments;
mod operations;
mod plugins;
mod steps;
mod table;
