"""What Debian's copyright files say: no bindings in here, so that it is tested by any Python."""

import fnmatch
import json
import re

# usr/share/doc/PACKAGE/copyright
PATH = re.compile(rb"usr/share/doc/([a-z0-9][a-z0-9+.-]*)/copyright")

# The largest file that is read, how many packages are reported, and how many licences of each.
FILE = 1 << 20
PACKAGES = 20_000
LICENSES = 200

FORMAT = re.compile(r"^Format(-Specification)?:.*\b(copyright-format|dep)", re.IGNORECASE | re.MULTILINE)
LICENSE = re.compile(r"^License:[ \t]*(\S[^\n]*)$", re.IGNORECASE | re.MULTILINE)
COMMON = re.compile(r"/usr/share/common-licenses/([A-Za-z0-9.+-]*[A-Za-z0-9+])")
WORDS = re.compile(r"\s+(?:and|or)\s+|\s+with\s[^,|]*|[,|]\s*(?:and|or)?\s*", re.IGNORECASE)


def package(path):
    """The package whose copyright file lies at this path, if it is one's."""
    match = PATH.fullmatch(path)
    return match and match[1].decode()


def licenses(text):
    """The licences that a copyright file names, and whether it is of the kind that machines can read.

    Other files refer to the texts in /usr/share/common-licenses, which is less than the whole truth.
    """
    if FORMAT.search(text):
        named = (word.strip(" ()") for line in LICENSE.findall(text) for word in WORDS.split(line))
        return sorted({word for word in named if word and len(word) <= 64}), True
    return sorted(set(COMMON.findall(text))), False


class Report:
    """What was found in one layer."""

    def __init__(self, deny):
        self.deny = [pattern.lower() for pattern in re.split(r"[,\s]+", deny) if pattern]
        self.packages = {}
        self.unread = set()

    def add(self, name, content):
        """Takes a package's copyright file. Returns the reason to refuse it, if a rule does."""
        if len(self.packages) >= PACKAGES:
            return "more packages than are looked at"
        names, readable = licenses(content.decode("utf-8", "replace"))
        if len(names) > LICENSES:
            return f"{name} is under {len(names)} licences, and {LICENSES} are believed"
        self.packages[name] = {"licenses": names, "machine-readable": readable}
        for license in names:
            for pattern in self.deny:
                if fnmatch.fnmatchcase(license.lower(), pattern):
                    return f"{name} is under {license}, which the setting `deny` names"
        return None

    def skip(self, name):
        """Remembers a package whose file is too large. Returns a reason to refuse as above."""
        self.packages.pop(name, None)
        self.unread.add(name)
        if len(self.unread) > PACKAGES:
            return "more packages than are looked at"
        return None

    def json(self):
        report = {"packages": dict(sorted(self.packages.items())), "unread": sorted(self.unread)}
        return json.dumps(report, separators=(",", ":")).encode()
