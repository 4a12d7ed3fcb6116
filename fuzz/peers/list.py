#!/usr/bin/env python3
"""What Python's tarfile and libarchive (the library of bsdtar) see in archives.

usage: list.py tarfile|libarchive FILE...

For each file one line of JSON: {"file", "entries": [...]} or {"file", "error"}. Paths and targets are hex, since they
are bytes; content is hex too, of files up to 1 MiB. Each file is read in a process of its own making, so that one
that kills the reader costs one line.
"""

import ctypes
import ctypes.util
import json
import os
import signal
import sys
import tarfile

CONTENT = 1 << 20
SECONDS = 20


def seconds(text):
    """The whole seconds of a PAX time, rounded down; as a float it may be rounded up."""
    whole, _, fraction = text.partition(".")
    return int(whole) - (whole.startswith("-") and fraction[:9].strip("0") != "")


def read_tarfile(path):
    kinds = {
        tarfile.DIRTYPE: "directory", tarfile.SYMTYPE: "symlink", tarfile.LNKTYPE: "hard link",
        tarfile.CHRTYPE: "character", tarfile.BLKTYPE: "block", tarfile.FIFOTYPE: "fifo",
        tarfile.REGTYPE: "file", tarfile.AREGTYPE: "file", tarfile.CONTTYPE: "file", tarfile.GNUTYPE_SPARSE: "file",
    }
    entries = []
    # Bytes that are not UTF-8 come and go unchanged.
    with tarfile.open(path, "r:", encoding="utf-8", errors="surrogateescape", errorlevel=2) as archive:
        for member in archive:
            kind = kinds.get(member.type)
            if kind is None:
                raise ValueError("type %r" % member.type)
            entry = {
                "path": member.name.encode("utf-8", "surrogateescape").hex(),
                "kind": kind,
                "size": member.size,
                "link": member.linkname.encode("utf-8", "surrogateescape").hex(),
                "device": [member.devmajor, member.devminor],
                "mode": member.mode, "uid": member.uid, "gid": member.gid,
                "mtime": seconds(member.pax_headers.get("mtime", str(int(member.mtime)))),
            }
            if kind == "file" and 0 <= member.size <= CONTENT:
                data = archive.extractfile(member).read()
                if len(data) != member.size:
                    raise ValueError("the content is cut short")
                entry["content"] = data.hex()
            entries.append(entry)
        # It takes a header that it finds invalid for the end, without a word, unless it is the first.
        archive.fileobj.seek(archive.offset)
        if archive.fileobj.read(512).strip(b"\0"):
            raise ValueError("something stands where the archive ends for it")
    return entries


def libarchive():
    name = ctypes.util.find_library("archive") or "libarchive.so.13"
    lib = ctypes.CDLL(name)
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for function, result, arguments in [
        ("archive_read_new", pointer, []),
        ("archive_read_support_format_tar", ctypes.c_int, [pointer]),
        ("archive_read_open_filename", ctypes.c_int, [pointer, text, ctypes.c_size_t]),
        ("archive_read_next_header", ctypes.c_int, [pointer, ctypes.POINTER(pointer)]),
        ("archive_read_data", ctypes.c_ssize_t, [pointer, ctypes.c_void_p, ctypes.c_size_t]),
        ("archive_error_string", text, [pointer]),
        ("archive_entry_pathname", text, [pointer]),
        ("archive_entry_symlink", text, [pointer]),
        ("archive_entry_hardlink", text, [pointer]),
        ("archive_entry_filetype", ctypes.c_uint, [pointer]),
        ("archive_entry_perm", ctypes.c_uint, [pointer]),
        ("archive_entry_size", ctypes.c_int64, [pointer]),
        ("archive_entry_uid", ctypes.c_int64, [pointer]),
        ("archive_entry_gid", ctypes.c_int64, [pointer]),
        ("archive_entry_mtime", ctypes.c_int64, [pointer]),
        ("archive_entry_rdevmajor", ctypes.c_uint64, [pointer]),
        ("archive_entry_rdevminor", ctypes.c_uint64, [pointer]),
    ]:
        getattr(lib, function).restype = result
        getattr(lib, function).argtypes = arguments
    return lib


def read_libarchive(path):
    lib = libarchive()
    archive = lib.archive_read_new()
    lib.archive_read_support_format_tar(archive)

    def failed():
        return ValueError((lib.archive_error_string(archive) or b"failed").decode("utf-8", "replace"))

    if lib.archive_read_open_filename(archive, os.fsencode(path), 10240) != 0:
        raise failed()
    kinds = {0o040000: "directory", 0o120000: "symlink", 0o100000: "file", 0o020000: "character",
             0o060000: "block", 0o010000: "fifo"}
    entries = []
    entry = ctypes.c_void_p()
    while True:
        status = lib.archive_read_next_header(archive, ctypes.byref(entry))
        if status == 1:
            return entries
        if status != 0:  # warnings too: it says itself that it is not sure
            raise failed()
        name = lib.archive_entry_pathname(entry)
        hard = lib.archive_entry_hardlink(entry)
        kind = "hard link" if hard is not None else kinds.get(lib.archive_entry_filetype(entry))
        if name is None or kind is None:
            raise ValueError("an entry without a name or a type")
        size = lib.archive_entry_size(entry)
        seen = {
            "path": name.hex(), "kind": kind, "size": size,
            "link": (hard if hard is not None else lib.archive_entry_symlink(entry) or b"").hex(),
            "device": [lib.archive_entry_rdevmajor(entry), lib.archive_entry_rdevminor(entry)],
            "mode": lib.archive_entry_perm(entry), "uid": lib.archive_entry_uid(entry),
            "gid": lib.archive_entry_gid(entry), "mtime": lib.archive_entry_mtime(entry),
        }
        if kind == "file" and 0 <= size <= CONTENT:
            data = b""
            buffer = ctypes.create_string_buffer(1 << 16)
            while len(data) <= size:
                count = lib.archive_read_data(archive, buffer, len(buffer))
                if count < 0:
                    raise failed()
                if count == 0:
                    break
                data += buffer.raw[:count]
            if len(data) != size:
                raise ValueError("the content has %d bytes, not %d" % (len(data), size))
            seen["content"] = data.hex()
        entries.append(seen)


def main():
    read = {"tarfile": read_tarfile, "libarchive": read_libarchive}[sys.argv[1]]
    for path in sys.argv[2:]:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            signal.alarm(SECONDS)
            try:
                line = {"file": path, "entries": read(path)}
            except Exception as error:
                line = {"file": path, "error": "%s: %s" % (type(error).__name__, error)}
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status != 0:
            print(json.dumps({"file": path, "error": "the reader died, with status %d" % status}))


main()
