"""The command line: one module a command, run by `run.run_command`."""
