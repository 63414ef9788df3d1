#!/usr/bin/env python3
"""`hmtl_plugin.commands.export_onnx`, where it is explained; or see --help."""

from hmtl_plugin.commands.run import run_command

run_command("export_onnx")
