"""Limits of length: 800 lines a file, 70 lines a function's body, 100 columns a line.

A function of C is what lies between a brace in the first column and the next closing one there, as
the format (Linux braces) has it.
"""
import re

from support import tree

FILE_LINES, FUNCTION_LINES, COLUMNS = 800, 70, 100
CODE = re.compile(r"\.(c|h|cc|go|py|sh|proto)$|/run$|^deploy/(quickstart|install)$")


def functions(text):
    """(line of the opening brace, lines between the braces)."""
    opened = None
    for number, line in enumerate(text.split("\n"), 1):
        if line == "{":
            opened = number
        elif line == "}" and opened is not None:
            yield opened, number - opened - 1
            opened = None


def check(files):
    complaints = []
    for path, text in files.items():
        if not CODE.search(path):
            continue
        lines = text.split("\n")
        if len(lines) - 1 > FILE_LINES:
            complaints.append(f"{path}: {len(lines) - 1} lines, expected at most {FILE_LINES}")
        if tree.is_c(path):
            for line, length in functions(text):
                if length > FUNCTION_LINES:
                    complaints.append(f"{path}:{line}: a function of {length} lines, "
                                      f"expected at most {FUNCTION_LINES}")
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS:
                complaints.append(f"{path}:{number}: {len(line)} columns, "
                                  f"expected at most {COLUMNS}")
    return complaints


def function_of(lines):
    return "static int f(void)\n{\n" + "    g();\n" * lines + "}\n"


BAD = [
    ({"lib/a.c": function_of(71)}, "a function of 71 lines"),
    ({"lib/a.c": function_of(3) + function_of(100)}, "a function of 100 lines"),
    ({"tests/a.c": "int a;\n" * 801}, "801 lines"),
    ({"lib/a.h": "/* " + "x" * 96 + " */\n"}, "columns"),
]
GOOD = {"lib/a.c": function_of(70) * 10, "lib/b.c": "int a;\n" * 800, "docs/A.md": "x" * 200}

if __name__ == "__main__":
    tree.run(check, BAD, GOOD)
