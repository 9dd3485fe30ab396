"""Shell completion that knows `key=value`: groups, their choices, and configuration keys.

Typer's own script is wrong here: bash splits words at '=', so `algo=p<TAB>` would complete nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlx import registry

VERBS = ("train", "resume", "eval", "play", "ls", "show", "list", "dash", "completion", "doctor")
GROUPS = ("algo", "env", "model", "preset", "experiment")
RUN_VERBS = ("resume", "eval", "play", "show")

SCRIPTS = {
    "bash": r"""# rlx: source <(rlx completion bash)
_rlx() {
    local line="${COMP_LINE:0:COMP_POINT}" words current prefix
    read -r -a words <<< "$line"
    [[ "$line" == *" " ]] && words+=("")
    current="${words[-1]}"
    mapfile -t COMPREPLY < <(rlx complete -- "${words[@]:1}" 2>/dev/null)
    prefix="${current%"${current##*[=:]}"}"   # bash has split the word there already
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *[=/.] ]] && compopt -o nospace
}
complete -F _rlx rlx
""",
    "zsh": r"""# rlx: source <(rlx completion zsh)
_rlx() {
    local -a found
    found=(${(f)"$(rlx complete -- "${words[@]:1:$((CURRENT-1))}" 2>/dev/null)"})
    compadd -Q -S '' -- $found
}
compdef _rlx rlx
""",
    "fish": r"""# rlx: rlx completion fish | source
function __rlx_complete
    set -l words (commandline -opc) (commandline -ct)
    rlx complete -- $words[2..-1] 2>/dev/null
end
complete -c rlx -f -a '(__rlx_complete)'
""",
}


def candidates(words: list[str]) -> list[str]:
    """What could stand in place of the last of `words` (what was typed after `rlx`)."""
    current = words[-1] if words else ""
    if len(words) <= 1:
        return _starting(current, VERBS)
    verb = words[0]
    if verb == "list":
        return _starting(current, ("algos", "envs", "presets", "models", "experiments"))
    if verb == "completion":
        return _starting(current, SCRIPTS)
    if verb in RUN_VERBS and len(words) == 2:
        from pathlib import Path

        from rlx.analysis import runs

        return _starting(current, ["latest", *(str(path) for path in runs.find(Path("runs")))])
    if verb not in ("train", "resume"):
        return []
    key, equals, value = current.partition("=")
    if equals:
        if key in GROUPS:
            return [f"{key}={choice}" for choice in _starting(value, registry.options(key))]
        return [
            f"{key}={choice}" for choice in _starting(value, {"device": ("auto", "cpu", "cuda", "mps")}.get(key, ()))
        ]
    from rlx import launch

    overrides = [word for word in words[1:-1] if "=" in word and word.split("=")[0] in GROUPS]
    try:
        keys = _keys(launch.compose(overrides))
    except ValueError:
        keys = []
    return _starting(current, [*(f"{group}=" for group in GROUPS), *(f"{key}=" for key in keys)])


def _keys(tree: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in tree.items():
        found += _keys(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else [f"{prefix}{key}"]
    return found


def _starting(current: str, choices: Any) -> list[str]:
    return [choice for choice in choices if choice.startswith(current)]
