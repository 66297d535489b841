"""Links between the documents lead somewhere: to a file of the tree, to a heading that it has."""
import posixpath
import re

from support import tree

LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.M)
FENCE = re.compile(r"^```.*?^```", re.M | re.S)


def anchors(text):
    found = set()
    for title in HEADING.findall(FENCE.sub("", text)):
        words = re.sub(r"[^\w\- ]", "", title.strip().lower())
        found.add(words.replace(" ", "-"))
    return found


def check(files):
    folders = {posixpath.dirname(p) for p in files} | {p.split("/")[0] for p in files}
    complaints = []
    for path, text in files.items():
        if not path.endswith(".md"):
            continue
        for target in LINK.findall(FENCE.sub("", text)):
            if "://" in target:
                continue
            name, _, anchor = target.partition("#")
            found = posixpath.normpath(posixpath.join(posixpath.dirname(path), name)) \
                if name else path
            if found not in files and found not in folders:
                complaints.append(f"{path}: link to {target}, which is not there")
            elif anchor and anchor not in anchors(files.get(found, "")):
                complaints.append(f"{path}: link to {target}, which has no such heading")
    return complaints


BAD = [
    ({"README.md": "[a](docs/A.md)\n"}, "is not there"),
    ({"README.md": "[a](docs/A.md#two-words)\n", "docs/A.md": "# Two\n"}, "no such heading"),
]
GOOD = {"README.md": "[a](docs/A.md#two-words) [b](docs) [c](#here)\n# Here\n",
        "docs/A.md": "## Two words\n```\n[x](none)\n```\n[up](../README.md)\n"}

if __name__ == "__main__":
    tree.run(check, BAD, GOOD)
