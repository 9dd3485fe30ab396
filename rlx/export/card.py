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
    """The lines of the README: load, act, one call."""
    loads = ['w = load_file("weights.safetensors")']
    if policy.extra:
        loads.append('vocab = json.load(open("vocabulary.json", encoding="utf-8"))')
    imports = ["import json", ""] if policy.extra else []
    uses = ["from torch.nn import functional as F"] if any("F." in line for line in policy.lines) else []
    head = [*imports, "import torch", "from safetensors.torch import load_file", *uses, "", *loads, "", ""]
    return "\n".join([*head, *policy.lines, "", "", f"print({policy.example})"])


def readme(policy: Plain, facts: dict[str, str]) -> str:
    """A model card."""
    place = "env" if "env" in facts else "task"
    rows = "\n".join(f"- {name}: `{_inline(value)}`" for name, value in facts.items() if name != "versions")
    versions = ", ".join(f"{name} {version}" for name, version in json.loads(facts["versions"]).items())
    return f"""# {shown(facts["algo"])} on {shown(facts[place])}

A policy trained by rlx, as tensors. Acting needs torch and safetensors, and these lines:

```python
{code(policy)}
```

- takes: {policy.takes}
- gives: {policy.gives}
- as trained: `config.yaml`; it acts without chance (the most probable action)

## Where it comes from

{rows}
- versions: {versions}
"""


def _inline(text: str) -> str:
    """Within one pair of backquotes, on one line."""
    return " ".join(text.replace("`", "'").split()) or "-"
