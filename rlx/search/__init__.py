"""Search: hyper-parameters by Optuna, several seeds a trial, any number of workers, nothing lost to a kill -9.

settings  what is asked for beside the configuration      study           its directory, read without Optuna
params    a point of the space                            optuna_storage  Optuna's storages, samplers, pruners
trials    planned, taken, told                            worker          one worker; pool: several
winner    the best trial, and its fresh seeds             search          all of it, as `rlx sweep` does it

The only importer of Optuna. A study is the directory, what Optuna has recorded and the run directories; each can be
read without the others, and every step between them can be cut by a kill -9 and is taken up again.
"""
