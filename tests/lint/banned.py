"""Functions that the project does not use, and in whose stead."""
import re

from support import tree

# Function: (where it is banned, what to use).
BANNED = {
    "strcpy": ("", "snprintf or memcpy with a checked length"),
    "strcat": ("", "snprintf"),
    "strncpy": ("", "snprintf or memcpy with a checked length"),
    "strncat": ("", "snprintf"),
    "sprintf": ("", "snprintf"),
    "vsprintf": ("", "vsnprintf"),
    "strtok": ("", "strchr or strcspn"),
    "gets": ("", "fgets or getline"),
    "alloca": ("", "a fixed buffer or malloc"),
    "atoi": ("(lib|server|client)/", "strtol with its errors checked"),
    "atol": ("(lib|server|client)/", "strtol with its errors checked"),
    "tmpnam": ("", "mkstemp"),
    "mktemp": ("", "mkstemp"),
    "gmtime": ("", "gmtime_r"),
    "localtime": ("", "localtime_r"),
    "assert": ("(lib|server|client)/", "SPB_ASSERT: it stays on in release builds"),
    "sleep": ("", "waiting for the event itself"),
    "usleep": ("", "waiting for the event itself"),
}
CALLS = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")
SCRIPT_SLEEP = re.compile(r"^\s*(?:[^#\n]*[;&|]\s*)?sleep\s+[0-9$\"]|\btime\.sleep\s*\(", re.M)
SCRIPTS = re.compile(r"(\.sh|\.py|/run|deploy/[a-z]+)$")


def check(files):
    complaints = []
    for path, text in files.items():
        if tree.is_c(path):
            code = tree.code_only(text)
            for match in CALLS.finditer(code):
                where, instead = BANNED[match.group(1)]
                if re.match(where, path):
                    complaints.append(f"{path}:{tree.line_of(code, match.start())}: "
                                      f"{match.group(1)}() is not used here; use {instead}")
        elif SCRIPTS.search(path):
            for match in SCRIPT_SLEEP.finditer(text):
                complaints.append(f"{path}:{tree.line_of(text, match.end())}: sleeps; "
                                  f"wait for the event itself")
    return complaints


BAD = [
    ({"lib/base/a.c": "    strcpy(a, b);\n"}, "strcpy() is not used"),
    ({"server/a.c": "    assert(x);\n"}, "SPB_ASSERT"),
    ({"client/cli/a.c": "n = atoi (s);\n"}, "strtol"),
    ({"tests/crash/a.c": "usleep(10);\n"}, "waiting for the event"),
    ({"tests/integration/a.sh": "kill $pid; sle" + "ep 1\n"}, "sleeps"),
    ({"tests/integration/a.py": "time" + ".sleep(0.1)\n"}, "sleeps"),
]
GOOD = {
    "lib/base/a.c": "/* strcpy(a) */ my_strcpy(a); ops->gets(x); f(\"sprintf(\"); snprintf(b);\n"
                    "_Static_assert(1, \"x\"); static_assert(1);\n",
    "tests/unit/test_a.c": "cr_assert(x);\n",
    "tests/integration/a.sh": "# sleep 1\nprintf '%s' 'no'\n",
}

if __name__ == "__main__":
    tree.run(check, BAD, GOOD)
