# rlx: source <(rlx completion zsh)
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_rlx() {
    local -a found open whole
    found=(${(f)"$("${words[1]/#\~/$HOME}" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    (( $#found )) || { _files; return }
    open=(${(M)found:#*[=/.]}) whole=(${found:#*[=/.]})
    (( $#open )) && compadd -Q -S '' -- $open
    (( $#whole )) && compadd -Q -- $whole
}
compdef _rlx rlx
