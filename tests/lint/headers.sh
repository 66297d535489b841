#!/bin/bash
# Public headers compile alone, as strict C11 and as C++. Self-test: one without its includes fails.
set -euo pipefail
cd "${SPB_SOURCE_DIR:?}"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

alone() { # HEADER: as it is included first in an empty file
    local flags=(-Wall -Wextra -Wpedantic -Werror -fsyntax-only -Ilib/include -Iclient/include
        -I"$scratch")
    echo "#include \"$1\"" >"$scratch/alone.c"
    cp "$scratch/alone.c" "$scratch/alone.cc"
    cc -std=c11 -Wstrict-prototypes "${flags[@]}" "$scratch/alone.c" &&
        c++ -std=c++17 "${flags[@]}" "$scratch/alone.cc"
}

echo 'uint32_t f(size_t n);' >"$scratch/bad.h"
if alone bad.h 2>/dev/null; then
    echo "self-test: a header that lacks its includes compiled"
    exit 1
fi

found=0
for header in lib/include/spaceblock/*.h client/include/spaceblock/*.h; do
    alone "spaceblock/$(basename "$header")"
    found=$((found + 1))
done
echo "$found headers"
((found > 0))
