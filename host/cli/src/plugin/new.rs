//! `plugin new`: a plugin to begin with, which builds as it is.

use std::path::{Path, PathBuf};

use cofferdam::ambient;
use cofferdam::plugin::{World, check_name};
use serde_json::json;

use crate::failure::{Failure, usage};
use crate::output;
use crate::session::{Session, shown};

/// Where the templates lie in the repository.
const TEMPLATE: &str = "guests/sdk/template/";

/// The repository's files of which scaffolds are made (`build.rs`).
const FILES: &[(&str, &[u8])] = &include!(concat!(env!("OUT_DIR"), "/scaffold.rs"));

/// Files of a template in which the plugin's name is written.
const NAMED: [&str; 3] = ["Cargo.toml", "plugin.toml", "README.md"];

pub(crate) fn run(session: &Session, world: World, directory: &Path) -> Result<(), Failure> {
    let name = directory.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| usage(format!("{} has no name", shown(directory)), None))?;
    check_name(name)?;
    session.bare_wall()?.make(directory)?.enforce()?;
    if !ambient::is_absent_or_empty(directory)? {
        let hint = "give the name of a directory that is absent or empty";
        return Err(usage(format!("{} holds something", shown(directory)), Some(hint.into())));
    }
    let own = format!("{world}/");
    for (path, content) in FILES {
        let Some(of_template) = path.strip_prefix(TEMPLATE) else {
            // What the plugin needs of us, as it is in this version.
            write(&directory.join("cofferdam").join(path), content)?;
            continue;
        };
        let Some(file) = of_template.strip_prefix("common/").or_else(|| of_template.strip_prefix(own.as_str())) else {
            continue;
        };
        let target = directory.join(file);
        if NAMED.contains(&file) {
            write(&target, String::from_utf8_lossy(content).replace("{{name}}", name).as_bytes())?;
        } else {
            write(&target, content)?;
        }
        if Path::new(file).extension().is_some_and(|ending| ending == "sh") {
            ambient::make_executable(&target)?;
        }
    }
    if session.json() {
        let object =
            json!({ "schema": "cofferdam/plugin-new/v1", "path": shown(directory), "name": name, "world": world });
        return output::json(&object);
    }
    output::line(&format!("{}: a plugin of the world {world}; build it with ./build.sh", shown(directory)))
}

fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(usage(format!("{} names no file", shown(path)), None));
    };
    let parent = if parent == Path::new("") { PathBuf::from(".") } else { parent.to_owned() };
    Ok(ambient::write_file(&parent, name, content)?)
}
