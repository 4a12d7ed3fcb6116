//! Plugins that were damaged on disk, and components that nobody needs.

use cofferdam_core::progress::Progress;
use cofferdam_documents::plugin::{Capabilities, pack};

use super::*;
use crate::plugins::{component_name, note_name};

fn component(name: &str) -> Vec<u8> {
    let bare = wat::parse_str("(component)").unwrap();
    pack(bare, &format!("name = '{name}'\nversion = '1'\nworld = 'inspector'\n")).unwrap()
}

fn add(plugins: &mut Plugins, name: &str, component: &[u8], replace: bool) -> Result<(InstalledPlugin, Added)> {
    plugins.add(Some(name), component, "here", &Capabilities::default(), replace)
}

/// A store with the plugins `one` and `two`.
fn equipped() -> (Fixture, Plugins, [InstalledPlugin; 2]) {
    let fixture = Fixture::new();
    let mut plugins = fixture.storage.plugins().unwrap();
    let installed = ["one", "two"].map(|name| add(&mut plugins, name, &component(name), false).unwrap().0);
    (fixture, plugins, installed)
}

fn note(fixture: &Fixture, name: &str) -> std::path::PathBuf {
    fixture.path("plugins").join(note_name(name))
}

fn file(fixture: &Fixture, plugin: &InstalledPlugin) -> std::path::PathBuf {
    fixture.path("plugins").join(component_name(&plugin.digest))
}

/// What `fsck` finds: the part, the problem, the subject, and whether it was repaired.
fn fsck(fixture: &Fixture, repair: bool) -> Vec<(Part, Problem, String, bool)> {
    let options = FsckOptions { repair, ..FsckOptions::default() };
    let report = fixture.storage.fsck(&options, &Progress::default()).unwrap();
    assert_eq!(report.is_damaged(), report.findings.iter().any(|finding| finding.damage && !finding.repaired));
    report.findings.into_iter().map(|found| (found.part, found.problem, found.subject, found.repaired)).collect()
}

fn gc(fixture: &Fixture, dry_run: bool) -> Collected {
    fixture.storage.gc(&GcOptions { dry_run, ..GcOptions::default() }).unwrap()
}

fn freed(collected: &Collected) -> Vec<(Kind, &str)> {
    collected.freed.iter().map(|freed| (freed.kind, freed.path.as_str())).collect()
}

/// Each way in which a note can be no note.
fn damage(path: &Path, how: u32) {
    match how {
        0 => std::fs::write(path, "{").unwrap(),
        1 => std::fs::write(path, "").unwrap(),
        2 => std::fs::write(path, std::fs::read_to_string(path).unwrap().replace("\"one\"", "\"three\"")).unwrap(),
        3 => std::fs::write(path, vec![b' '; (1 << 20) + 1]).unwrap(),
        _ => {
            std::fs::remove_file(path).unwrap();
            if how == 4 {
                std::fs::create_dir(path).unwrap();
            } else {
                std::os::unix::fs::symlink("two.json", path).unwrap();
            }
        }
    }
}

const DAMAGES: std::ops::Range<u32> = 0..6;

#[test]
fn a_damaged_note_is_in_the_way_of_its_own_plugin_alone() {
    for how in DAMAGES {
        let (fixture, mut plugins, [one, two]) = equipped();
        damage(&note(&fixture, "one"), how);
        assert!(matches!(plugins.get("one"), Err(Error::Damaged { .. })), "{how}");
        assert!(plugins.list().is_err(), "{how}");
        let (readable, damaged) = plugins.survey().unwrap();
        assert_eq!((readable, damaged.len()), (vec![two.clone()], 1), "{how}");
        assert!(damaged[0].to_string().contains("`one`") && damaged[0].hint().is_some(), "{how}: {}", damaged[0]);
        // Whose the component is that `two` had is not known as long as there is a damaged note.
        let (new, added) = add(&mut plugins, "two", &component("new"), true).unwrap();
        assert_eq!(added, Added::Replaced, "{how}");
        assert!(file(&fixture, &one).exists() && file(&fixture, &two).exists(), "{how}");
        plugins.remove("two").unwrap().unwrap();
        assert!(file(&fixture, &new).exists(), "{how}");
        // Adding it again mends it, without `replace` and with another component; what nobody needs goes.
        assert_eq!(add(&mut plugins, "one", &component("other"), false).unwrap().1, Added::New, "{how}");
        assert_eq!(plugins.list().unwrap().len(), 1, "{how}");
        assert_eq!(plugins.components().unwrap().len(), 1, "{how}");
    }
}

#[test]
fn a_plugin_with_a_damaged_note_can_be_removed() {
    for how in DAMAGES {
        let (fixture, mut plugins, [one, two]) = equipped();
        damage(&note(&fixture, "one"), how);
        assert_eq!(plugins.remove("one").unwrap(), None, "{how}");
        assert!(note(&fixture, "one").symlink_metadata().is_err(), "{how}");
        assert!(!file(&fixture, &one).exists() && file(&fixture, &two).exists(), "{how}");
        assert!(matches!(plugins.remove("one"), Err(Error::NotFound { .. })), "{how}");
        assert_eq!(plugins.list().unwrap(), [two], "{how}");
    }
}

