#!/usr/bin/env python3
"""`hmtl_plugin.commands.openmp_waiting`, where it is explained."""

from hmtl_plugin.commands.openmp_waiting import main

if __name__ == "__main__":
    main()
