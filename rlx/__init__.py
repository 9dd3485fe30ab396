"""rlx: a command-line reinforcement-learning experiment runner. Importing it imports nothing; see rlx.api for what it
offers to notebooks and scripts."""

__version__ = "0.2.0"

TYPE_CHECKING = False  # typing's own would be an import
if TYPE_CHECKING:
    from rlx.api import RunFailed, RunView, UserError, compare, load, runs, train

__all__ = ["RunFailed", "RunView", "UserError", "compare", "load", "runs", "train"]


def __getattr__(name: str) -> object:
    if name in __all__:
        import rlx.api

        return getattr(rlx.api, name)
    raise AttributeError(f"module 'rlx' has no attribute {name!r} (it has {', '.join(__all__)})")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
