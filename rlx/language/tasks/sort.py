"""Sorting: `3142657=` -> `1234567`; symbols that occur twice stay twice."""

from rlx.language.tasks.sequence import SequenceConfig, SequenceTask

Config = SequenceConfig


class Task(SequenceTask):
    def order(self, sequence: str) -> str:
        return "".join(sorted(sequence))
