//! A plugin that looks on while another plugin reads.

use std::collections::BTreeMap;

use cofferdam::limits::Limits;
use cofferdam::plugin::PluginManifest;
use cofferdam::sandbox::Guest;
use cofferdam::unpack::{Extensions, Layer, Unpacker};
use cofferdam::{Cancel, Error};
use cofferdam_tests::layers::{self, Item};

use crate::server::{Server, drain};
use crate::trial::{Trial, sandbox};

const MEDIA_TYPE: &str = "application/vnd.test.layer";

/// Unpackers for layers that a plugin reads, which holds something, while the hostile one looks on, which holds more.
fn unpacker(trial: &Trial) -> Unpacker {
    let text = format!(
        "name = 'reader'\nversion = '1'\nworld = 'extractor'\n[extractor]\nmedia-types = ['{MEDIA_TYPE}']\n\
         [capabilities]\nruntime = true\n"
    );
    let manifest = PluginManifest::parse(&text).expect("a manifest");
    let (component, granted) = (Guest::Untar.component(), manifest.capabilities.clone());
    let reader = sandbox().plugin("reader", &manifest, component, &granted, &BTreeMap::new()).expect("a reader");
    let mut extensions = Extensions::default();
    extensions.add(reader).expect("an extractor");
    extensions.add(trial.program("inspector").expect("a plugin")).expect("an inspector");
    Unpacker::new(sandbox().clone(), Limits::default()).with_extensions(extensions)
}

fn layer() -> Layer {
    let tar = layers::tar(&[Item::File("a", b"a".to_vec()), Item::File("b", b"b".to_vec())]).expect("a layer");
    Layer::new(std::io::Cursor::new(tar)).with_media_type(MEDIA_TYPE)
}

/// Both can wait: one of them within a host call of the other.
#[test]
fn both_run() {
    let report = unpacker(&Trial::new("sleep 1").setting("report", "3")).inspect(layer()).expect("a report");
    assert_eq!((report.entries, report.reports.len(), report.reports[0].report.len()), (2, 1, 3));
    assert!(report.reader.is_some(), "the plugin did not read it");
}

/// Whoever waits for a layer may give up, also while a plugin that looks on waits for somebody else.
#[test]
fn both_are_given_up() {
    let cancel = Cancel::new();
    let told = cancel.clone();
    let server = Server::new(move |_, stream| {
        told.cancel();
        drain(stream);
    });
    let url = server.at("127.0.0.1");
    let trial = Trial::new(format!("get {url}/")).http(&url);
    let error = unpacker(&trial).inspect(layer().with_cancel(cancel)).expect_err("it was given up");
    assert!(matches!(error.root(), Error::Interrupted), "{error:?}");
}
