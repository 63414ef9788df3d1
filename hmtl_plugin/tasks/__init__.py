"""Tasks that the plugin registers; fairseq imports every module of this folder when it loads the plugin."""
