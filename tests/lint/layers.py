"""Folders are layers: holds each to the headers that it may include.

base <- device <- volume <- server; base <- ttrpc <- server and client; audit <- server. The tables
below are the rule; a C file of a folder that has no row is a complaint too.
"""
import posixpath
import re

from support import tree

PUBLIC = "lib/include/spaceblock/"
STATUS = PUBLIC + "status.h"
# Folder: (project paths that it may include by prefix, other projects' headers by library).
# A file falls under the longest folder that it begins with.
LAYERS = {
    "lib/include/": ([PUBLIC], []),
    "lib/base/": (["lib/base/", STATUS], ["isa-l"]),
    "lib/device/": (["lib/base/", "lib/device/", STATUS, PUBLIC + "device.h"], []),
    "lib/volume/": (["lib/base/", "lib/device/", "lib/volume/", PUBLIC], []),
    "lib/ttrpc/": (["lib/base/", "lib/ttrpc/", STATUS], []),
    "lib/digest/": (["lib/base/", "lib/digest/", STATUS], ["openssl"]),
    "client/include/": (["client/include/", STATUS], []),
    "client/": (["lib/base/", "lib/ttrpc/", "client/", STATUS], ["protobuf-c"]),
    "client/cli/": (["lib/base/", "lib/digest/", PUBLIC, "client/include/", "client/cli/",
                     "server/supervisor/machine/"],
                    ["protobuf-c", "jansson"]),
    "server/supervisor/machine/": (["lib/base/", STATUS, "server/supervisor/machine/"],
                                   ["jansson"]),
    "server/supervisor/console/": (["lib/base/", STATUS, "server/supervisor/console/"], []),
    "server/supervisor/process/": (["lib/base/", STATUS, "server/supervisor/process/"], []),
    # A guest's life is pure; the rest of the supervisor is a part of the daemon as others are.
    "server/supervisor/life": (["lib/base/", STATUS, "server/supervisor/machine/",
                                 "server/supervisor/life"], ["jansson"]),
    "server/supervisor/": (["lib/base/", "lib/digest/", PUBLIC, "server/"],
                           ["protobuf-c", "jansson"]),
    "server/": (["lib/base/", "lib/digest/", "lib/ttrpc/", PUBLIC, "server/"], ["protobuf-c"]),
    "deploy/guest/init/": (["lib/base/", PUBLIC, "deploy/guest/init/"], []),
    "server/audit/": (["lib/base/", STATUS, "server/audit/", "server/log.h", "server/util.h"],
                      ["sqlite"]),
    "tests/": ([""], ["*"]),
}
# The library's client and the CLI are two: the former does not know the latter. What the audit has
# in its own headers is its own, SQLite among it: others see the two that are its interface.
DENIED = {"client/": ["client/cli/"], "server/": ["server/audit/"],
          "server/supervisor/": ["server/audit/"]}
INTERFACES = ["server/audit/audit.h", "server/audit/tables.h"]
# The only files of the server that see a library.
EVENT_FILES = re.compile(r"^server/((loop|listener|conn)[a-z_]*\.[ch]|http\.c)$")
FILES = {"libevent": EVENT_FILES, "inih": re.compile(r"^server/config\.c$")}
LIBRARIES = {
    "libevent": re.compile(r"^(event2/|event\.h$|evutil\.h$|evhttp\.h$|evdns\.h$)"),
    "protobuf-c": re.compile(r"^(protobuf-c/|google/protobuf-c/)|\.pb-c\.h$"),
    "isa-l": re.compile(r"^(isa-l/|isa-l\.h$|crc\.h$)"),
    "jansson": re.compile(r"^jansson"),
    "sqlite": re.compile(r"^sqlite3"),
    "openssl": re.compile(r"^openssl/"),
    "zstd": re.compile(r"^zstd"),
    "inih": re.compile(r"^ini\.h$"),
    "criterion": re.compile(r"^criterion/"),
}
# Where the build looks for a header, beside the including file's own folder.
SEARCH = ["lib/", "lib/include/", "client/include/", "client/", "server/", "tests/", ""]
INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*[<\"]([^>\"\n]+)[>\"]", re.M)


def layer_of(path):
    rows = [folder for folder in LAYERS if path.startswith(folder)]
    return max(rows, key=len) if rows else None


