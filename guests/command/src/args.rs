//! The command line.

use std::path::PathBuf;

use crate::digest::Digest;
use crate::limits::Limits;
use crate::problem::Problem;
use crate::tree::Mode;

pub(crate) const USAGE: &str = "\
usage: cofferdam-layer list    [OPTION …] LAYER
       cofferdam-layer extract [OPTION …] LAYER DEST
       cofferdam-layer verify  [OPTION …] LAYER

LAYER is a file, or - for standard input: tar, alone or compressed by gzip or zstd. DEST is a directory, made if it is missing.

  --diff-id DIGEST      what the decoded bytes must hash to (sha256:… or sha512:…)
  --mode MODE           apply (default): DEST may hold the lower layers, and whiteouts remove what they hold;
                        preserve: DEST is empty, and whiteouts are kept as empty files
  --limit NAME=VALUE    one of the limits that `cofferdam limits` lists

exit codes: 0 ok, 1 something outside of the layer failed, 2 usage, 3 not found, 6 integrity, 7 refused";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    List,
    Extract { dest: PathBuf, mode: Mode },
    Verify,
    Help,
}

/// A command line that makes sense.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) verb: Verb,
    pub(crate) layer: String,
    pub(crate) diff_id: Option<Digest>,
    pub(crate) limits: Limits,
}

impl Args {
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> Result<Self, Problem> {
        let mut words = words;
        let mut plain = Vec::new();
        let (mut diff_id, mut mode, mut limits) = (None, None, Limits::default());
        let mut options = true;
        while let Some(word) = words.next() {
            if !options || word == "-" || !word.starts_with('-') {
                plain.push(word);
                continue;
            }
            let (option, value) = match word.split_once('=') {
                Some((option, value)) => (option.to_owned(), Some(value.to_owned())),
                None => (word, None),
            };
            let mut value =
                || value.clone().or_else(|| words.next()).ok_or_else(|| usage(&format!("{option} wants a value")));
            match option.as_str() {
                "--" => options = false,
                "--help" | "-h" => plain = vec!["help".into()],
                "--diff-id" => diff_id = Some(Digest::parse(&value()?)?),
                "--limit" => limits.set(&value()?)?,
                "--mode" => {
                    mode = Some(match value()?.as_str() {
                        "apply" => Mode::Apply,
                        "preserve" => Mode::Preserve,
                        "overlay" => {
                            return Err(usage("--mode overlay wants devices and attributes, which WASI cannot make"));
                        }
                        other => return Err(usage(&format!("there is no mode `{}`", other.escape_default()))),
                    });
                }
                _ => return Err(usage(&format!("there is no option {}", option.escape_default()))),
            }
        }
        let mut plain = plain.into_iter();
        let verb = plain.next().ok_or_else(|| usage("nothing to do"))?;
        if verb == "help" {
            return Ok(Self { verb: Verb::Help, layer: String::new(), diff_id, limits });
        }
        let layer = plain.next();
        let verb = match verb.as_str() {
            "list" => Verb::List,
            "verify" => Verb::Verify,
            "extract" => {
                let dest = plain.next().ok_or_else(|| usage("extract wants LAYER and DEST"))?;
                Verb::Extract { dest: dest.into(), mode: mode.take().unwrap_or_default() }
            }
            other => return Err(usage(&format!("there is no verb `{}`", other.escape_default()))),
        };
        if mode.is_some() {
            return Err(usage("--mode is for extract"));
        }
        match (layer, plain.next()) {
            (Some(layer), None) => Ok(Self { verb, layer, diff_id, limits }),
            (None, _) => Err(usage("which LAYER?")),
            (_, Some(extra)) => Err(usage(&format!("`{}` is one word too many", extra.escape_default()))),
        }
    }
}

fn usage(reason: &str) -> Problem {
    Problem::Usage(format!("{reason}\n{USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, Problem> {
        Args::parse(line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned))
    }

    #[test]
    fn lines_that_make_sense() {
        let args = parse("extract --mode=preserve a.tar --limit entries=3 out --limit=depth=4").unwrap();
        assert_eq!(args.verb, Verb::Extract { dest: "out".into(), mode: Mode::Preserve });
        assert_eq!((args.layer.as_str(), args.limits.entries, args.limits.entry.depth), ("a.tar", 3, 4));
        assert_eq!(parse("list -").unwrap().layer, "-");
        assert_eq!(parse("verify -- -x").unwrap().layer, "-x");
        assert_eq!(parse("list --help").unwrap().verb, Verb::Help);
        let digest = format!("sha256:{}", "00".repeat(32));
        let args = parse(&format!("verify --diff-id {digest} a")).unwrap();
        assert_eq!(args.diff_id.map(|digest| digest.as_str().to_owned()), Some(digest));
    }

    #[test]
    fn lines_that_do_not() {
        for line in [
            "",
            "list",
            "list a b",
            "extract a",
            "extract a b c",
            "unpack a",
            "list --mode apply a",
            "extract --mode overlay a b",
            "extract --mode merge a b",
            "verify --diff-id sha256:00 a",
            "verify a --diff-id",
            "verify --limit nothing=1 a",
            "verify -x a",
        ] {
            assert!(matches!(parse(line), Err(Problem::Usage(_))), "{line}");
        }
    }
}
