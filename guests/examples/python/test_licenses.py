"""python3 -m unittest, in this directory."""

import json
import random
import unittest

import licenses

READABLE = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2000 Somebody
License: GPL-2+ and (Expat or Artistic)

Files: x
License: LGPL-2.1+ with OpenSSL exception, or BSD-3-clause
 Text of it:
 License: this line is text

License: GPL-2+
 On Debian systems: /usr/share/common-licenses/GPL-2
"""

FREE = "This is free software. See /usr/share/common-licenses/GPL-3, /usr/share/common-licenses/BSD."


class Licenses(unittest.TestCase):
    def test_paths_of_copyright_files_name_packages(self):
        for path, name in [
            (b"usr/share/doc/libstdc++6/copyright", "libstdc++6"),
            (b"usr/share/doc/a/b/copyright", None),
            (b"usr/share/doc/a/copyright.gz", None),
            (b"usr/share/doc/\xff/copyright", None),
            (b"usr/share/doc/a/copyright\n", None),
        ]:
            self.assertEqual(licenses.package(path), name, path)

    def test_readable_files_name_their_licences(self):
        names, readable = licenses.licenses(READABLE)
        self.assertEqual(names, ["Artistic", "BSD-3-clause", "Expat", "GPL-2+", "LGPL-2.1+"])
        self.assertTrue(readable)

    def test_other_files_refer_to_common_licences(self):
        self.assertEqual(licenses.licenses(FREE), (["BSD", "GPL-3"], False))
        self.assertEqual(licenses.licenses(""), ([], False))

    def test_a_rule_refuses(self):
        report = licenses.Report("agpl-*, LGPL-2.?+")
        self.assertIsNone(report.add("free", FREE.encode()))
        self.assertEqual(report.add("x", READABLE.encode()), "x is under LGPL-2.1+, which the setting `deny` names")

    def test_more_than_can_be_believed_is_refused(self):
        many = "Format: copyright-format\n" + "".join(f"License: x{number}\n" for number in range(201))
        self.assertEqual(licenses.Report("").add("x", many.encode()), "x is under 201 licences, and 200 are believed")
        report = licenses.Report("")
        reasons = [report.skip(str(number)) for number in range(licenses.PACKAGES + 1)]
        self.assertEqual([reason is None for reason in reasons[-2:]], [True, False])

    def test_the_report_is_the_same_in_any_order(self):
        files = {"b": READABLE.encode(), "a": FREE.encode(), "c": b"\xff\x00"}
        reports = set()
        for names in (["a", "b", "c"], ["c", "b", "a"]):
            report = licenses.Report("")
            for name in names:
                report.add(name, files[name])
            report.skip("large")
            reports.add(report.json())
        self.assertEqual(len(reports), 1)
        self.assertEqual(json.loads(reports.pop())["unread"], ["large"])

    def test_hostile_files_are_survived(self):
        chance = random.Random(1)
        for _ in range(300):
            content = bytearray(READABLE.encode())
            for _ in range(chance.randrange(20)):
                content[chance.randrange(len(content))] = chance.randrange(256)
            licenses.Report("x*").add("x", bytes(content[: chance.randrange(len(content))]))
        # Nothing here takes more than linear time.
        for text in ("License:" + " " * 500_000, "License: a" + " or" * 300_000, "Format:" * 140_000, "," * licenses.FILE):
            licenses.licenses("Format: copyright-format\n" + text)


if __name__ == "__main__":
    unittest.main()
