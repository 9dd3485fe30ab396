"""Copying: `3142657=` -> `3142657`."""

from rlx.language.tasks.sequence import SequenceConfig, SequenceTask

Config = SequenceConfig


class Task(SequenceTask):
    def order(self, sequence: str) -> str:
        return sequence
