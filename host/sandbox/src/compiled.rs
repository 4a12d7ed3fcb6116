//! The cache of compiled guests: machine code on disk, which this user's processes run.
//!
//! ```text
//! <cache>/key                  32 random bytes, this user's alone
//! <cache>/<64 hex>.native      32 bytes of HMAC-SHA-256, then what the engine serialized
//! <cache>/<64 hex>.<uuid>.new  one that is being written
//! ```
//!
//! An entry's name is a hash of all that made it: the component's digest, this crate's version, and the engine's version,
//! settings and processor features. Its HMAC covers name and content.
//!
//! # Why it is believed
//!
//! Whoever can put a file here runs code as this user, so everything is checked on the handle that is then used, and nothing is
//! looked up by path a second time: the directory comes from [`ambient::trusted_dir`], below which no other user can exchange
//! anything; an entry is opened without following links, must be a regular file of this user's with one name, closed to
//! others, and is read into memory once; those bytes are what the HMAC is checked on and what is loaded. The key lies behind
//! the same checks. A directory that was open to others for a while therefore gives them nothing: they cannot have read the
//! key, and a key of their own is not this user's file.
//!
//! Anything odd means compiling, and a warning. What is odd is replaced.

use std::fs::File;
use std::hash::{Hash as _, Hasher};
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use cap_std::fs::Dir;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use cofferdam_core::ambient;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::Error;

/// What all entries may take together, in bytes. The ones that were not used for longest go first.
const ROOM: u64 = 512 << 20;

/// The largest entry, in bytes. A first-party guest's has half a million, that of an interpreter some ten millions.
const LARGEST: u64 = 256 << 20;

/// How exactly the last use of an entry is known.
const GRAIN: Duration = Duration::from_hours(24);

/// How long a file that is being written may take, before it counts as left over.
const WRITING: Duration = Duration::from_hours(1);

const KEY: &str = "key";
const ENTRY: &str = ".native";
const NEW: &str = ".new";

/// Bytes of a key, and of an HMAC.
const MAC: usize = 32;

/// Compiled guests on disk.
pub(super) struct Compiled {
    dir: Dir,
    key: [u8; MAC],
    /// The hash of what all entries of this engine have in common.
    engine: [u8; MAC],
    warned: AtomicBool,
}

impl Compiled {
    /// Opens the cache at `path`, which is made if it is absent. Nothing if it is not to be trusted, and a warning then.
    pub(super) fn open(path: &Path, engine: &Engine) -> Option<Self> {
        let opened = ambient::trusted_dir(path).and_then(|dir| {
            let failed = |error| Error::io("use the key in", path.as_os_str().as_encoded_bytes(), error);
            let key = key(&dir).map_err(failed)?;
            Ok(Self { dir, key, engine: fingerprint(engine), warned: AtomicBool::new(false) })
        });
        let unused = |error: &Error| {
            tracing::warn!(error = error as &dyn std::error::Error, "compiled guests are not kept");
        };
        opened.inspect_err(unused).ok()
    }

    /// The compiled form of a component, if there is one that can be believed.
    pub(super) fn load(&self, engine: &Engine, component: &Digest) -> Option<Component> {
        let name = self.name(component);
        let bytes = match self.read(&name) {
            Ok(bytes) => bytes?,
            Err(error) => {
                self.warn(&name, &error);
                return None;
            }
        };
        #[expect(unsafe_code, reason = "the only way to load what was compiled before")]
        // SAFETY: the bytes must be what this engine, or one of the same version and settings, serialized. Their HMAC says so:
        // it was made with a key that only this user's processes can read or replace, over these very bytes, in `store` below,
        // which is given nothing else, and over a name that stands for the engine's version and settings. They are in memory
        // of this process and cannot change any more.
        let loaded = unsafe { Component::deserialize(engine, bytes) };
        loaded.inspect_err(|error| self.warn(&name, &io::Error::other(format!("{error:#}")))).ok()
    }

    /// Keeps a compiled component: `serialized` is what the engine made of it in this process.
    pub(super) fn store(&self, component: &Digest, serialized: &[u8]) {
        let name = self.name(component);
        if let Err(error) = self.write(&name, serialized).and_then(|()| self.evict(&name)) {
            self.warn(&name, &error);
        }
    }

    /// The name of a component's entry.
    fn name(&self, component: &Digest) -> String {
        let hash = Sha256::new().chain_update(self.engine).chain_update(component.to_string());
        format!("{}{ENTRY}", hex(&hash.finalize()))
    }