def resolve(path, header, files):
    """The project's file that an #include of path means, or None for somebody else's."""
    for folder in [posixpath.dirname(path) + "/"] + SEARCH:
        found = posixpath.normpath(folder + header)
        if found in files:
            return found
    return None


def complain(path, header, files):
    folder = layer_of(path)
    paths, libraries = LAYERS[folder]
    found = resolve(path, header, files)
    if found:
        denied = (any(found.startswith(p) for p in DENIED.get(folder, []))
                  and found not in INTERFACES)
        if found != path and (denied or not any(found.startswith(p) for p in paths)):
            return f"{path}: {folder} may not include {found}"
        return None
    for library, pattern in LIBRARIES.items():
        if not pattern.search(header) or library in libraries or "*" in libraries:
            continue
        if library in FILES and FILES[library].match(path):
            continue
        return f"{path}: {folder} may not use {library} (<{header}>)"
    return None


def check(files):
    complaints = []
    for path, text in files.items():
        if not tree.is_c(path):
            continue
        if layer_of(path) is None:
            complaints.append(f"{path}: no row in the table of layers")
            continue
        for match in INCLUDE.finditer(text):
            complaint = complain(path, match.group(1), files)
            if complaint:
                complaints.append(complaint)
    return complaints


BAD = [
    ({"lib/base/a.c": '#include "device/d.h"\n', "lib/device/d.h": ""}, "may not include"),
    ({"lib/device/a.c": '#include "../volume/v.h"\n', "lib/volume/v.h": ""}, "may not include"),
    ({"lib/volume/a.c": '#include "ttrpc/ttrpc.h"\n', "lib/ttrpc/ttrpc.h": ""},
     "may not include"),
    ({"lib/volume/a.c": "  #  include <event2/event.h>\n"}, "may not use libevent"),
    ({"lib/volume/a.c": "#include <sqlite3.h>\n"}, "may not use sqlite"),
    ({"lib/ttrpc/a.c": '#include "spaceblock/v1/params.pb-c.h"\n'}, "may not use protobuf-c"),
    ({"server/services/a.c": "#include <event2/event.h>\n"}, "may not use libevent"),
    ({"server/http_x.c": "#include <event2/http.h>\n"}, "may not use libevent"),
    ({"server/options.c": "#include <ini.h>\n"}, "may not use inih"),
    ({"server/a.c": '#include "volume/v.h"\n', "lib/volume/v.h": ""}, "may not include"),
    ({"server/a.c": "#include <sqlite3.h>\n"}, "may not use sqlite"),
    ({"server/a.c": '#include "audit/inside.h"\n', "server/audit/inside.h": ""},
     "may not include"),
    ({"server/audit/a.c": '#include "call.h"\n', "server/call.h": ""}, "may not include"),
    ({"server/audit/a.c": '#include "spaceblock/v1/params.pb-c.h"\n'}, "may not use protobuf-c"),
    ({"client/a.c": '#include "server/s.h"\n', "server/s.h": ""}, "may not include"),
    ({"client/a.c": '#include "cli/s.h"\n', "client/cli/s.h": ""}, "may not include"),
    ({"client/cli/a.c": '#include "call.h"\n', "client/call.h": ""}, "may not include"),
    ({"other/a.c": ""}, "no row"),
]
GOOD = {
    "lib/include/spaceblock/status.h": "#include <stddef.h>\n",
    "lib/base/a.c": '#include "spaceblock/status.h"\n#include <isa-l/crc.h>\n',
    "lib/volume/v.h": '#include "base/b.h"\n',
    "lib/base/b.h": "",
    "server/loop.c": "#include <event2/event.h>\n",
    "server/http.c": "#include <event2/http.h>\n",
    "server/config.c": "#include <ini.h>\n",
    "server/listener.c": "#include <event2/listener.h>\n",
    "server/a.c": '#include "spaceblock/status.h"\n#include "spaceblock/v1/params.pb-c.h"\n'
                  '#include "audit/audit.h"\n',
    "server/audit/audit.h": "",
    "server/audit/a.c": '#include <sqlite3.h>\n#include "audit/audit.h"\n#include "log.h"\n',
    "server/log.h": "",
    "tests/unit/test_a.c": '#include "volume/v.h"\n#include <criterion/criterion.h>\n',
}

if __name__ == "__main__":
    tree.run(check, BAD, GOOD)
