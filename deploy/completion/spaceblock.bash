# Completion of spaceblock(1) for bash: commands, the options of each, files where files go.

_spaceblock()
{
    local cur prev word options
    local -a words=()
    cur=${COMP_WORDS[COMP_CWORD]}
    prev=${COMP_WORDS[COMP_CWORD-1]}
    COMPREPLY=()

    case $prev in
        --file)
            compopt -o filenames
            COMPREPLY=($(compgen -f -- "$cur"))
            return ;;
        --severity)
            COMPREPLY=($(compgen -W 'debug info warn error critical' -- "$cur"))
            return ;;
        --sector-size)
            COMPREPLY=($(compgen -W '512 1024 2048 4096 8192 16384 32768 65536' -- "$cur"))
            return ;;
        --image|--endpoint|--timeout|--retries|--blocks|--tenant-id|--uuid|--epoch|\
        --if-generation|-n|--code|--time|--class|--priority)
            return ;;
    esac

    # The words before the one at hand, without options and their values.
    local skip=0 i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((skip)); then
            skip=0
            continue
        fi
        case $word in
            --file|--image|--endpoint|--timeout|--retries|--sector-size|--blocks|--tenant-id|\
            --uuid|--epoch|--if-generation|-n|--severity|--code|--time|--class|--priority)
                skip=1 ;;
            -*) ;;
            *) words+=("$word") ;;
        esac
    done

    local daemon='--endpoint --timeout --retries --verbose --json --help'
    local target="--file --sector-size --image $daemon"
    case "${words[0]-} ${words[1]-}" in
        'init '*) options='--file --blocks --sector-size --tenant-id --uuid --epoch --force --json --help' ;;
        'launch '*) options='--file --kernel --initrd --blocks --sector-size --append --memory --accel --qemu --json --help' ;;
        'inspect '*) options="$target --data" ;;
        'check '*) options="$target --repair" ;;
        'defrag '*) options=$target ;;
        'image create') options="$daemon --blocks --sector-size --uuid --epoch" ;;
        'image list') options="$daemon --tenant-id --all-tenants" ;;
        'image check') options="$daemon --repair" ;;
        'image '?*|'server '?*) options=$daemon ;;
        'param put') options="$target --if-generation" ;;
        'param get') options="$target --raw" ;;
        'event append') options="$target --severity --code --time" ;;
        'event list') options="$target -n --severity --code" ;;
        'dp put') options="$target --class --priority --replace --no-resume" ;;
        'dp get') options="$target --padded --no-resume" ;;
        'dp list') options="$target --verify" ;;
        'param '?*|'dp '?*) options=$target ;;
        *) options='--help --version --json' ;;
    esac
    if [[ $cur == -?* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$cur"))
        return
    fi

    case ${#words[@]} in
        0)  COMPREPLY=($(compgen -W \
                'init launch inspect check defrag image param event dp server help' -- "$cur")) ;;
        1)  case ${words[0]} in
                image) word='create list show check delete reopen' ;;
                param) word='put get list history delete' ;;
                event) word='append list' ;;
                dp) word='put get list delete' ;;
                server) word='info ping' ;;
                *) return ;;
            esac
            COMPREPLY=($(compgen -W "$word" -- "$cur")) ;;
        3)  case "${words[0]} ${words[1]}" in
                'dp put'|'dp get')
                    compopt -o filenames
                    COMPREPLY=($(compgen -f -- "$cur")) ;;
                'param put')
                    if [[ $cur == @* ]]; then
                        compopt -o filenames
                        COMPREPLY=($(compgen -P @ -f -- "${cur#@}"))
                    fi ;;
            esac ;;
    esac
}

complete -F _spaceblock spaceblock