#[test]
fn fsck_finds_damaged_notes_and_sets_them_aside() {
    for how in DAMAGES {
        let (fixture, plugins, [one, two]) = equipped();
        assert_eq!(fsck(&fixture, false), []);
        damage(&note(&fixture, "one"), how);
        assert_eq!(fsck(&fixture, false), [(Part::Plugin, Problem::Damaged, "one".into(), false)], "{how}");
        assert!(note(&fixture, "one").symlink_metadata().is_ok(), "{how}: a check changes nothing");
        assert_eq!(fsck(&fixture, true), [(Part::Plugin, Problem::Damaged, "one".into(), true)], "{how}");
        let aside = |name: &String| name.starts_with("one.json.") && name.ends_with(".damaged");
        assert_eq!(names(&fixture.path("plugins")).iter().filter(|name| aside(name)).count(), 1, "{how}");
        assert!(matches!(plugins.get("one"), Err(Error::NotFound { .. })), "{how}");
        assert_eq!(plugins.list().unwrap(), [two], "{how}");
        assert!(file(&fixture, &one).exists(), "{how}");
        gc(&fixture, false);
        assert!(!file(&fixture, &one).exists(), "{how}");
    }
}

#[test]
fn fsck_finds_damaged_components_and_removes_them() {
    let (fixture, mut plugins, [one, _]) = equipped();
    let path = file(&fixture, &one);
    let damaged = |repaired| {
        let component = (Part::PluginComponent, Problem::Damaged, one.digest.to_string(), repaired);
        [(Part::Plugin, Problem::Incomplete, "one".to_owned(), false), component]
    };
    let junk = [component("one"), b"junk".to_vec()].concat();
    for bytes in [&b""[..], &junk, &component("other")] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(fsck(&fixture, false), damaged(false));
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "a check changes nothing");
        assert_eq!(fsck(&fixture, true), damaged(true));
        assert!(!path.exists());
        // Missing now, which only adding it again mends.
        assert_eq!(fsck(&fixture, true), damaged(true)[..1]);
        assert!(matches!(plugins.component(&plugins.get("one").unwrap()), Err(Error::Damaged { .. })));
        assert_eq!(add(&mut plugins, "one", &component("one"), false).unwrap().1, Added::Same);
        assert_eq!(fsck(&fixture, false), []);
    }
    // What is no file is somebody's.
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("mine"), "x").unwrap();
    assert_eq!(fsck(&fixture, true), damaged(true));
    let aside = names(&fixture.path("plugins")).into_iter().find(|name| name.ends_with(".damaged")).unwrap();
    assert!(fixture.path("plugins").join(aside).join("mine").exists());
}

/// Who is killed between the two files leaves a component without a note.
#[test]
fn components_that_no_note_names_are_freed() {
    let (fixture, mut plugins, [one, two]) = equipped();
    std::fs::remove_file(note(&fixture, "one")).unwrap();
    let path = format!("plugins/{}", component_name(&one.digest));
    let rehearsed = gc(&fixture, true);
    assert_eq!(freed(&rehearsed), [(Kind::Plugin, &*path)]);
    assert_eq!(fixture.storage.usage().unwrap().reclaimable, rehearsed.bytes);
    assert!(rehearsed.bytes > 0 && fixture.path(&path).exists());
    let done = gc(&fixture, false);
    assert_eq!((&done.freed, done.bytes, done.remaining), (&rehearsed.freed, rehearsed.bytes, rehearsed.remaining));
    assert!(!fixture.path(&path).exists());
    assert_eq!(plugins.component(&two).unwrap(), component("two"), "another one has a note");
    assert_eq!(freed(&gc(&fixture, false)), []);

    // The next who changes the plugins frees them too.
    add(&mut plugins, "one", &component("one"), false).unwrap();
    std::fs::remove_file(note(&fixture, "one")).unwrap();
    plugins.remove("two").unwrap();
    assert_eq!(names(&fixture.path("plugins")), [""; 0]);
    assert_nothing_staged(&fixture);
}

/// Any of them may be the component of the plugin whose note cannot be read.
#[test]
fn components_are_kept_while_a_note_cannot_be_read() {
    let (fixture, plugins, [one, _]) = equipped();
    std::fs::write(note(&fixture, "one"), "{").unwrap();
    for dry_run in [true, false] {
        let collected = gc(&fixture, dry_run);
        assert_eq!(freed(&collected), []);
        assert_eq!(collected.kept.len(), 1, "{collected:?}");
        assert!(collected.kept[0].why.contains("`one`"), "{collected:?}");
    }
    assert_eq!(fixture.storage.usage().unwrap().reclaimable, 0);
    assert!(file(&fixture, &one).exists());
    // With a component that is another plugin's, there is nothing that could be freed, and so nothing to say.
    std::fs::remove_file(file(&fixture, &one)).unwrap();
    assert_eq!(gc(&fixture, false).kept, []);
    drop(plugins);
}

/// An `add` writes the component first: while it is at work, what no note names may get one.
#[test]
fn components_are_kept_while_somebody_is_at_work_on_the_plugins() {
    let (fixture, _, [one, _]) = equipped();
    std::fs::remove_file(note(&fixture, "one")).unwrap();
    let lock = fixture.reopen().locks().acquire(crate::plugins::LOCK).unwrap();
    for dry_run in [true, false] {
        assert_eq!(freed(&gc(&fixture, dry_run)), []);
    }
    assert!(file(&fixture, &one).exists());
    drop(lock);
    assert_eq!(freed(&gc(&fixture, false)).len(), 1);
}
