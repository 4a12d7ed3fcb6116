//! Limits of a run, and the capabilities that are no doors to anything.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cofferdam::{Cancel, Error, GuestFailure};

use crate::server::{Server, answer, drain};
use crate::trial::Trial;

#[track_caller]
fn stopped(trial: Trial) -> GuestFailure {
    match trial.run().error() {
        Error::Guest { guest, failure } => {
            assert_eq!(guest, "hostile");
            failure
        }
        other => panic!("it was not stopped: {other:?}"),
    }
}

#[test]
fn an_endless_loop_runs_out_of_time() {
    assert_eq!(stopped(Trial::new("spin").limit("guest-time", "100ms")), GuestFailure::TimeOut);
}

/// Also one that never waits is ended when what it may take in all is over.
#[test]
fn waiting_and_working_together_have_an_end() {
    assert_eq!(stopped(Trial::new("spin").limit("plugin-wait", "300ms")), GuestFailure::Waited);
}

#[test]
fn sleeping_has_an_end() {
    for (attempt, wait) in [("sleep 3600000", "300ms"), ("doze", "300ms"), ("sleep 18446744073709", "300ms")] {
        let failure = stopped(Trial::new(attempt).limit("plugin-wait", wait));
        assert_eq!(failure, GuestFailure::Waited, "{attempt}");
    }
    assert_eq!(Trial::new("sleep 1").run().said(), "slept");
}

/// Whoever waits for a plugin may give up, whatever it does then.
#[test]
fn who_gives_up_waits_no_longer() {
    for attempts in ["", "\nspin", "\nsleep 3600000", "\ndoze"] {
        let cancel = Cancel::new();
        let told = cancel.clone();
        let server = Server::new(move |_, stream| {
            if attempts.is_empty() {
                told.cancel();
                drain(stream);
            } else {
                answer(stream, "200 OK", "", b"");
                // For it to go on to what is tried; it is given up whatever it does by then.
                std::thread::sleep(Duration::from_millis(200));
                told.cancel();
            }
        });
        let url = server.at("127.0.0.1");
        let mut trial = Trial::new(format!("get {url}/{attempts}")).http(&url).limit("plugin-wait", "3600s");
        trial.context.cancel = cancel;
        let error = trial.limit("guest-time", "3600s").run().error();
        assert!(matches!(error, Error::Interrupted), "{attempts:?}: {error:?}");
    }
}

#[test]
fn memory_has_a_wall() {
    let outcome = Trial::new("grow").limit("guest-memory", "16MiB").run();
    let peak = outcome.report.as_ref().map_or(0, |report| report.peak_memory);
    assert!((1 << 20..=16 << 20).contains(&peak), "{peak}");
    assert!(matches!(outcome.error(), Error::Guest { failure: GuestFailure::Memory(limit), .. } if limit == 16 << 20));
}

/// A plugin may ask for more than guests have, and gets no more than the host allows to plugins.
#[test]
fn the_memory_that_a_plugin_asks_for_has_a_wall() {
    for (asked, allowed, wall) in [("64MiB", "32MiB", 32 << 20), ("24MiB", "32MiB", 24 << 20)] {
        let trial = Trial::new("grow").memory(asked).limit("guest-memory", "16MiB").limit("plugin-memory", allowed);
        let error = trial.run().error();
        assert!(
            matches!(error, Error::Guest { failure: GuestFailure::Memory(limit), .. } if limit == wall),
            "{error:?}"
        );
        assert!(error.hint().is_some_and(|hint| hint.contains("plugin-memory")), "{:?}", error.hint());
    }
}

#[test]
fn recursion_and_panics_are_traps() {
    assert!(matches!(stopped(Trial::new("recurse 0")), GuestFailure::Trap(trap) if trap.contains("stack")));
    assert!(matches!(stopped(Trial::new("panic at the disco")), GuestFailure::Trap(_)));
}

