"""Criterions that the plugin registers."""
