"""``python -m hmtl_plugin COMMAND``."""

from hmtl_plugin.commands.run import main

main()
