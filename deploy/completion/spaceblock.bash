# Completion of spaceblock(1) for bash: commands, the options of each, files where files go.

_spaceblock()
{
    local cur prev word options
    local -a words=()
    cur=${COMP_WORDS[COMP_CWORD]}
    prev=${COMP_WORDS[COMP_CWORD-1]}
    COMPREPLY=()

    case $prev in
        --file|--kernel|--initrd|--qemu)
            compopt -o filenames
            COMPREPLY=($(compgen -f -- "$cur"))
            return ;;
        --severity)
            COMPREPLY=($(compgen -W 'debug info warn error critical' -- "$cur"))
            return ;;
        --from)
            COMPREPLY=($(compgen -W 'now start' -- "$cur"))
            return ;;
        --sector-size)
            COMPREPLY=($(compgen -W '512 1024 2048 4096 8192 16384 32768 65536' -- "$cur"))
            return ;;
        --outcome)
            COMPREPLY=($(compgen -W 'pending done completed not-done unknown' -- "$cur"))
            return ;;
        --accel)
            COMPREPLY=($(compgen -W 'auto kvm tcg' -- "$cur"))
            return ;;
        --restart)
            COMPREPLY=($(compgen -W 'never on-failure always' -- "$cur"))
            return ;;
        --for)
            COMPREPLY=($(compgen -W 'stopped running alive' -- "$cur"))
            return ;;
        --image|--endpoint|--timeout|--retries|--blocks|--tenant-id|--uuid|--epoch|--if-generation|-n|\
        --code|--time|--class|--priority|--since|--until|--principal|--method|--limit|--name|--append|\
        --memory|--cpus|--boot-deadline|--stop-timeout|--label)
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
            --file|--image|--endpoint|--timeout|--retries|--sector-size|--blocks|--tenant-id|--uuid|--epoch|\
            --if-generation|-n|--severity|--code|--time|--class|--priority|--since|--until|\
            --principal|--method|--outcome|--limit|--from|--name|--kernel|--initrd|--qemu|--append|\
            --memory|--cpus|--accel|--restart|--boot-deadline|--stop-timeout|--label|--for)
                skip=1 ;;
            -*) ;;
            *) words+=("$word") ;;
        esac
    done

    local daemon='--endpoint --timeout --retries --verbose --json --help'
    local guest="--image --kernel --initrd --append --memory --cpus --accel --restart --boot-deadline
        --stop-timeout --ephemeral --label --no-resume $daemon"
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
        'image reopen') options="$daemon --accept-identity" ;;
        'image import') options="$daemon --new-identity --sector-size --no-resume" ;;
        'image export') options="$daemon --no-resume" ;;
        'image clone'|'image delete') options="$daemon --uuid" ;;
        'artifact put') options="$daemon --name --tenant-id --no-resume" ;;
        'artifact '?*) options="$daemon --tenant-id" ;;
        'guest create') options=$guest ;;
        'guest run') options="$guest --wait --rm" ;;
        'guest start') options="$daemon --wait" ;;
        'guest ls') options="$daemon --tenant-id --all-tenants" ;;
        'guest stop') options="$daemon --stop-timeout --no-wait" ;;
        'guest kill') options="$daemon --no-wait" ;;
        'guest rm') options="$daemon --force" ;;
        'guest wait') options="$daemon --for" ;;
        'guest console') options="$daemon -n --take-over --no-wait" ;;
        'guest logs') options="$daemon -n -f --raw" ;;
        'guest '?*) options=$daemon ;;
        'audit list') options="$daemon --since --until --principal --image --method --outcome --limit --tenant-id --all-tenants" ;;
        'image scrub') options="$daemon --wait --status" ;;
        'image '?*|'server '?*) options=$daemon ;;
        'param put') options="$target --if-generation" ;;
        'param get') options="$target --raw" ;;
        'event append') options="$target --severity --code --time" ;;
        'event list') options="$target -n --severity --code" ;;
        'event watch') options="$daemon --image --from --severity --code --limit" ;;
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
                'init launch inspect check defrag image param event dp artifact guest audit server help' -- "$cur")) ;;
        1)  case ${words[0]} in
                image) word='create list show check scrub delete reopen import export clone rename' ;;
                artifact) word='put ls rm' ;;
                param) word='put get list history delete' ;;
                event) word='append list watch' ;;
                dp) word='put get list delete' ;;
                guest) word='create run start ls show stop kill rm wait console logs stats' ;;
                audit) word='list' ;;
                server) word='info ping' ;;
                *) return ;;
            esac
            COMPREPLY=($(compgen -W "$word" -- "$cur")) ;;
        2)  case "${words[0]} ${words[1]}" in
                'image import'|'artifact put')
                    compopt -o filenames
                    COMPREPLY=($(compgen -f -- "$cur")) ;;
            esac ;;
        3)  case "${words[0]} ${words[1]}" in
                'dp put'|'dp get'|'image export')
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
