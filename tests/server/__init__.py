"""The server as a process: its command line, addresses, logs, signals and the faults that it survives."""
