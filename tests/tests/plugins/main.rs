//! Plugins as people use them: added, granted, asked by hand or by the policy, and what they leave behind.

#![allow(unreachable_pub, missing_docs, reason = "modules of one test binary")]

mod bench;
mod cosign;
mod distribution;
mod inspectors;
mod policy;
mod readers;
mod scaffold;