    /// What an entry holds, once its HMAC is verified; nothing if there is no such entry.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let Some((file, size)) = open_own(&self.dir, name)? else { return Ok(None) };
        let size = size.checked_sub(MAC as u64).filter(|size| *size <= LARGEST).ok_or_else(|| odd("its size"))?;
        let (mut expected, mut bytes) = ([0; MAC], Vec::new());
        bytes.try_reserve_exact(usize::try_from(size).map_err(io::Error::other)?)?;
        (&file).read_exact(&mut expected)?;
        (&file).take(size).read_to_end(&mut bytes)?;
        if !same(&mac(&self.key, name, &bytes), &expected) {
            return Err(odd("its HMAC"));
        }
        note_use(&file)?;
        Ok(Some(bytes))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() as u64 > LARGEST {
            return Ok(());
        }
        let mac = mac(&self.key, name, bytes);
        let staged = format!("{}.{}{NEW}", name.trim_end_matches(ENTRY), uuid::Uuid::new_v4().simple());
        let mut file = create(&self.dir, &staged)?;
        let written = file.write_all(&mac).and_then(|()| file.write_all(bytes));
        let named = written.and_then(|()| Ok(rustix::fs::renameat(&self.dir, &staged, &self.dir, name)?));
        if named.is_err() {
            let _ = rustix::fs::unlinkat(&self.dir, &staged, AtFlags::empty());
        }
        named
    }

    /// Removes what was not used for longest until the rest has room, but for the entry that is new.
    fn evict(&self, new: &str) -> io::Result<()> {
        let mut entries = Vec::new();
        let mut total = 0_u64;
        for entry in self.dir.entries()? {
            let Ok(name) = entry?.file_name().into_string() else { continue };
            let Ok(stat) = rustix::fs::statat(&self.dir, &*name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if !FileType::from_raw_mode(stat.st_mode).is_file() {
                continue;
            }
            let used = time(stat.st_mtime);
            if is_staged(&name) {
                if is_older(used, WRITING) {
                    let _ = rustix::fs::unlinkat(&self.dir, &*name, AtFlags::empty());
                }
            } else if is_entry(&name) {
                let size = u64::try_from(stat.st_size).unwrap_or(0);
                total = total.saturating_add(size);
                entries.push((used, size, name));
            }
        }
        entries.sort_unstable();
        for (_, size, name) in entries {
            if total <= ROOM {
                break;
            }
            if name != new {
                rustix::fs::unlinkat(&self.dir, &*name, AtFlags::empty())?;
                total = total.saturating_sub(size);
            }
        }
        Ok(())
    }

    fn warn(&self, name: &str, error: &io::Error) {
        if self.warned.swap(true, Ordering::Relaxed) {
            tracing::debug!(entry = name, %error, "a compiled guest is not used, or not kept");
        } else {
            tracing::warn!(entry = name, %error, "a compiled guest is not used, or not kept");
        }
    }
}

/// The key of a cache, made if there is none, and made anew if it cannot be this user's.
fn key(dir: &Dir) -> io::Result<[u8; MAC]> {
    let read = || -> io::Result<Option<[u8; MAC]>> {
        let Some((file, size)) = open_own(dir, KEY)? else { return Ok(None) };
        if size != MAC as u64 {
            return Err(odd("its size"));
        }
        let mut key = [0; MAC];
        (&file).read_exact(&mut key)?;
        note_use(&file)?;
        Ok(Some(key))
    };
    match read() {
        Ok(Some(key)) => return Ok(key),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, "the key of the compiled guests is replaced");
            rustix::fs::unlinkat(dir, KEY, AtFlags::empty())?;
        }
    }
    // Two times 122 random bits.
    let random = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
    let key: [u8; MAC] = Sha256::new().chain_update(random[0]).chain_update(random[1]).finalize().into();
    let staged = format!("{}.{}{NEW}", "0".repeat(2 * MAC), uuid::Uuid::new_v4().simple());
    let mut file = create(dir, &staged)?;
    let made = file.write_all(&key).and_then(|()| file.sync_all()).and_then(|()| {
        // Of several processes that make one at once, the first one's counts; where the file system cannot say so, the last
        // one's, and what the others keep is made again.
        match rustix::fs::renameat_with(dir, &staged, dir, KEY, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL) => Ok(rustix::fs::renameat(dir, &staged, dir, KEY)?),
            made => Ok(made?),
        }
    });
    if let Err(error) = made {
        let _ = rustix::fs::unlinkat(dir, &staged, AtFlags::empty());
        if error.kind() != io::ErrorKind::AlreadyExists {
            return Err(error);
        }
    }
    read()?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Opens a regular file of this user's, which nobody else can open and which has no other name; with its size. Nothing if there
/// is none.
fn open_own(dir: &Dir, name: &str) -> io::Result<Option<(File, u64)>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&file)?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(odd("what it is"));
    }
    if stat.st_uid != rustix::process::geteuid().as_raw() {
        return Err(odd("its owner"));
    }
    if stat.st_mode & 0o077 != 0 {
        return Err(odd("its mode"));
    }
    if stat.st_nlink != 1 {
        return Err(odd("the number of its names"));
    }
    Ok(Some((file, u64::try_from(stat.st_size).unwrap_or(0))))
}

