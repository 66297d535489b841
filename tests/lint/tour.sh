#!/bin/bash
# The README's tour works as written: its commands run in an empty folder, with errexit. It needs
# the built daemon and CLI (SPB_DAEMON, SPB_CLI); skipped without. Self-test: a tour with a command
# that fails does not pass.
set -euo pipefail
readme=${SPB_SOURCE_DIR:?}/README.md
if [[ ! -x ${SPB_CLI:-} || ! -x ${SPB_DAEMON:-} ]]; then
    echo "SPB_CLI and SPB_DAEMON do not name programs"
    exit 77
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mkdir "$scratch/bin" "$scratch/tour"
ln -s "$SPB_CLI" "$scratch/bin/spaceblock"
ln -s "$SPB_DAEMON" "$scratch/bin/spaceblockd"

# The sh blocks of the section "Five minutes" of standard input.
commands() {
    awk '/^## / { inside = ($0 == "## Five minutes") }
        /^```/ { block = inside && $0 == "```sh"; next }
        block { print }'
}

follow() { # the tour on standard input; whatever it leaves running is waited for
    local script
    script=$(commands)
    [[ -n $script ]] || return 1
    (
        cd "$scratch/tour"
        export PATH="$scratch/bin:$PATH" SPACEBLOCK_ENDPOINT='' XDG_STATE_HOME=$scratch/state
        timeout 100 bash -euo pipefail -c "$script"$'\nwait' </dev/null
    )
}

# The backticks are the document's.
# shellcheck disable=SC2016
if printf '## Five minutes\n```sh\nspaceblock inspect --file absent.img\n```\n' | follow \
    >"$scratch/log" 2>&1; then
    echo "self-test: a tour whose command fails passed"
    exit 1
fi
if ! follow <"$readme" >"$scratch/log" 2>&1; then
    cat "$scratch/log"
    echo "README.md: the tour failed after what is above"
    exit 1
fi
grep -q '^ready' "$scratch/log" || { cat "$scratch/log"; echo "no ready line"; exit 1; }
echo "$(commands <"$readme" | grep -c .) commands"
