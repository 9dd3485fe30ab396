"""A run directory: its one writer and its one reader.

layout       config.yaml, status.json, the lock          provenance   run.json         checkpoint  checkpoints/
metrics      metrics.jsonl, the truth                    tensorboard  the events, derived from it; tensorboard_grid
keys         what a key of the configuration means       films        videos/
reader       what `rlx ls` and `rlx show` print          query        several runs and their configurations
filter       --where and --sort                          index        the cache of `rlx ls`
home         where runs are

A stranger may have written any file there: base.files.guarded reads them, base.files.document makes objects of the
JSON ones.

Metrics and events are unbuffered: a record is one write() to the operating system, so `kill -9` loses nothing that was
logged, there is no thread to fork or to join, and a full disk shows in the call that met it. There the two differ:
MetricsLog raises, because a run without its metrics is no run; Dashboard warns once and falls silent.

Left out: torch.utils.tensorboard and tensorboard's own EventFileWriter. Framing the records here costs 17 us for 15
values instead of 82 and a thread, and 20 ms of imports instead of 120.
"""