fn create(dir: &Dir, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Sets a file's time to now if it says that it was not used lately.
fn note_use(file: &File) -> io::Result<()> {
    if is_older(time(rustix::fs::fstat(file)?.st_mtime), GRAIN) {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        // Where nothing can be written, it is not noted.
        let _ = rustix::fs::futimens(file, &Timestamps { last_access: now, last_modification: now });
    }
    Ok(())
}

fn time(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn is_older(time: SystemTime, than: Duration) -> bool {
    ambient::now().duration_since(time).is_ok_and(|age| age > than)
}

fn is_entry(name: &str) -> bool {
    name.strip_suffix(ENTRY).is_some_and(|stem| stem.len() == 2 * MAC && is_hex(stem))
}

fn is_staged(name: &str) -> bool {
    let parts = name.strip_suffix(NEW).and_then(|stem| stem.split_once('.'));
    parts.is_some_and(|(entry, unique)| entry.len() == 2 * MAC && is_hex(entry) && is_hex(unique))
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn odd(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what} is not what it should be"))
}

/// The hash of what decides how this engine compiles, and whether it can load what another one compiled.
fn fingerprint(engine: &Engine) -> [u8; MAC] {
    struct Into<'a>(&'a mut Sha256);
    impl Hasher for Into<'_> {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        fn finish(&self) -> u64 {
            0
        }
    }
    let mut hash = Sha256::new().chain_update("compiled guests 1 ").chain_update(env!("CARGO_PKG_VERSION"));
    engine.precompile_compatibility_hash().hash(&mut Into(&mut hash));
    hash.finalize().into()
}

/// HMAC-SHA-256 (RFC 2104) of an entry: its name, which has one length, and its content.
fn mac(key: &[u8; MAC], name: &str, content: &[u8]) -> [u8; MAC] {
    let pad = |byte: u8| {
        let mut block = [byte; 64];
        block.iter_mut().zip(key).for_each(|(block, key)| *block ^= key);
        block
    };
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(name).chain_update(content).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into()
}