/// Nor does it end the program that runs it.
#[test]
fn leaving_is_no_answer() {
    for code in ["0", "1"] {
        let failure = stopped(Trial::new(format!("exit {code}")));
        assert!(matches!(&failure, GuestFailure::Misuse(rule) if rule.contains("exited")), "{failure:?}");
    }
}

#[test]
fn a_report_has_a_size() {
    let inspect =
        |size: &str| Trial::new("arguments").setting("report", size).limit("report-bytes", "1000").inspect().0;
    assert_eq!(inspect("1000").expect("a report").len(), 1000);
    assert!(matches!(inspect("1001"), Err(Error::Limit { what: "bytes in a plugin's report", limit: 1000, .. })));
    // More than one call may carry otherwise.
    let large = Trial::new("arguments").setting("report", "10000000").inspect().0;
    assert_eq!(large.expect("a report").len(), 10_000_000);
}

#[test]
fn an_inspector_is_bound_as_a_verifier_is() {
    let (inspected, report) = Trial::new("spin").limit("guest-time", "100ms").inspect();
    assert!(matches!(inspected, Err(Error::Guest { failure: GuestFailure::TimeOut, .. })), "{inspected:?}");
    assert!(report.is_some_and(|report| report.guest_time.as_millis() >= 100));
    let (inspected, _) = Trial::new("sleep 3600000").limit("plugin-wait", "300ms").inspect();
    assert!(matches!(inspected, Err(Error::Guest { failure: GuestFailure::Waited, .. })), "{inspected:?}");
}

#[test]
fn settings_are_what_the_host_says() {
    let trial = || Trial::new("setting a\nsetting b\nsetting ").setting("a", "1");
    assert_eq!(trial().run().said(), "1; none; none");
}

#[test]
fn settings_are_no_way_to_keep_the_host_busy() {
    let ask = |times: usize| Trial::new("setting a\n".repeat(times)).limit("idle-calls", "100");
    // Two are for the script itself.
    ask(98).run().said.expect("a hundred calls");
    assert!(matches!(stopped(ask(99)), GuestFailure::Misuse(rule) if rule.contains("move nothing")));
}

#[test]
fn there_is_no_input_and_no_environment() {
    assert_eq!(Trial::new("arguments\ninput").run().said(), "0 0; 0 bytes of input");
}

#[test]
fn the_time_is_the_time_and_random_is_not_endless() {
    assert_eq!(Trial::new("clock\nrandom 65536").run().said(), "true true; 65536");
    assert!(matches!(stopped(Trial::new("random 65537")), GuestFailure::Misuse(_)));
    assert!(matches!(stopped(Trial::new("insecure 100000000")), GuestFailure::Misuse(_)));
}

/// What comes with the runtime does not tell two runs apart.
#[test]
fn the_runtimes_random_numbers_repeat() {
    let one = Trial::new("insecure 8").run().said();
    assert!(one.starts_with('['), "{one}");
    assert_eq!(one, Trial::new("insecure 8").run().said());
}

/// Counts events that carry a guest's name.
struct Counter(AtomicUsize);

impl tracing::Subscriber for Counter {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().starts_with("cofferdam")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        if event.metadata().fields().field("guest").is_some() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn output_and_log_share_one_budget() {
    let heard = |attempts: &str| {
        let counter = std::sync::Arc::new(Counter(AtomicUsize::new(0)));
        tracing::subscriber::with_default(std::sync::Arc::clone(&counter), || {
            let trial = Trial::new(attempts).limit("log-messages", "10").limit("idle-calls", "10000");
            trial.run().said.expect("an answer");
        });
        counter.0.load(Ordering::Relaxed)
    };
    assert_eq!(heard("print 3\nwarn 2\nlog 1"), 6);
    assert_eq!(heard("print 1000"), 10);
    assert_eq!(heard("warn 1000\nprint 1000\nlog 1000"), 10);
}
