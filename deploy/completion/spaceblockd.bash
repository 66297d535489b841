# Completion of spaceblockd(8) for bash: options, limits by name, files where files go.

_spaceblockd()
{
    local cur prev names
    cur=${COMP_WORDS[COMP_CWORD]}
    prev=${COMP_WORDS[COMP_CWORD-1]}
    COMPREPLY=()

    # The = of --limit NAME=N is a word of its own to bash.
    if [[ $prev == '=' || $cur == '=' ]]; then
        return
    fi
    case $prev in
        --data-dir)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -d -- "$cur")
            return ;;
        --config)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            return ;;
        --listen)
            compopt -o nospace
            mapfile -t COMPREPLY < <(compgen -W 'unix: tcp://127.0.0.1:' -- "$cur")
            return ;;
        --http)
            compopt -o nospace
            mapfile -t COMPREPLY < <(compgen -W '127.0.0.1: off' -- "$cur")
            return ;;
        --run-dir|--guest-files|--cgroup)
            compopt -o filenames
            mapfile -t COMPREPLY < <(compgen -d -- "$cur")
            return ;;
        --qemu)
            mapfile -t COMPREPLY < <(compgen -c -- "$cur")
            return ;;
        --accelerator)
            mapfile -t COMPREPLY < <(compgen -W 'auto kvm tcg' -- "$cur")
            return ;;
        --log-level)
            mapfile -t COMPREPLY < <(compgen -W 'error warn info debug' -- "$cur")
            return ;;
        --limit)
            # The program itself knows them: "  name_unit   text" in its help.
            names=$("${COMP_WORDS[0]}" --help 2>/dev/null |
                sed -n 's/^  \([a-z][a-z_]*_[a-z_]*\).*/\1=/p')
            compopt -o nospace
            mapfile -t COMPREPLY < <(compgen -W "$names" -- "$cur")
            return ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W '--data-dir --listen --http --log-level --run-dir --qemu
        --guest-files --accelerator --cgroup --limit --config --check-config --help --version' -- "$cur")
}

complete -F _spaceblockd spaceblockd