/// Compares in a time that does not depend on where they differ.
fn same(one: &[u8; MAC], other: &[u8; MAC]) -> bool {
    one.iter().zip(other).fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests work with paths")]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
    use std::path::PathBuf;

    use super::super::{Guest, Sandbox, SandboxOptions};
    use super::*;

    /// RFC 4231, test case 1, whose key is shorter than ours and so filled up with zeros, as HMAC does.
    #[test]
    fn the_mac_is_hmac_sha_256() {
        let mut key = [0; MAC];
        key[..20].fill(0x0b);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hex(&mac(&key, "", b"Hi There")), expected);
        assert_eq!(hex(&mac(&key, "Hi ", b"There")), expected);
    }

    /// A component that compiles in no time. `number` makes it another one.
    fn small(number: u32) -> Vec<u8> {
        wat::parse_str(format!("(component (core module (func (result i32) (i32.const {number}))))")).unwrap()
    }

    struct Fixture {
        temp: tempfile::TempDir,
        engine: Engine,
    }

    impl Fixture {
        fn new() -> Self {
            let mut config = wasmtime::Config::new();
            config.wasm_component_model(true);
            Self { temp: tempfile::tempdir().unwrap(), engine: Engine::new(&config).unwrap() }
        }

        fn path(&self) -> PathBuf {
            self.temp.path().join("cache")
        }

        fn cache(&self) -> Compiled {
            Compiled::open(&self.path(), &self.engine).unwrap()
        }

        /// Keeps the compiled form of a component. The path of its entry.
        fn keep(&self, number: u32) -> PathBuf {
            let (cache, component) = (self.cache(), small(number));
            cache.store(&Digest::of(&component), &self.engine.precompile_component(&component).unwrap());
            self.path().join(cache.name(&Digest::of(&component)))
        }

        fn loads(&self, number: u32) -> bool {
            self.cache().load(&self.engine, &Digest::of(&small(number))).is_some()
        }
    }

    #[test]
    fn what_was_compiled_is_found_again() {
        let fixture = Fixture::new();
        let entry = fixture.keep(1);
        assert!(fixture.loads(1) && !fixture.loads(2));
        for path in [entry, fixture.path().join(KEY)] {
            assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o600, "{}", path.display());
        }
        assert_eq!(fixture.path().read_dir().unwrap().count(), 2);
    }

    /// Everything in which an entry can be somebody else's work: then it is not loaded, and is replaced.
    #[test]
    fn an_entry_that_could_be_another_users_is_not_loaded() {
        type Change = (&'static str, fn(&Path, &Path));
        let changes: &[Change] = &[
            ("a bit of its code", |entry, _| edit(entry, |bytes| *bytes.last_mut().unwrap() ^= 1)),
            ("a bit of its HMAC", |entry, _| edit(entry, |bytes| bytes[0] ^= 1)),
            ("cut short", |entry, _| edit(entry, |bytes| bytes.truncate(bytes.len() - 1))),
            ("empty", |entry, _| edit(entry, Vec::clear)),
            ("another component's", |entry, other| assert_ne!(std::fs::copy(other, entry).unwrap(), 0)),
            ("readable for others", |entry, _| mode(entry, 0o604)),
            ("writable for others", |entry, _| mode(entry, 0o622)),
            ("of two names", |entry, _| std::fs::hard_link(entry, entry.with_extension("second")).unwrap()),
            ("a link", |entry, _| {
                std::fs::rename(entry, entry.with_extension("moved")).unwrap();
                symlink(entry.with_extension("moved"), entry).unwrap();
            }),
        ];
        for (what, change) in changes {
            let fixture = Fixture::new();
            let (entry, other) = (fixture.keep(1), fixture.keep(2));
            change(&entry, &other);
            assert!(!fixture.loads(1), "{what}");
            assert_eq!(fixture.keep(1), entry);
            assert!(fixture.loads(1), "{what}: it was not replaced");
        }
        if rustix::process::geteuid().is_root() {
            let fixture = Fixture::new();
            std::os::unix::fs::chown(fixture.keep(1), Some(1), Some(1)).unwrap();
            assert!(!fixture.loads(1), "of another user");
            std::os::unix::fs::chown(fixture.path().join(KEY), Some(1), Some(1)).unwrap();
            fixture.keep(1);
            assert_eq!(fixture.path().join(KEY).metadata().unwrap().uid(), 0, "a key of another user's was used");
        }
    }

    fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_new_key_makes_all_entries_strange() {
        let fixture = Fixture::new();
        fixture.keep(1);
        let before = std::fs::read(fixture.path().join(KEY)).unwrap();
        for spoil in [|path: &Path| std::fs::remove_file(path).unwrap(), |path: &Path| mode(path, 0o644)] {
            spoil(&fixture.path().join(KEY));
            assert!(!fixture.loads(1));
            assert_ne!(std::fs::read(fixture.path().join(KEY)).unwrap(), before);
            fixture.keep(1);
            assert!(fixture.loads(1));
        }
    }

    #[test]
    fn an_engine_with_other_settings_has_entries_of_its_own() {
        let fixture = Fixture::new();
        fixture.keep(1);
        let mut config = wasmtime::Config::new();
        config.wasm_component_model(true).epoch_interruption(true);
        let other = Engine::new(&config).unwrap();
        let cache = Compiled::open(&fixture.path(), &other).unwrap();
        assert!(cache.load(&other, &Digest::of(&small(1))).is_none() && fixture.loads(1));
    }

    #[test]
    fn what_was_not_used_for_longest_makes_room() {
        let fixture = Fixture::new();
        let day = Duration::from_hours(24);
        let large = |number: u8, age: Duration, ending: &str| {
            let path = fixture.path().join(format!("{}{ending}", format!("{number:02x}").repeat(MAC)));
            let file = File::create(&path).unwrap();
            file.set_len(ROOM / 3).unwrap();
            file.set_modified(SystemTime::now() - age).unwrap();
            path
        };
        fixture.keep(1);
        let ([old, newer], newest) =
            ([9, 5].map(|days| large(days, day * u32::from(days), ENTRY)), large(1, day, ENTRY));
        let (left, begun) = (large(7, 2 * day, ".aa.new"), large(8, Duration::ZERO, ".aa.new"));
        let entry = fixture.keep(2);
        assert!(!old.exists() && newer.exists() && newest.exists() && entry.exists());
        assert!(!left.exists() && begun.exists() && fixture.path().join(KEY).exists());
    }

    /// The cache of somebody else's home directory, as `sudo -E` leads to it: it is not read, and nothing is made there.
    #[test]
    fn a_cache_below_another_users_directory_is_left_alone() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let home = temp.path().join("home");
        std::fs::create_dir_all(home.join("own/cache")).unwrap();
        std::os::unix::fs::chown(&home, Some(1), Some(1)).unwrap();
        for dir in ["own/cache", "none/cache"] {
            let dir = home.join(dir);
            let sandbox = Sandbox::new(&SandboxOptions::default().with_cache(&dir).with_guest(Guest::Untar, small(1)));
            sandbox.unwrap().builtin(Guest::Untar).unwrap();
        }
        assert!(!home.join("none").exists() && home.join("own/cache").read_dir().unwrap().next().is_none());
    }
}
