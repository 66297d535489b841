"""Words that have no place in the tree: marks of unfinished work, paths of one machine, and bytes
that editors leave behind.
"""
import re

from support import tree

# In pieces, so that this file has none of them.
MARKS = ["TO" + "DO", "FIX" + "ME", "X" + "XX", "HA" + "CK", "WI" + "P"]
WORDS = re.compile(r"\b(" + "|".join(MARKS) + r")\b|/wo" + r"rk/|/ro" + r"ot/|/ho" + r"me/[a-z]")
BLANKS = re.compile(r"[ \t]+$", re.M)


def check(files):
    complaints = []
    for path, text in files.items():
        for match in WORDS.finditer(text):
            complaints.append(f"{path}:{tree.line_of(text, match.start())}: "
                              f"{match.group(0)!r} has no place here")
        match = BLANKS.search(text)
        if match:
            complaints.append(f"{path}:{tree.line_of(text, match.start())}: blanks at a line's end")
        if "\r" in text or (tree.is_c(path) and "\t" in text):
            complaints.append(f"{path}: a tab or a carriage return")
        if text and not text.endswith("\n"):
            complaints.append(f"{path}: no newline at the end")
    return complaints


BAD = [
    ({"lib/a.c": "/* TO" + "DO: later */\n"}, "has no place"),
    ({"docs/a.md": "see /wo" + "rk/x\n"}, "has no place"),
    ({"lib/a.c": "int a; \n"}, "blanks"),
    ({"lib/a.c": "\tint a;\n"}, "a tab"),
    ({"lib/a.c": "int a;"}, "no newline"),
]
GOOD = {"lib/a.c": "char path[] = \"/tmp/a.XXXXXX\"; /* the network/working set */\n",
        "docs/empty.md": ""}

if __name__ == "__main__":
    tree.run(check, BAD, GOOD)
