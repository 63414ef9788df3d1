#!/usr/bin/env python3
"""`hmtl_plugin.commands.import_hf`, where it is explained; or see --help."""

from hmtl_plugin.commands.run import run_command

if __name__ == "__main__":  # processes that are spawned import this file
    run_command("import_hf")
