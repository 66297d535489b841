#!/bin/bash
# Shell scripts of the tree parse and pass shellcheck. Self-test: a faulty script must not pass.
set -euo pipefail
cd "${SPB_SOURCE_DIR:?}"
command -v shellcheck >/dev/null || { echo "shellcheck is not installed"; exit 77; }

bad=$(mktemp)
trap 'rm -f "$bad"' EXIT
# The dollar is for the script that is checked.
# shellcheck disable=SC2016
printf '#!/bin/bash\nrm -rf $1/*\n' >"$bad"
if shellcheck "$bad" >/dev/null; then
    echo "self-test: shellcheck passed an unquoted argument of rm"
    exit 1
fi

mapfile -t scripts < <(find .ci deploy tests -path '*/corpus' -prune -o -type f -print |
    while read -r file; do
        if head -c 64 "$file" | head -n 1 | tr -d '\0' | grep -qE '^#!.*(bash|/sh)'; then
            echo "$file"
        fi
    done)
echo "${#scripts[@]} scripts"
((${#scripts[@]} > 0))
for script in "${scripts[@]}"; do
    bash -n "$script"
done
shellcheck --external-sources "${scripts[@]}"
