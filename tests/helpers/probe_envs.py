"""The probe environments of rlx check, as "probe_envs:Name-v0"."""

from rlx.check.probes import *  # noqa: F403  registers them
