//! Text in fields: the stanzas of dpkg and of Python's metadata, and the assignments of `os-release`.

/// The fields of each stanza. A continued field has its lines joined; names are as they are written.
pub(crate) fn stanzas(text: &str) -> impl Iterator<Item = Stanza<'_>> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        let mut fields: Vec<(&str, String)> = Vec::new();
        for line in lines.by_ref() {
            if line.trim().is_empty() {
                if fields.is_empty() {
                    continue;
                }
                return Some(Stanza(fields));
            }
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push('\n');
                    value.push_str(line.trim());
                }
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((name, value.trim().to_owned()));
            }
        }
        (!fields.is_empty()).then_some(Stanza(fields))
    })
}

/// The fields of one stanza.
pub(crate) struct Stanza<'a>(Vec<(&'a str, String)>);

impl Stanza<'_> {
    /// The first field of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// `NAME=value` and `NAME="value"`, a line each.
pub(crate) fn assignments(text: &str) -> Vec<(String, String)> {
    let assignment = |line: &str| {
        let (name, value) = line.trim().split_once('=')?;
        let value = value.trim_matches(['"', '\'']);
        (name.len() <= 64 && value.len() <= 256).then(|| (name.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(assignment).take(100).collect()
}
