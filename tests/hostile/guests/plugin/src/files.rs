//! Attempts on files.

use std::fs::{self, File};
use std::io::{self, Write as _};

use crate::Outcome;

pub(crate) fn attempt(verb: &str, rest: &str) -> Outcome {
    let words: Vec<_> = rest.split(' ').collect();
    let word = |at: usize| words.get(at).copied().ok_or("a word is missing");
    let number = |at: usize| word(at)?.parse::<u64>().map_err(|_| "a number is missing");
    let done = |outcome: io::Result<()>| outcome.map(|()| "done".to_owned());
    let path = word(0)?;
    let outcome = match verb {
        "read" => fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned()),
        "list" => list(path),
        "write" => done(File::create(path).and_then(|file| write(&file, number(1).unwrap_or(1)))),
        "sparse" => {
            let size = number(1)?;
            done(File::create(path).and_then(|file| file.set_len(size)))
        }
        "unlinked" => {
            let size = number(1)?;
            done(File::create(path).and_then(|file| {
                fs::remove_file(path)?;
                write(&file, size)?;
                // It stays open.
                #[allow(clippy::forget_non_drop, reason = "a file is nothing where there is no WASI")]
                std::mem::forget(file);
                Ok(())
            }))
        }
        "many" => {
            let count = number(1)?;
            done((0..count).try_for_each(|n| File::create(format!("{path}/{n}")).map(drop)))
        }
        "deep" => {
            let depth = number(1)?;
            let mut path = path.to_owned();
            done((0..depth).try_for_each(|_| {
                path.push_str("/d");
                fs::create_dir(&path)
            }))
        }
        "mkdir" => done(fs::create_dir(path)),
        "remove" => done(fs::remove_file(path)),
        "rename" => done(fs::rename(path, word(1)?)),
        "symlink" => return symlink(path, word(1)?),
        "link" => done(fs::hard_link(path, word(1)?)),
        "times" => done(File::open(path).and_then(|file| file.set_modified(std::time::SystemTime::UNIX_EPOCH))),
        _ => return Err("no such attempt".into()),
    };
    outcome.map_err(|error| format!("{:?}", error.kind()))
}

/// The standard library has no stable way to do it.
fn symlink(target: &str, path: &str) -> Outcome {
    for (directory, name) in wasip2::filesystem::preopens::get_directories() {
        if let Some(path) = path.strip_prefix(&format!("{name}/")) {
            return directory.symlink_at(target, path).map(|()| "done".to_owned()).map_err(|code| format!("{code:?}"));
        }
    }
    Err("no such directory".into())
}

fn list(path: &str) -> io::Result<String> {
    let mut names = fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(format!("[{}]", names.join(" ")))
}

fn write(mut file: &File, size: u64) -> io::Result<()> {
    let chunk = vec![b'x'; 64 << 10];
    let mut left = size;
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(chunk.len()).min(chunk.len());
        file.write_all(&chunk[..now])?;
        left -= now as u64;
    }
    Ok(())
}
