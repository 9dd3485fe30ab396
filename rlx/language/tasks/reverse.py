"""Reversing: `3142657=` -> `7562413`."""

from rlx.language.tasks.sequence import SequenceConfig, SequenceTask

Config = SequenceConfig


class Task(SequenceTask):
    def order(self, sequence: str) -> str:
        return sequence[::-1]
