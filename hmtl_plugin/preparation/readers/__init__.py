"""Readers of the corpus formats: from files to documents of cleaned text, a bounded piece of a file at a
time.
"""
