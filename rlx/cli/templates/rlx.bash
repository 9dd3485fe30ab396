# rlx: source <(rlx completion bash)
_rlx() {
    local line="${COMP_LINE:0:COMP_POINT}" words current prefix="" rest mark
    read -r -a words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    current="${words[-1]}"
    mapfile -t COMPREPLY < <("${1/#\~/$HOME}" complete -- "${words[@]:1}" 2>/dev/null)
    for mark in = :; do   # bash has split the word there already
        rest="${current##*$mark}"
        [[ "$COMP_WORDBREAKS" == *$mark* && ${#rest} -lt $((${#current} - ${#prefix})) ]] || continue
        prefix="${current:0:${#current}-${#rest}}"
    done
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *[=/.] ]] && compopt -o nospace
}
complete -o default -F _rlx rlx
