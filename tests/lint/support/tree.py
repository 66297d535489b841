"""The source tree as the lint tests see it: a dict of path (relative, with /) to text.

A lint test is a function from such a dict to a list of complaints, so that its self-test can hand
it a small tree with known faults. run() does the self-test first: a lint that cannot fail fails.
"""
import os
import re
import sys

ROOT = os.environ.get("SPB_SOURCE_DIR") or os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
SKIPPED_FOLDERS = {".git", "out", "__pycache__", "corpus", "golden"}
TEXT = re.compile(r"(\.(c|h|cc|go|proto|cmake|md|py|sh|txt|in|json|conf|service)|/CMakeLists\.txt|"
                  r"^(LICENSE|\.clang-format|\.clang-tidy|\.ci/run|deploy/[a-z]+|"
                  r"tests/(fuzz/)?run))$")


def load():
    """Every text file of the project, without what is built or recorded."""
    files = {}
    for folder, folders, names in os.walk(ROOT):
        folders[:] = sorted(f for f in folders if f not in SKIPPED_FOLDERS
                            and not (folder == ROOT and f.startswith("build")))
        for name in sorted(names):
            full = os.path.join(folder, name)
            path = os.path.relpath(full, ROOT).replace(os.sep, "/")
            if TEXT.search(path) and os.path.isfile(full):
                with open(full, encoding="utf-8") as stream:
                    files[path] = stream.read()
    return files


def is_c(path):
    return path.endswith((".c", ".h", ".cc"))


_COMMENT_OR_STRING = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.S)


def code_only(text):
    """C text without comments and the contents of strings; line numbers stay as they were."""
    def blank(match):
        piece = match.group(0)
        if piece[0] in "\"'":
            return piece[0] * 2
        return " " + "\n" * piece.count("\n")
    return _COMMENT_OR_STRING.sub(blank, text)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def run(check, bad_trees, good_tree):
    """bad_trees: (tree, words that the one complaint has); good_tree: no complaint."""
    for tree, words in bad_trees:
        complaints = check(tree)
        if len(complaints) != 1 or words not in complaints[0]:
            print(f"self-test: expected one complaint with {words!r} on {sorted(tree)}, "
                  f"found {complaints}")
            sys.exit(1)
    complaints = check(good_tree)
    if complaints:
        print(f"self-test: expected no complaint on {sorted(good_tree)}, found {complaints}")
        sys.exit(1)
    files = load()
    complaints = check(files)
    for complaint in complaints:
        print(complaint)
    print(f"{len(files)} files looked at, {len(complaints)} complaints")
    sys.exit(1 if complaints or not files else 0)
