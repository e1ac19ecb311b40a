"""What `python -m bench.gpu_check` runs on a machine with a GPU."""
