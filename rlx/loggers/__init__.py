"""Where else the metrics of a run go: beside metrics.jsonl, which is the truth, and TensorBoard."""
