"""From arguments to runs: the only package that imports Hydra.

arguments     flags and overrides, checked before Hydra sees them     composing       the search path, compose as data
grid          every job checked before the first one starts           search_request  the same for `rlx sweep`
chain         runs that start from one another                        hydra_errors    errors as one line
config_files  which file a value came from                            launch          rlx train, rlx resume
"""
