"""Files open with a comment that says what they are for; every message and service field of the
protocol is explained where its name does not do so: a .proto message of more than four fields has a
comment, before it or on its fields.
"""
import re

from support import tree

MESSAGE = re.compile(r"((?://[^\n]*\n)*)^message (\w+) \{\n(.*?)^\}", re.M | re.S)
FIELD = re.compile(r"=\s*[0-9]+;")


def opens_with_comment(path, text):
    if text.startswith("#!"):
        text = text.partition("\n")[2]
    if path.endswith(".py"):
        return text.startswith(('"""', "#"))
    if path.endswith((".proto", ".go")):
        return text.startswith("//")
    if tree.is_c(path):
        return text.startswith(("/*", "//"))
    return text.startswith("#")


CODE = re.compile(r"(\.(c|h|cc|go|proto|py|sh|cmake)|/run|^deploy/(quickstart|install|packages))$")


def check(files):
    complaints = []
    for path, text in files.items():
        if CODE.search(path) and text and not opens_with_comment(path, text):
            complaints.append(f"{path}: does not open with a comment")
        if path.endswith(".proto"):
            for match in MESSAGE.finditer(text):
                body = match.group(3)
                if len(FIELD.findall(body)) > 4 and not match.group(1) and "//" not in body:
                    complaints.append(f"{path}: message {match.group(2)} has no comment")
    return complaints


FIELDS = "".join(f"  uint32 f{n} = {n};\n" for n in range(1, 6))
BAD = [
    ({"lib/include/spaceblock/a.h": "#ifndef A\n#endif\n"}, "does not open"),
    ({"tests/lint/a.sh": "#!/bin/bash\nset -e\n"}, "does not open"),
    ({"tests/a.go": "package a\n"}, "does not open"),
    ({"proto/a.proto": "syntax = \"proto3\";\n"}, "does not open"),
    ({"proto/a.proto": "// A.\n\nmessage Big {\n" + FIELDS + "}\n"}, "message Big"),
]
GOOD = {
    "lib/a.c": "/* A. */\n",
    "a.sh": "#!/bin/bash\n# A.\n",
    "proto/a.proto": "// A.\n\n// Why.\nmessage Big {\n" + FIELDS + "}\n",
}

if __name__ == "__main__":
    tree.run(check, BAD, GOOD)
