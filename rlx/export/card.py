"""What an export says of itself: facts for a header, and the README.md of a folder."""

import json
import shlex
from pathlib import Path
from typing import Any

from rlx import __version__
from rlx.base.errors import shown
from rlx.export.plain import Plain
from rlx.rundir.layout import LastEvaluation, Status
from rlx.rundir.provenance import Provenance


def facts(path: Path, cfg: Any, step: int, weights: str, config_hash: str) -> dict[str, str]:
    """Strings, as a safetensors header takes them."""
    record, evaluation = Provenance.load(path), Status.read(path).evaluation or LastEvaluation()
    return {
        "algo": cfg.algo.name,
        cfg.PLACE: cfg.place.name,
        "seed": str(cfg.seed),
        "step": str(step),
        "score": "not evaluated" if evaluation.score is None else f"{evaluation.score:.6g} at step {evaluation.step}",
        "config_hash": config_hash,
        "weights_sha256": weights,
        "versions": json.dumps({**(record.versions or {}), "exported_by": f"rlx {__version__}"}),
        "command": shlex.join(map(str, record.command or [])),
    }


def code(policy: Plain) -> str:
    """policy.py: a module that loads what lies beside it, and acts."""
    about = f'"""A policy trained by rlx. It takes {policy.takes}; it gives {policy.gives}."""'
    loads = ["here = Path(__file__).parent", 'w = load_file(here / "weights.safetensors")']
    if policy.extra:
        loads.append('vocab = json.loads((here / "vocabulary.json").read_text("utf-8"))')
    imports = [about, "", *(["import json"] if policy.extra else []), "from pathlib import Path", ""]
    uses = ["from torch.nn import functional as F"] if any("F." in line for line in policy.lines) else []
    head = [*imports, "import torch", "from safetensors.torch import load_file", *uses, "", *loads, "", ""]
    return "\n".join([*head, *policy.lines, "", "", 'if __name__ == "__main__":', f"    print({policy.example})", ""])


def use(policy: Plain) -> str:
    """The lines of the README."""
    imports = ["import torch"] if "torch." in policy.example else []
    name = policy.example.partition("(")[0]
    return "\n".join([*imports, f"from policy import {name}", "", f"print({policy.example})"])


def readme(policy: Plain, facts: dict[str, str]) -> str:
    """A model card."""
    place = "env" if "env" in facts else "task"
    rows = "\n".join(f"- {name}: `{_inline(value)}`" for name, value in facts.items() if name != "versions")
    versions = ", ".join(f"{name} {version}" for name, version in json.loads(facts["versions"]).items())
    return f"""# {shown(facts["algo"])} on {shown(facts[place])}

A policy trained by rlx. Acting needs torch and safetensors, and this folder (`python policy.py` tries it):

```python
{use(policy)}
```

- takes: {policy.takes}
- gives: {policy.gives}
- as trained: `config.yaml`; it is deterministic (the most probable action)

## Where it comes from

{rows}
- versions: {versions}
"""


def _inline(text: str) -> str:
    """Within one pair of backquotes, on one line."""
    return " ".join(text.replace("`", "'").split()) or "-"
