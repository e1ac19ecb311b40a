"""Other engines beside ours: each runs in a virtual environment and a process of its own."""
