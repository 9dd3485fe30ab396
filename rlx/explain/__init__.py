"""What rlx explain says. One source each: docstrings for equations, comments of YAML files for keys, literal tables of
the modules for metrics and lessons, conf/glossary.yaml for terms. All of it is read as text: nothing is imported that
could import torch, and a stranger's file in ./algos is read like rlx's own."""
