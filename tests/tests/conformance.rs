//! The conformance corpus, a test for each scenario, in every way of extracting that Cofferdam has.
//!
//! `tests/conformance/README.md` says how a scenario is written; `cargo xtask conformance` shows them all in a table,
//! beside other implementations.

use anyhow::Result;
use cofferdam_tests::conformance::{self, Lab, Verdict, Way};
use cofferdam_tests::require;
use libtest_mimic::{Arguments, Failed, Trial};

fn main() -> Result<()> {
    let mut trials: Vec<_> = conformance::names()?
        .into_iter()
        .map(|name| Trial::test(name.replace('/', "::"), move || holds(&name)))
        .collect();
    trials.push(Trial::test("the_corpus_is_found", || {
        let found = conformance::names().map_or(0, |names| names.len());
        if found < 100 { Err(format!("only {found} scenarios").into()) } else { Ok(()) }
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn holds(name: &str) -> Result<(), Failed> {
    if !require::is_root() {
        require::skip("owners, devices and attributes need root");
        return Ok(());
    }
    let mut failures = Vec::new();
    for way in Way::OURS {
        match Lab::new(name, way).and_then(|lab| lab.run()) {
            Ok(Verdict::Passed | Verdict::NotApplicable(_)) => {}
            Ok(Verdict::Failed(why)) => failures.push(format!("{}: {why}", way.name())),
            Err(error) => failures.push(format!("{}: {error:#}", way.name())),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n").into()) }
}
